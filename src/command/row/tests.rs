use super::super::sample::{Sample, kind};
use super::*;
use crate::command::Table;
use proptest::prelude::*;

fn row_of<'t>(table: &'t Table, line: &str) -> &'t Row {
    table.lookup(&Sample::line(line).req()).expect("a known command")
}

#[test]
fn access_of_well_known_commands() {
    let table = Table::builtin();
    let access = |line: &str| row_of(&table, line).access;
    for line in ["GET k", "MGET k", "TTL k", "SCAN 0", "XREAD STREAMS a 0", "EVAL_RO s 0", "WATCH k"] {
        assert_eq!(access(line), Access::Read, "{line}");
    }
    for line in ["SET k v", "GETEX k", "EVAL s 0", "FLUSHDB", "DEBUG RELOAD", "PFCOUNT k", "SORT k"] {
        assert_eq!(access(line), Access::Write, "{line}");
    }
    for line in ["PING", "PUBLISH c m", "SPUBLISH c m", "MULTI", "EXEC", "CLIENT ID", "SUBSCRIBE c"] {
        assert_eq!(access(line), Access::None, "{line}");
    }
}

#[test]
fn kinds() {
    let table = Table::builtin();
    for (line, expected) in [
        ("GET k", Kind::Plain),
        ("MULTI", Kind::Multi),
        ("BLPOP k 0", Kind::Blocking),
        ("WAIT 1 0", Kind::Blocking),
        ("XREAD STREAMS block 0", Kind::Plain),
        ("XREAD COUNT 1 Block 0 STREAMS s 0", Kind::Blocking),
        ("XREADGROUP GROUP g streams BLOCK 0 STREAMS s >", Kind::Blocking),
        ("XREADGROUP GROUP block c STREAMS s >", Kind::Plain),
        ("XREAD NEWOPTION 1 STREAMS s 0", Kind::Blocking),
        ("TS.READ k 0 BLOCK 0 1", Kind::Blocking),
        ("CLIENT SETNAME x", Kind::Local(Local::ClientSetName)),
        ("CLIENT REPLY OFF", Kind::Local(Local::ClientReply)),
        ("CLIENT SOMETHING", Kind::Connection),
        ("CLIENT LIST", Kind::Local(Local::ClientList)),
        ("CLIENT PAUSE 1", Kind::Plain),
        ("SSUBSCRIBE c", Kind::Subscribe),
        ("POST / HTTP/1.1", Kind::Local(Local::Http)),
        ("NEARSIDE STATS", Kind::Local(Local::Nearside)),
    ] {
        assert_eq!(kind(&table, line), expected, "{line}");
    }
}

#[test]
fn cache_rules() {
    let table = Table::builtin();
    for (line, expected) in [
        ("GET k", CacheRule::Single),
        ("GET", CacheRule::Never),
        ("GET k x", CacheRule::Never),
        ("MGET a b", CacheRule::Mget),
        ("MGET", CacheRule::Never),
        ("EXISTS k", CacheRule::Single),
        ("EXISTS k k", CacheRule::Never),
        ("HGET h f", CacheRule::Single),
        ("TTL k", CacheRule::Never),
        ("PFCOUNT k", CacheRule::Never),
        ("GETEX k", CacheRule::Never),
        ("LCS a b", CacheRule::Never),
        ("SRANDMEMBER k", CacheRule::Never),
        ("XINFO STREAM k", CacheRule::Never),
    ] {
        assert_eq!(row_of(&table, line).cache(&Sample::line(line).req()), expected, "{line}");
    }
}

