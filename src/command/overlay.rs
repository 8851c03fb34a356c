//! The server's own `COMMAND` reply, laid over the built-in table.
//!
//! Invariants: laying over makes a command no less careful. What the server calls a write becomes
//! one, what it does not call a pure read is no longer cached, and a command that only the server knows is
//! a write of unknown keys unless its flags say better.

use super::keys::{KeyUse, Keys, Part};
use super::policy::Policy;
use super::row::{Access, Cached, Fields, Kind, KindRule, Row, Shape};
use super::table::{MAX_NAME, Table};
use super::tells::Tells;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// One entry of the server's `COMMAND` reply. Before Redis 7 there are no tips and no subcommands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerCommand {
    pub name: String,
    pub arity: i64,
    pub flags: Vec<String>,
    pub first_key: i64,
    pub last_key: i64,
    pub step: i64,
    pub tips: Vec<String>,
    pub subcommands: Vec<ServerCommand>,
}

impl Table {
    /// This table, which should be the built-in one, corrected by what the server says of itself.
    ///
    /// A built-in command that the server does not list is no longer cached. An empty `info` says nothing (the user
    /// may not call COMMAND), and changes nothing.
    ///
    /// Where the server lists a command's subcommands, those that it does not list are errors: they leave no state, so they need no
    /// connection of a session's own. (Subcommands cannot be renamed; a server that was upgraded in place is asked anew.)
    pub fn overlay(&self, info: &[ServerCommand]) -> Table {
        if info.is_empty() {
            return self.clone();
        }
        let told = flatten(info);
        let by_name: HashMap<&str, &ServerCommand> =
            told.iter().map(|(name, server)| (&**name, *server)).collect();
        let listed: HashSet<String> = info
            .iter()
            .filter(|server| !server.subcommands.is_empty())
            .map(|server| server.name.to_ascii_lowercase())
            .collect();
        let fields_end = FIELD_TIMES.iter().any(|name| by_name.contains_key(name));
        let mut rows = self.rows.clone();
        for row in &mut rows {
            if !fields_end {
                row.fields = Fields::None;
            }
            match by_name.get(&*row.name) {
                Some(server) => correct(row, server),
                None => row.cached = Cached::Never,
            }
            // The row of a command with subcommands is for those that are not listed.
            let (name, is_listed) = match row.name.split_once('|') {
                Some((name, _)) => (name, by_name.contains_key(&*row.name)),
                None => (&*row.name, false),
            };
            if row.kind == KindRule::Always(Kind::Connection) && !is_listed && listed.contains(name) {
                row.kind = KindRule::Always(Kind::Plain);
            }
        }
        // Twice the same name: the first stays.
        let mut seen: HashMap<&str, ()> = HashMap::new();
        for (name, server) in &told {
            let Ok(id) = u16::try_from(rows.len()) else { break };
            if self.find(name.as_bytes()).is_none() && seen.insert(name, ()).is_none() {
                rows.push(unknown(id, name.clone(), server));
            }
        }
        Table::new(rows)
    }

    /// This table, with no command's reply cached but those of `wanted`.
    pub fn narrow(&self, wanted: &[String]) -> Table {
        let mut table = self.clone();
        for row in table.rows.iter_mut().filter(|row| row.cached != Cached::Never) {
            if !wanted.iter().any(|name| *name == row.name) {
                row.cached = Cached::Unwanted;
            }
        }
        table
    }
}

/// Commands by which a field of a hash comes to a time to live of its own, or tells it. A server that has none of
/// them knows no such times.
const FIELD_TIMES: [&str; 10] = [
    "hexpire",
    "hexpireat",
    "hpexpire",
    "hpexpireat",
    "hsetex",
    "hgetex",
    "httl",
    "hpttl",
    "hexpiretime",
    "hpexpiretime",
];

/// Commands and subcommands with their full, lower-case names, those that are no names left out.
fn flatten(info: &[ServerCommand]) -> Vec<(String, &ServerCommand)> {
    let mut told = Vec::new();
    for server in info {
        let name = server.name.to_ascii_lowercase();
        for sub in &server.subcommands {
            let sub_name = sub.name.to_ascii_lowercase();
            // Redis gives the full name; a bare one would be as good.
            let full = if sub_name.contains('|') { sub_name } else { format!("{name}|{sub_name}") };
            told.push((full, sub));
        }
        told.push((name, server));
    }
    told.retain(|(name, _)| !name.is_empty() && name.len() <= MAX_NAME && !name.contains('\0'));
    told
}

