//! The built-in command table, held against a real server's own account of its commands.
//!
//! `NEARSIDE_TEST_SERVER` names another server binary than `redis-server`: any Redis from 6 on, or Valkey.

use nearside::command::{Access, CacheRule, KeySet, KeyUse, Row, ServerCommand, Table};
use nearside::resp::request::{ArgRange, Request};
use redis::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where our row is more careful than the flags, and why.
const ACCESS_EXCEPTIONS: &[(&str, Access, &str)] = &[
    ("eval", Access::Write, "flagged neither way"),
    ("evalsha", Access::Write, "flagged neither way"),
    ("fcall", Access::Write, "flagged neither way"),
    ("watch", Access::Read, "flagged neither way; looks at keys"),
    ("pfcount", Access::Write, "stores the count in its key"),
    ("debug", Access::Write, "may do anything"),
    ("acl|deluser", Access::Write, "ends what its users may see"),
    ("acl|load", Access::Write, "ends what users may see"),
    ("acl|setuser", Access::Write, "ends what its user may see"),
    ("config|set", Access::Write, "may change a password"),
    ("replicaof", Access::Write, "replaces the data set"),
    ("slaveof", Access::Write, "replaces the data set"),
    ("failover", Access::Write, "replaces the data set"),
    ("cluster|failover", Access::Write, "replaces the data set"),
    ("cluster|replicate", Access::Write, "replaces the data set"),
    ("cluster|reset", Access::Write, "empties a replica"),
    ("object", Access::Read, "before 7 the container has the flags, since then its subcommands"),
    ("xinfo", Access::Read, "as OBJECT"),
    ("xgroup", Access::Write, "as OBJECT"),
    ("memory", Access::None, "as OBJECT; MEMORY USAGE has its own row"),
    ("himport", Access::Write, "an unknown subcommand may do anything"),
    ("host:", Access::None, "no command"),
    ("post", Access::None, "no command"),
];

/// Rows that state the newest arity, and the older ones that servers may still have.
const ARITY_EXCEPTIONS: &[(&str, &[i64])] = &[
    ("expire", &[3]),
    ("expireat", &[3]),
    ("pexpire", &[3]),
    ("pexpireat", &[3]),
    ("xsetid", &[3]),
    ("zrank", &[3]),
    ("zrevrank", &[3]),
    ("pfdebug", &[-3]),
    ("command|getkeys", &[-4]),
    ("command|getkeysandflags", &[-4]),
    // Valkey took further arguments.
    ("cluster|replicate", &[-3]),
    ("script|debug", &[-3]),
];

/// The server's first, last and step are channels or a cursor here, not keys.
const NOT_KEYS: &[&str] = &["spublish", "ssubscribe", "sunsubscribe", "clusterscan"];

/// Requests for every rule that reads the arguments, and some for the fixed ones.
const EXAMPLES: &[&str] = &[
    "GET k",
    "MGET a b c",
    "SET k v",
    "SET k v GET",
    "DEL a b",
    "UNLINK a b",
    "GETDEL k",
    "GETEX k PERSIST",
    "MSET a 1 b 2",
    "MSETNX a 1 b 2",
    "RENAME a b",
    "RENAMENX a b",
    "COPY a b REPLACE",
    "BLPOP a b 0",
    "BZPOPMIN a b 0",
    "LMOVE a b LEFT RIGHT",
    "SMOVE a b m",
    "SINTERSTORE d a b",
    "PFMERGE d a b",
    "BITOP AND d a b",
    "GEOSEARCHSTORE d s FROMMEMBER m BYRADIUS 1 m",
    "ZRANGESTORE d s 0 -1",
    "LCS a b",
    "EVAL return 2 a b c",
    "EVAL return 0 c",
    "EVALSHA 00 1 a",
    "EVAL_RO return 2 a b c",
    "EVALSHA_RO 00 1 a",
    "FCALL f 1 a b",
    "FCALL_RO f 1 a b",
    "ZUNION 2 a b WEIGHTS 1 2",
    "ZINTER 2 a b",
    "ZDIFF 1 a",
    "ZUNIONSTORE d 2 a b AGGREGATE MAX",
    "ZINTERSTORE d 2 a b",
    "ZDIFFSTORE d 2 a b",
    "ZINTERCARD 2 a b LIMIT 1",
    "SINTERCARD 2 a b LIMIT 1",
    "LMPOP 2 a b LEFT COUNT 2",
    "ZMPOP 2 a b MIN",
    "BLMPOP 0 2 a b LEFT",
    "BZMPOP 0 2 a b MIN",
    "XREAD COUNT 1 BLOCK 0 STREAMS a b 0 0",
    "XREAD STREAMS streams 0",
    "XREADGROUP GROUP g c COUNT 1 NOACK STREAMS a b > >",
    "SORT k",
    "SORT k BY store* GET store LIMIT 0 1",
    "SORT k BY w_* LIMIT 0 5 GET # STORE d",
    "SORT_RO k",
    "GEORADIUS k 1 2 3 m",
    "GEORADIUS k 1 2 3 m COUNT 1 STORE d",
    "GEORADIUS k 1 2 3 m STOREDIST d",
    "GEORADIUSBYMEMBER k m 3 m STORE d",
    "GEORADIUS_RO k 1 2 3 m",
    "MIGRATE h 1 k 0 9",
    "MIGRATE h 1 '' 0 9 KEYS a b",
    "MIGRATE h 1 '' 0 9 COPY REPLACE AUTH2 u p KEYS a b",
    "MEMORY USAGE k",
    "OBJECT ENCODING k",
    "XGROUP CREATE k g $",
    "XINFO STREAM k",
    "BITFIELD k GET u8 0",
    "BITFIELD k SET u8 0 1 GET u8 0",
    "PFCOUNT a b",
    "TOUCH a b",
    "EXISTS a b",
    "MSETEX 2 a 1 b 2 EX 9",
    "HGETEX k FIELDS 1 f",
    "HSETEX k FIELDS 1 f v",
    "HGETDEL k FIELDS 1 f",
    "HEXPIRE k 9 FIELDS 1 f",
    "XDELEX k IDS 1 0-1",
    "DELIFEQ k v",
    "DELEX k",
    "LPOP k",
    "HDEL k f",
    "XADD k * f v",
];

