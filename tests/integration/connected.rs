//! `NEARSIDE CLIENTS`: who is connected, and what the cache had for each.

use crate::support;

use support::{Conn, Nearside, Redis, eventually};

/// The lines of the list, in RESP2 or RESP3.
fn lines(conn: &mut Conn) -> Vec<String> {
    let said = conn.text("NEARSIDE CLIENTS");
    let (header, body) = said.split_once("\r\n").unwrap();
    assert!(header.starts_with(['$', '=']), "{said}");
    let body = if header.starts_with('=') { body.strip_prefix("txt:").unwrap() } else { body };
    body.lines().filter(|line| !line.is_empty()).map(ToString::to_string).collect()
}

fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let found = line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {name} in {line}"))
}

#[track_caller]
fn line_of(conn: &mut Conn, name: &str) -> String {
    let lines = lines(conn);
    let found: Vec<_> = lines.iter().filter(|line| field(line, "name") == name).collect();
    assert_eq!(found.len(), 1, "{name} in {lines:#?}");
    found[0].clone()
}

#[test]
fn each_client_is_told_with_what_the_cache_had_for_it() {
    let redis = Redis::start();
    let nearside = Nearside::with(redis.address(), |config| config.workers = 2);
    let (mut ada, mut bob, mut three) = (nearside.connect(), nearside.connect(), nearside.connect_resp3());
    for setting in ["SETNAME ada", "SETINFO LIB-NAME redis-py", "SETINFO LIB-VER 5.0.1"] {
        // Redis before 7.2 knows no SETINFO, and then nothing is known of the library.
        ada.cmd(&format!("CLIENT {setting}"));
    }
    assert_eq!(bob.text("CLIENT SETNAME bob"), "+OK\r\n");
    assert_eq!(bob.text("SELECT 3"), "+OK\r\n");
    three.cmd("CLIENT SETNAME three");
    ada.cmd("SET users/1 v");
    // For those of this protocol.
    let mut warming = nearside.connect();
    eventually("it is cached", || {
        warming.cmd("GET users/1");
        nearside.stat("hits") > 0
    });
    let number = |line: &str, name| field(line, name).parse::<u64>().unwrap();
    let before = line_of(&mut three, "ada");
    for _ in 0..10 {
        assert_eq!(ada.value("users/1").as_deref(), Some("v"));
    }
    assert_eq!(ada.pipeline(&["GET users/1"; 30]).len(), 30);
    ada.cmd("MGET users/1 users/1");
    // Neither is there: each is fetched once, in one MGET.
    ada.cmd("GET users/none");
    ada.cmd("MGET users/1 users/nobody");
    let line = line_of(&mut three, "ada");
    let grown = |name| number(&line, name) - number(&before, name);
    assert_eq!((grown("hits"), grown("misses")), (41, 2), "{line}");
    assert_eq!(field(&line, "id"), ada.text("CLIENT ID").trim_matches([':', '\r', '\n']));
    assert_eq!(field(&line, "addr"), ada.stream.local_addr().unwrap().to_string());
    assert_eq!((field(&line, "user"), field(&line, "db")), ("default", "0"));
    let library = [field(&line, "lib-name"), field(&line, "lib-ver")];
    assert!(library == ["redis-py", "5.0.1"] || library == ["", ""], "{line}");
    assert!(number(&line, "age") < 600 && number(&line, "idle") <= number(&line, "age"), "{line}");

    let line = line_of(&mut ada, "bob");
    assert_eq!((field(&line, "db"), field(&line, "hits"), field(&line, "misses")), ("3", "0", "0"), "{line}");
    drop(bob);
    eventually("who leaves is not told of", || lines(&mut ada).len() == 3);
    for wrong in ["NEARSIDE CLIENTS x", "NEARSIDE CLIENTS ID 3"] {
        assert!(ada.text(wrong).starts_with("-ERR unknown subcommand"), "{wrong}");
    }
}

/// It may not be allowed to know of more: `CLIENT LIST` can be forbidden to it.
#[test]
fn another_user_is_told_of_its_own_sessions_alone() {
    let mut redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    redis.connect().cmd("ACL SETUSER bob on >b ~* &* +@all -client|list");
    let (mut own, mut bob, mut other) = (nearside.connect(), nearside.connect(), nearside.connect());
    own.cmd("CLIENT SETNAME own");
    for (conn, name) in [(&mut bob, "bob"), (&mut other, "other")] {
        assert_eq!(conn.text("AUTH bob b"), "+OK\r\n");
        assert_eq!(conn.text(&format!("CLIENT SETNAME {name}")), "+OK\r\n");
    }
    let names = |conn: &mut Conn| -> Vec<String> {
        lines(conn).iter().map(|line| field(line, "name").to_owned()).collect()
    };
    assert_eq!(names(&mut bob), ["bob", "other"]);
    assert_eq!(names(&mut own), ["own", "bob", "other"]);
    assert_eq!(field(&line_of(&mut own, "bob"), "user"), "bob");
    // Nobody is asked for it.
    redis.kill();
    assert_eq!(names(&mut own), ["own", "bob", "other"]);
}