fn correct(row: &mut Row, server: &ServerCommand) {
    let flags = Flags::of(server);
    row.arity = arity(server);
    row.policy = row.policy.corrected(&server.tips);
    if flags.write && row.access != Access::Write {
        row.access = Access::Write;
        row.keys = flags.keys(server);
    } else if flags.movable && row.access == Access::Write && !row.keys.movable() {
        let [known, _] = row.keys.0;
        row.keys = Keys([known, Part::Unknown]);
    }
    if flags.blocking && row.kind == KindRule::Always(Kind::Plain) {
        row.kind = KindRule::Always(Kind::Blocking);
    }
    if !flags.readonly || flags.nondeterministic {
        row.cached = Cached::Never;
    }
}

/// The row of a command that only the server knows.
fn unknown(id: u16, name: String, server: &ServerCommand) -> Row {
    let flags = Flags::of(server);
    let kind = if flags.pubsub && flags.no_script {
        if server.arity.unsigned_abs() >= 2 { Kind::Subscribe } else { Kind::Unsubscribe }
    } else if flags.blocking {
        Kind::Blocking
    } else if flags.no_script && !(flags.about_data || flags.admin && !name.starts_with("client|")) {
        // What a script may not call mostly speaks of the connection, unless it is about data or the server.
        Kind::Connection
    } else if flags.no_script {
        Kind::Blocking
    } else {
        Kind::Plain
    };
    Row {
        id,
        name: Cow::Owned(name),
        arity: arity(server),
        access: flags.access(),
        kind: KindRule::Always(kind),
        cached: Cached::Never,
        fields: Fields::None,
        tells: Tells::Open,
        keys: flags.keys(server),
        shape: Shape::Command,
        policy: Policy::DEFAULT.corrected(&server.tips),
    }
}

fn arity(server: &ServerCommand) -> i32 {
    i32::try_from(server.arity).unwrap_or(-1)
}

/// The flags and tips that matter here.
#[derive(Default)]
struct Flags {
    readonly: bool,
    write: bool,
    movable: bool,
    blocking: bool,
    pubsub: bool,
    no_script: bool,
    admin: bool,
    about_data: bool,
    nondeterministic: bool,
}

impl Flags {
    fn of(server: &ServerCommand) -> Self {
        let has = |flag: &str| server.flags.iter().any(|f| f.eq_ignore_ascii_case(flag));
        let tip = |tip: &str| server.tips.iter().any(|t| t.eq_ignore_ascii_case(tip));
        Self {
            readonly: has("readonly"),
            write: has("write"),
            movable: has("movablekeys"),
            blocking: has("blocking"),
            pubsub: has("pubsub"),
            no_script: has("noscript") || has("no_script"),
            admin: has("admin"),
            about_data: has("readonly") || has("write"),
            nondeterministic: tip("nondeterministic_output"),
        }
    }

    fn access(&self) -> Access {
        match self {
            Flags { write: true, .. } => Access::Write,
            Flags { readonly: true, .. } => Access::Read,
            Flags { pubsub: true, .. } => Access::None,
            // Scripts are flagged neither way, and a module's command may do as they do.
            _ => Access::Write,
        }
    }

    fn keys(&self, server: &ServerCommand) -> Keys {
        let usage = match self.access() {
            // A channel, not a key.
            Access::None => return Keys::one(Part::Nothing),
            Access::Read => KeyUse::Read,
            Access::Write => KeyUse::Update,
        };
        let range = range(server, usage);
        let told = self.write && !self.movable && range != Part::Nothing;
        Keys([range, if told || usage == KeyUse::Read { Part::Nothing } else { Part::Unknown }])
    }
}