struct Server {
    child: Child,
    client: redis::Client,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let binary = std::env::var("NEARSIDE_TEST_SERVER").unwrap_or_else(|_| "redis-server".into());
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let child = Command::new(binary)
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("a redis-server binary");
        let client = redis::Client::open(format!("redis+unix://{}", socket.display())).unwrap();
        let server = Server { child, client, _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(20);
        while server.client.get_connection().is_err() {
            assert!(Instant::now() < deadline, "the server does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    fn commands(&self) -> Vec<ServerCommand> {
        let mut connection = self.client.get_connection().unwrap();
        let reply: Value = redis::cmd("COMMAND").query(&mut connection).unwrap();
        items(&reply).iter().map(command).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        other => panic!("not an array: {other:?}"),
    }
}

fn text(value: &Value) -> String {
    redis::from_redis_value(value.clone()).unwrap()
}

fn command(value: &Value) -> ServerCommand {
    let fields = items(value);
    let number = |i: usize| redis::from_redis_value::<i64>(fields[i].clone()).unwrap();
    let texts = |i: usize| fields.get(i).map(|v| items(v).iter().map(text).collect()).unwrap_or_default();
    ServerCommand {
        name: text(&fields[0]),
        arity: number(1),
        flags: texts(2),
        first_key: number(3),
        last_key: number(4),
        step: number(5),
        tips: texts(7),
        subcommands: fields.get(9).map(|v| items(v).iter().map(command).collect()).unwrap_or_default(),
    }
}

/// Commands and subcommands alike.
fn all(commands: &[ServerCommand]) -> impl Iterator<Item = &ServerCommand> {
    commands.iter().chain(commands.iter().flat_map(|c| &c.subcommands))
}

/// Calls `f` with the request of these words.
fn with_request<T>(words: &[&str], f: impl FnOnce(&Request<'_>) -> T) -> T {
    let (mut raw, mut args) = (Vec::new(), Vec::new());
    for word in words {
        args.push(ArgRange { start: raw.len() as u32, len: word.len() as u32 });
        raw.extend_from_slice(word.as_bytes());
        raw.extend_from_slice(b"\r\n");
    }
    f(&Request::new(&raw, &args))
}

/// The row of a command's full name.
fn row<'t>(table: &'t Table, name: &str) -> Option<&'t Row> {
    let words: Vec<&str> = name.split('|').collect();
    with_request(&words, |req| table.lookup(req)).filter(|row| row.name == name)
}

/// Each key with whether it may be written; `None` where the keys are unknown.
fn our_keys(row: &Row, req: &Request<'_>) -> Option<BTreeMap<usize, KeyUse>> {
    let mut found = BTreeMap::new();
    let set = row.keys(req, |i, usage| {
        found.insert(i, usage);
    });
    (set == KeySet::Known).then_some(found)
}

fn is_module(command: &ServerCommand) -> bool {
    command.flags.iter().any(|flag| flag == "module")
}

#[test]
fn every_command_of_the_server_has_a_row() {
    let (server, table) = (Server::start(), Table::builtin());
    let told = server.commands();
    assert!(told.len() > 200);
    // A module that is loaded may be anyone's: its rows come by the overlay.
    let ours = |c: &&ServerCommand| !is_module(c);
    let missing: Vec<_> = all(&told)
        .filter(ours)
        .map(|c| c.name.to_lowercase())
        .filter(|name| row(&table, name).is_none())
        .collect();
    assert!(missing.is_empty(), "no rows for {missing:?}");
}

#[test]
fn arity_agrees() {
    let (server, table) = (Server::start(), Table::builtin());
    for told in all(&server.commands()) {
        let name = told.name.to_lowercase();
        let Some(row) = row(&table, &name) else { continue };
        let older =
            ARITY_EXCEPTIONS.iter().find(|(n, _)| *n == name).is_some_and(|(_, a)| a.contains(&told.arity));
        // Module commands mostly register no arity.
        let unsaid = is_module(told) && told.arity == -1;
        assert!(
            i64::from(row.arity) == told.arity || older || unsaid,
            "{name}: {} {}",
            row.arity,
            told.arity
        );
    }
}

#[test]
fn access_agrees() {
    let (server, table) = (Server::start(), Table::builtin());
    for told in all(&server.commands()) {
        let name = told.name.to_lowercase();
        let Some(row) = row(&table, &name) else { continue };
        let has = |flag: &str| told.flags.iter().any(|f| f == flag);
        let flagged = match (has("readonly"), has("write")) {
            (_, true) => Access::Write,
            (true, false) => Access::Read,
            (false, false) => Access::None,
        };
        let expected =
            ACCESS_EXCEPTIONS.iter().find(|(n, ..)| *n == name).map_or(flagged, |(_, access, _)| *access);
        assert_eq!(row.access, expected, "{name}");
        // What may wait is never plain, XREAD and its kin by their arguments.
        if has("blocking") && !name.starts_with("xread") {
            let kind = with_request(&[&name, "1", "2"], |req| row.kind(req));
            assert_ne!(kind, nearside::command::Kind::Plain, "{name}");
        }
    }
}

#[test]
fn key_positions_agree() {
    let (server, table) = (Server::start(), Table::builtin());
    for told in all(&server.commands()) {
        let name = told.name.to_lowercase();
        let movable = told.flags.iter().any(|flag| flag == "movablekeys");
        let Some(row) = row(&table, &name) else { continue };
        // Since 7 a container's subcommands have the positions; ours keep them for older servers.
        if movable || NOT_KEYS.contains(&&*name) || !told.subcommands.is_empty() {
            continue;
        }
        for extra in 0..6 {
            let len = told.arity.unsigned_abs() as usize + extra;
            let mut words: Vec<&str> = name.split('|').collect();
            words.resize(words.len().max(len), "1");
            let len = words.len() as i64;
            let last = if told.last_key < 0 { len + told.last_key } else { told.last_key.min(len - 1) };
            let expected: BTreeSet<usize> = match told.first_key {
                0 => BTreeSet::new(),
                first => (first..=last).step_by(told.step.max(1) as usize).map(|i| i as usize).collect(),
            };
            // Unknown is right only where the server names no key either.
            match with_request(&words, |req| our_keys(row, req)) {
                Some(ours) => assert_eq!(ours.into_keys().collect::<BTreeSet<_>>(), expected, "{words:?}"),
                None => assert!(expected.is_empty() && row.access == Access::Write, "{words:?}"),
            }
        }
    }
}

#[test]
fn keys_of_examples_agree() {
    let (server, table) = (Server::start(), Table::builtin());
    let names: BTreeSet<String> = server.commands().iter().map(|c| c.name.to_uppercase()).collect();
    let mut connection = server.client.get_connection().unwrap();
    let flags_known =
        redis::cmd("COMMAND").arg(&["GETKEYSANDFLAGS", "GET", "k"]).query::<Value>(&mut connection).is_ok();
    let mut compared = 0;
    for line in EXAMPLES {
        let words: Vec<&str> = line.split(' ').map(|word| if word == "''" { "" } else { word }).collect();
        // Before 7, the server's own extractors miss some: they are no measure.
        if !flags_known || !names.contains(words[0]) {
            continue;
        }
        let reply: Result<Value, _> =
            redis::cmd("COMMAND").arg("GETKEYSANDFLAGS").arg(&words).query(&mut connection);
        let mut expected = BTreeMap::new();
        match &reply {
            Ok(value) => {
                for pair in items(value) {
                    let [key, flags] = items(pair) else { panic!("{pair:?}") };
                    let flags: Vec<String> = items(flags).iter().map(text).collect();
                    let usage =
                        match flags.iter().find(|f| matches!(&***f, "RO" | "RW" | "OW" | "RM")).map(|f| &**f)
                        {
                            Some("RO") => "read",
                            Some("RM") => "delete",
                            _ => "update",
                        };
                    // A key that is read and written counts as written.
                    let slot = expected.entry(text(key)).or_insert(usage);
                    if *slot == "read" {
                        *slot = usage;
                    }
                }
            }
            Err(e) => assert!(e.to_string().contains("no key"), "{line}: {e}"),
        }
        let ours = with_request(&words, |req| {
            let (row, mut keys) = (table.lookup(req).expect(line), BTreeMap::new());
            // A script may write more than it declares: only the server knows what.
            let is_script = matches!(&*row.name, "eval" | "evalsha" | "fcall");
            let set = row.keys(req, |i, usage| {
                keys.insert(i, usage);
            });
            assert_eq!(set, if is_script { KeySet::Unknown } else { KeySet::Known }, "{line}");
            keys.into_iter().map(|(i, usage)| (words[i].to_string(), usage)).collect::<BTreeMap<_, _>>()
        });
        assert_eq!(ours.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{line}: the keys");
        for (key, usage) in ours {
            // The server calls "delete" what takes elements away, and flags RW what we know to remove the key.
            let agree = match (usage, expected[&*key]) {
                (KeyUse::Read, server) => server == "read",
                (_, server) => server != "read",
            };
            // One key flagged RW is only read: several keys of PFCOUNT are merged elsewhere.
            assert!(agree || (words[0] == "PFCOUNT" && usage == KeyUse::Read), "{line}: {key} is {usage:?}");
        }
        compared += 1;
    }
    assert!(!flags_known || compared > 60, "{compared}");
}

/// With the server's account laid over: nothing built in changes but for the arity, and caching stays on.
#[test]
fn overlay_of_a_real_server_keeps_the_builtin_rules() {
    let (server, plain) = (Server::start(), Table::builtin());
    let table = plain.overlay(&server.commands());
    for told in all(&server.commands()) {
        let name = told.name.to_lowercase();
        let (Some(before), Some(after)) = (row(&plain, &name), row(&table, &name)) else { continue };
        assert_eq!((before.id, before.access), (after.id, after.access), "{name}");
        assert_eq!(i64::from(after.arity), told.arity, "{name}");
    }
    for line in EXAMPLES {
        let words: Vec<&str> = line.split(' ').collect();
        let keys = |table: &Table| with_request(&words, |req| our_keys(table.lookup(req).expect(line), req));
        assert_eq!(keys(&plain), keys(&table), "{line}");
    }
    for words in
        [&["GET", "k"][..], &["STRLEN", "k"], &["EXISTS", "k"], &["MGET", "a", "b"], &["HGETALL", "k"]]
    {
        let rule = |table: &Table| with_request(words, |req| table.lookup(req).map(|row| row.cache(req)));
        assert_eq!(rule(&plain), rule(&table), "{words:?}");
        assert_ne!(rule(&table), Some(CacheRule::Never), "{words:?}");
    }
}

/// A row that only the server can give is as careful as the built-in one: checked by giving the server's commands
/// other names, as a module would.
#[test]
fn overlay_alone_is_as_careful_as_the_builtin_rows() {
    let (server, plain) = (Server::start(), Table::builtin());
    let told = server.commands();
    let renamed: Vec<ServerCommand> = told
        .iter()
        .map(|c| ServerCommand { name: format!("x.{}", c.name), subcommands: Vec::new(), ..c.clone() })
        .collect();
    let table = plain.overlay(&renamed);
    // Only the built-in rows know these: the flags do not show that they write, or call the positions keys.
    let unseen = ["pfcount"];
    for line in EXAMPLES {
        let mut words: Vec<&str> = line.split(' ').collect();
        let name = words[0].to_lowercase();
        let listed = told.iter().find(|c| c.name == name);
        if unseen.contains(&&*name) || listed.is_none_or(|c| !c.subcommands.is_empty()) {
            continue;
        }
        // Of a script, whose keys are unknown in any case, nothing is compared.
        let Some(builtin) = with_request(&words, |req| our_keys(plain.lookup(req).expect(line), req)) else {
            assert!(["eval", "evalsha", "fcall"].contains(&&*name), "{line}");
            continue;
        };
        let other = format!("x.{name}");
        words[0] = &other;
        let Some(laid) = with_request(&words, |req| our_keys(table.lookup(req).expect(line), req)) else {
            continue;
        };
        for (i, usage) in builtin {
            assert!(usage == KeyUse::Read || laid.get(&i).is_some_and(|u| *u != KeyUse::Read), "{line}: {i}");
        }
    }
}