/// Whether `is` is said of those rows, and of no other.
fn only(is: impl Fn(&Row) -> bool, expected: &[&str]) {
    let mut found: Vec<_> = Table::builtin().rows.into_iter().filter(is).map(|row| row.name).collect();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn what_is_said_of_few_rows_is_said_of_those() {
    let local =
        |row: &Row, is: fn(Local) -> bool| matches!(row.kind, KindRule::Always(Kind::Local(l)) if is(l));
    only(|row| local(row, Local::is_about_clients), &["client|info", "client|kill", "client|list"]);
    only(
        |row| matches!(row.kind, KindRule::Always(kind) if kind.is_answered_here()),
        &["client|getname", "client|id", "client|setname", "host:", "nearside", "post", "quit", "reset"],
    );
    only(Row::is_unordered, &["hgetall", "hkeys", "hvals", "smembers"]);
    only(
        |row| row.is_container() && row.name.starts_with('c'),
        &["client", "cluster", "command", "commandlog", "config"],
    );
}

#[test]
fn a_row_is_told_by_its_name_if_it_neither_has_subcommands_nor_is_one() {
    for row in &Table::builtin().rows {
        let is_sub = row.name.contains('|');
        assert!(!(is_sub && row.is_container()), "{}", row.name);
        assert_eq!(row.is_told_by_name(), !is_sub && !row.is_container(), "{}", row.name);
    }
}

#[test]
fn plain_reads_are_the_cached_ones_of_one_key() {
    let table = Table::builtin();
    for (line, plain, cached) in [
        ("GET k", true, true),
        ("GET", false, true),
        ("GET k x", false, true),
        ("HGET h f", true, true),
        ("LRANGE l 0 -1", true, true),
        ("EXISTS k", false, true),
        ("MGET a", false, true),
        ("TTL k", false, false),
        ("SET k v", false, false),
        ("BLPOP k 0", false, false),
    ] {
        let (sample, row) = (Sample::line(line), row_of(&table, line));
        assert_eq!((row.is_plain_read(&sample.req()), row.is_cached()), (plain, cached), "{line}");
    }
    let narrow = table.narrow(&["get".into()]);
    assert!(!row_of(&narrow, "HGET h f").is_cached());
    let moved = Row { kind: KindRule::Always(Kind::Blocking), ..row_of(&table, "GET k").clone() };
    assert!(!moved.is_plain_read(&Sample::line("GET k").req()));
}

#[test]
fn arguments_are_counted_as_the_server_counts_them() {
    let table = Table::builtin();
    let takes = |name, len| row_of(&table, name).takes(len);
    assert_eq!([1, 2, 3].map(|len| takes("GET", len)), [false, true, false]);
    assert_eq!([2, 3, 9].map(|len| takes("SET", len)), [false, true, true]);
}

/// A single rule says that argument 1 is the only key, and that the key is only read.
#[test]
fn single_rules_are_one_key_reads() {
    for row in Table::builtin().rows.iter().filter(|r| matches!(r.cached, Cached::Single)) {
        assert_eq!(row.access, Access::Read, "{}", row.name);
        assert_eq!(row.kind, KindRule::Always(Kind::Plain), "{}", row.name);
        let sample = Sample::new((0..12).map(|i| if i == 0 { row.name.to_string() } else { i.to_string() }));
        let mut found = Vec::new();
        assert_eq!(row.keys(&sample.req(), |i, usage| found.push((i, usage))), KeySet::Known);
        assert_eq!(found, [(1, KeyUse::Read)], "{}", row.name);
    }
}

/// Every cached read of a hash says whose times bound its reply.
#[test]
fn hash_reads_tell_their_fields() {
    for row in Table::builtin().rows.iter().filter(|row| row.cached != Cached::Never) {
        let expected = match &*row.name {
            "hget" | "hmget" | "hexists" | "hstrlen" => Fields::Named,
            "hgetall" | "hkeys" | "hvals" | "hlen" => Fields::All,
            name => {
                assert!(!name.starts_with('h'), "{name}");
                Fields::None
            }
        };
        assert_eq!(row.fields, expected, "{}", row.name);
    }
}

fn word() -> impl Strategy<Value = Vec<u8>> {
    let known = [
        "streams",
        "BLOCK",
        "group",
        "count",
        "store",
        "STOREDIST",
        "keys",
        "copy",
        "auth2",
        "limit",
        "by",
        "get",
        "set",
        "incrby",
        "0",
        "1",
        "2",
        "-1",
        "00",
        "9223372036854775807",
        "18446744073709551615",
        "",
    ];
    prop_oneof![
        3 => prop::sample::select(known.to_vec()).prop_map(|w| w.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ]
}

proptest! {
    /// Whatever the arguments: no panic, keys lie within them, and only a write may be of unknown keys.
    #[test]
    fn any_arguments_to_any_row(args in prop::collection::vec(word(), 0..14)) {
        let table = Table::builtin();
        for row in &table.rows {
            let name = row.name.split('|').map(|part| part.as_bytes().to_vec());
            let sample = Sample::new(name.chain(args.iter().cloned()));
            let req = sample.req();
            if row.shape != Shape::Container {
                prop_assert_eq!(table.lookup(&req).map(|found| found.id), Some(row.id));
            }
            let (_, _) = (row.kind(&req), row.cache(&req));
            let mut written = false;
            let set = row.keys(&req, |i, usage| {
                assert!((1..req.len()).contains(&i));
                written |= usage != KeyUse::Read;
            });
            prop_assert!(row.access == Access::Write || (set == KeySet::Known && !written));
        }
    }

    /// Random requests, name included, against every way in.
    #[test]
    fn any_request(args in prop::collection::vec(word(), 1..6)) {
        let sample = Sample::new(&args);
        let _ = Table::builtin().lookup(&sample.req());
    }
}