/// Out of all bounds counts as no keys told.
fn range(server: &ServerCommand, usage: KeyUse) -> Part {
    let first = u16::try_from(server.first_key).unwrap_or(0);
    match (i16::try_from(server.last_key), u16::try_from(server.step)) {
        (Ok(last), Ok(step)) if first > 0 && last != 0 => {
            Part::Range { first, last, step: step.max(1), usage }
        }
        _ => Part::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, keys, kind};
    use super::*;
    use crate::command::CacheRule;

    fn server(name: &str, arity: i64, flags: &str, keys: (i64, i64, i64)) -> ServerCommand {
        ServerCommand {
            name: name.into(),
            arity,
            flags: flags.split_whitespace().map(String::from).collect(),
            first_key: keys.0,
            last_key: keys.1,
            step: keys.2,
            ..ServerCommand::default()
        }
    }

    fn cache(table: &Table, line: &str) -> CacheRule {
        let sample = Sample::line(line);
        table.lookup(&sample.req()).unwrap().cache(&sample.req())
    }

    #[test]
    fn commands_that_only_the_server_knows() {
        let mut box_ = server("box", -2, "", (0, 0, 0));
        box_.subcommands =
            vec![server("box|put", 3, "write", (2, 2, 1)), server("peek", 3, "readonly", (2, 2, 1))];
        let table = Table::builtin().overlay(&[
            server("MOD.Read", -2, "readonly", (1, -1, 1)),
            server("mod.write", -2, "write denyoom", (1, 3, 2)),
            server("mod.movable", -2, "write movablekeys", (1, 1, 1)),
            server("mod.free", -1, "write", (0, 0, 0)),
            server("mod.unsaid", -1, "", (0, 0, 0)),
            server("mod.wait", -1, "write blocking noscript", (1, 1, 1)),
            server("mod.state", -1, "noscript", (0, 0, 0)),
            server("mod.data", -1, "noscript readonly", (0, 0, 0)),
            server("mod.server", -1, "noscript admin", (0, 0, 0)),
            server("client|new", -3, "noscript admin", (0, 0, 0)),
            server("mod.listen", -2, "pubsub noscript", (1, -1, 1)),
            server("mod.odd", -2, "write", (1, i64::MAX, 0)),
            server("mod.zero", -2, "write", (1, -1, 0)),
            server("mod.zero", -2, "readonly", (1, -1, 0)),
            server("mod.none", -2, "write", (0, -1, 1)),
            server("mod.last", -2, "write", (1, 0, 1)),
            server("mod.both", -2, "write readonly pubsub", (1, 1, 1)),
            server("mod.huge", i64::MAX, "write", (1, 1, 1)),
            box_,
        ]);
        for (line, expected) in [
            ("mod.read a b", "a b"),
            ("MOD.WRITE a b c d", "a+ c+"),
            ("mod.movable a", "a+ ?"),
            ("mod.free", "?"),
            ("mod.unsaid", "?"),
            ("mod.listen c", ""),
            ("mod.odd a", "?"),
            ("mod.zero a b", "a+ b+"),
            ("mod.none a", "?"),
            ("mod.last a", "?"),
            ("mod.both a", "a+"),
            ("box put k", "k+"),
            ("BOX PEEK k", "k"),
            ("box new k", "?"),
        ] {
            assert_eq!(keys(&table, line), expected, "{line}");
        }
        assert_eq!(kind(&table, "mod.read a"), Kind::Plain);
        assert_eq!(kind(&table, "mod.wait a"), Kind::Blocking);
        assert_eq!(kind(&table, "mod.state"), Kind::Connection);
        assert_eq!(kind(&table, "mod.data"), Kind::Blocking, "leaves nothing");
        assert_eq!(kind(&table, "mod.server"), Kind::Blocking, "leaves nothing");
        assert_eq!(kind(&table, "client new x"), Kind::Connection);
        assert_eq!(kind(&table, "mod.listen c"), Kind::Subscribe);
        let huge = table.find(b"mod.huge").unwrap();
        assert!(huge.takes(1) && huge.takes(9), "how many it takes is not known");
    }

    #[test]
    fn what_is_no_name_gets_no_row() {
        let names = [String::new(), "x".repeat(MAX_NAME + 1), "a\0b".into()];
        let plain = Table::builtin();
        let table = plain.overlay(&names.map(|name| server(&name, 1, "readonly", (0, 0, 0))));
        assert_eq!(table.rows.len(), plain.rows.len());
        let longest = "x".repeat(MAX_NAME);
        let table = plain.overlay(&[server(&longest, 1, "readonly", (0, 0, 0))]);
        assert!(table.find(longest.as_bytes()).is_some());
    }

    #[test]
    fn what_may_wait_is_no_longer_plain_and_all_else_stays_where_it_is() {
        let table = Table::builtin().overlay(&[
            server("get", 2, "readonly fast", (1, 1, 1)),
            server("lpush", -3, "write blocking", (1, 1, 1)),
            server("monitor", 1, "blocking admin", (0, 0, 0)),
            server("xread", -4, "readonly blocking movablekeys", (0, 0, 0)),
        ]);
        for (line, expected) in [
            ("GET k", Kind::Plain),
            ("LPUSH k v", Kind::Blocking),
            ("MONITOR", Kind::Monitor),
            ("XREAD STREAMS s 0", Kind::Plain),
        ] {
            assert_eq!(kind(&table, line), expected, "{line}");
        }
    }

    #[test]
    fn a_subcommand_that_the_server_does_not_list_leaves_no_state() {
        let mut client = server("client", -2, "", (0, 0, 0));
        client.subcommands = vec![server("client|tracking", -3, "noscript", (0, 0, 0))];
        let told = Table::builtin().overlay(&[client.clone()]);
        for (line, expected) in [
            ("CLIENT TRACKING ON", Kind::Connection),
            ("CLIENT MAINT_NOTIFICATIONS ON", Kind::Plain),
            ("CLIENT NO-TOUCH ON", Kind::Plain),
            ("CLIENT SOMETHING NEW", Kind::Plain),
            ("MONITOR", Kind::Monitor),
        ] {
            assert_eq!(kind(&told, line), expected, "{line}");
        }
        // A server before 7.0 lists none: nobody knows.
        client.subcommands.clear();
        let untold = Table::builtin().overlay(&[client]);
        assert_eq!(kind(&untold, "CLIENT MAINT_NOTIFICATIONS ON"), Kind::Connection);
        assert_eq!(kind(&untold, "CLIENT SOMETHING NEW"), Kind::Connection);
    }

    #[test]
    fn cached_only_while_the_server_agrees() {
        let plain = Table::builtin();
        let mut tipped = server("hget", 3, "readonly", (1, 1, 1));
        tipped.tips = vec!["NONDETERMINISTIC_OUTPUT".into()];
        let table = plain.overlay(&[
            server("get", 2, "readonly fast", (1, 1, 1)),
            server("strlen", 2, "write", (1, 1, 1)),
            tipped,
        ]);
        assert_eq!(cache(&table, "GET k"), CacheRule::Single);
        assert_eq!(cache(&table, "HGET k f"), CacheRule::Never);
        assert_eq!(cache(&table, "STRLEN k"), CacheRule::Never);
        assert_eq!(keys(&table, "STRLEN k"), "k+");
        // Not listed: disabled or renamed.
        assert_eq!(cache(&table, "TYPE k"), CacheRule::Never);
        // Not told.
        assert_eq!(cache(&plain.overlay(&[]), "TYPE k"), CacheRule::Single);
    }

    #[test]
    fn only_what_is_wanted_is_cached() {
        let table = Table::builtin().narrow(&["get".into(), "exists".into()]);
        assert_eq!(cache(&table, "GET k"), CacheRule::Single);
        assert_eq!(cache(&table, "EXISTS k"), CacheRule::Single);
        assert_eq!(cache(&table, "MGET k"), CacheRule::Unwanted);
        assert_eq!(cache(&table, "STRLEN k"), CacheRule::Unwanted);
        assert_eq!(cache(&table, "STRLEN k x"), CacheRule::Never);
        assert_eq!(cache(&table, "TTL k"), CacheRule::Never);
    }

    #[test]
    fn fields_have_times_where_the_server_has_commands_for_them() {
        let plain = Table::builtin();
        let hget = server("hget", 3, "readonly fast", (1, 1, 1));
        let fields = |table: &Table| table.find(b"hget").map(|row| row.fields);
        assert_eq!(fields(&plain), Some(Fields::Named), "nothing is known yet");
        assert_eq!(fields(&plain.overlay(&[])), Some(Fields::Named), "COMMAND is not allowed");
        assert_eq!(fields(&plain.overlay(std::slice::from_ref(&hget))), Some(Fields::None));
        let hsetex = server("HSETEX", -6, "write", (1, 1, 1));
        assert_eq!(fields(&plain.overlay(&[hget, hsetex])), Some(Fields::Named));
    }

    #[test]
    fn builtin_rows_keep_their_ids_and_rules() {
        let plain = Table::builtin();
        let table = plain.overlay(&[
            server("aaa", 1, "readonly", (0, 0, 0)),
            server("eval", -3, "noscript movablekeys", (0, 0, 0)),
            server("pfcount", -2, "readonly", (1, -1, 1)),
            server("set", -7, "write", (1, 1, 1)),
            server("incr", 2, "write movablekeys", (1, 1, 1)),
        ]);
        for row in &plain.rows {
            assert_eq!(table.find(row.name.as_bytes()).map(|r| r.id), Some(row.id));
        }
        assert_eq!(table.find(b"aaa").map(|r| usize::from(r.id)), Some(plain.rows.len()));
        assert_eq!(table.find(b"set").map(|r| r.arity), Some(-7));
        assert_eq!(keys(&table, "EVAL s 1 a"), "a+ ?");
        assert_eq!(keys(&table, "PFCOUNT a"), "a+");
        assert_eq!(keys(&table, "INCR a"), "a+ ?");
    }
}
