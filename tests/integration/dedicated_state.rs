//! What keeps a session on a connection of its own: what the server has accepted, and as long as it is there.

use crate::support;

use support::{Conn, Nearside, Redis, eventually, line};

fn start() -> (Redis, Nearside) {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    (redis, nearside)
}

/// Connections that the upstream has.
fn upstream_clients(direct: &mut Conn) -> i64 {
    let info = direct.text("INFO clients");
    let found = info.lines().find_map(|line| line.strip_prefix("connected_clients:")?.trim().parse().ok());
    found.expect("INFO clients")
}

/// The session's reads are served from memory: two of them give a hit.
#[track_caller]
fn reads_are_cached(nearside: &Nearside, conn: &mut Conn, after: &str) {
    let before = nearside.stat("hits");
    eventually(&format!("a hit after {after}"), || {
        conn.cmd("GET users/probe");
        conn.cmd("GET users/probe");
        nearside.stat("hits") > before
    });
}

/// The session is on a connection of its own still: no read of it is a hit.
#[track_caller]
fn reads_go_past(nearside: &Nearside, conn: &mut Conn, after: &str) {
    nearside.connect().cmd("GET users/probe");
    let before = nearside.stat("hits");
    (0..3).for_each(|_| drop(conn.cmd("GET users/probe")));
    assert_eq!(nearside.stat("hits"), before, "after {after}");
}

fn say(conn: &mut Conn, lines: &[&str]) {
    lines.iter().for_each(|text| drop(conn.cmd(text)));
}

/// What the newest clients say when they connect, accepted or refused; none of it may cost the cache, nor a
/// connection upstream.
#[test]
fn what_clients_say_at_connect_keeps_no_session_from_the_cache() {
    let (redis, nearside) = start();
    let mut direct = redis.connect();
    for hello in ["HELLO 2", "HELLO 3", "HELLO 3 SETNAME app"] {
        for said in [
            "CLIENT SETINFO LIB-NAME redis-py",
            "CLIENT MAINT_NOTIFICATIONS ON moving-endpoint-type internal-ip",
            "CLIENT MAINT_NOTIFICATIONS OFF",
            "CLIENT CAPA redirect",
            "CLIENT NO-TOUCH ON",
            "CLIENT NOSUCH",
            "CLIENT TRACKING ON BCAST REDIRECT 999999",
            "CLIENT TRACKING MAYBE",
            "CLIENT NO-EVICT MAYBE",
            "CLIENT CACHING YES",
            "CLIENT SETNAME app",
            "CLIENT GETNAME",
            "CLIENT ID",
            "CLIENT INFO",
            "CLIENT TRACKINGINFO",
            "READONLY",
            "READWRITE",
            "ASKING",
            "COMMAND DOCS get",
            "COMMAND COUNT",
            "CONFIG GET databases",
            "MODULE LIST",
            "FUNCTION LIST",
            "LATENCY LATEST",
            "DEBUG JMAP",
            "NOSUCH x",
            "SCRIPT DEBUG MAYBE",
            "WATCH",
            "SUBSCRIBE",
        ] {
            let mut client = nearside.connect();
            say(&mut client, &[hello, said]);
            reads_are_cached(&nearside, &mut client, said);
            // Inside a transaction as well, whether it is carried out or not.
            say(&mut client, &["MULTI", said, "EXEC"]);
            reads_are_cached(&nearside, &mut client, &format!("{said} in MULTI"));
        }
    }
    // All at once, by many who stay.
    let before = upstream_clients(&mut direct);
    let clients: Vec<_> = (0..60)
        .map(|_| {
            let mut client = nearside.connect_resp3();
            client.send(
                &["CLIENT MAINT_NOTIFICATIONS ON", "CLIENT CAPA redirect", "NOSUCH", "GET users/a"]
                    .map(line)
                    .concat(),
            );
            (0..4).for_each(|_| drop(client.reply()));
            client.cmd("GET users/a");
            client
        })
        .collect();
    let after = upstream_clients(&mut direct);
    assert!(after <= before + 3, "{before} connections before, {after} with {} clients", clients.len());
}

/// Twenty that connect at once, each as the newest clients do, cost the upstream no connection: what the server does not
/// list among its subcommands leaves no state.
#[test]
fn what_the_server_does_not_know_costs_no_connection() {
    let (redis, nearside) = start();
    let mut direct = redis.connect();
    let mut first = nearside.connect_resp3();
    reads_are_cached(&nearside, &mut first, "the start");
    let before = upstream_clients(&mut direct);
    for said in ["CLIENT MAINT_NOTIFICATIONS ON moving-endpoint-type external-ip", "CLIENT SOMETHING NEW"] {
        let mut clients: Vec<Conn> = (0..20).map(|_| nearside.connect()).collect();
        let greeting: Vec<u8> =
            ["HELLO 3", "CLIENT SETINFO LIB-VER 6.3.1", said].iter().flat_map(|text| line(text)).collect();
        clients.iter_mut().for_each(|conn| conn.send(&greeting));
        for conn in &mut clients {
            assert!(conn.reply().starts_with(b"%"));
            conn.reply();
            let refused = String::from_utf8(conn.reply()).unwrap();
            assert_eq!(refused, direct.text(said), "as the server says it");
            reads_are_cached(&nearside, conn, said);
        }
        let more = upstream_clients(&mut direct) - before;
        assert!(more <= 1, "{said}: {more} connections more");
    }
}

/// State that is gone lets its session go: what sets it, and what takes it away.
#[test]
fn a_session_whose_state_is_gone_goes_back() {
    let (redis, nearside) = start();
    let mut direct = redis.connect();
    let before = upstream_clients(&mut direct);
    let cases: &[(&[&str], &[&str])] = &[
        (&["CLIENT TRACKING ON"], &["CLIENT TRACKING OFF"]),
        (&["CLIENT TRACKING ON OPTIN", "CLIENT CACHING YES"], &["PING", "CLIENT TRACKING OFF"]),
        (&["CLIENT TRACKING ON BCAST"], &["CLIENT TRACKING OFF"]),
        (&["CLIENT NO-EVICT ON"], &["CLIENT NO-EVICT OFF"]),
        (&["WATCH users/a"], &["UNWATCH"]),
        (&["WATCH users/a"], &["MULTI", "DISCARD"]),
        (&["WATCH users/a"], &["MULTI", "PING", "EXEC"]),
        (&["MULTI", "PING"], &["EXEC"]),
        (&["MULTI"], &["CLIENT NO-EVICT ON", "CLIENT NO-EVICT OFF", "EXEC"]),
        (&["MULTI", "CLIENT NO-EVICT ON", "EXEC"], &["CLIENT NO-EVICT OFF"]),
        (&["MULTI", "CLIENT TRACKING ON", "EXEC"], &["MULTI", "CLIENT TRACKING OFF", "EXEC"]),
        (&["SUBSCRIBE c"], &["UNSUBSCRIBE c"]),
        (&["PSUBSCRIBE c*"], &["PUNSUBSCRIBE"]),
        (&["MULTI", "SUBSCRIBE c", "EXEC"], &["UNSUBSCRIBE"]),
        (&["SCRIPT DEBUG YES"], &["SCRIPT DEBUG NO"]),
        (&["REPLCONF capa eof"], &["RESET", "HELLO 3"]),
        (&["CLIENT NO-EVICT ON", "CLIENT TRACKING ON"], &["RESET", "HELLO 3"]),
    ];
    for (set, gone) in cases {
        let mut client = nearside.connect_resp3();
        say(&mut client, set);
        if set[0] != "MULTI" {
            reads_go_past(&nearside, &mut client, set[0]);
        }
        say(&mut client, gone);
        reads_are_cached(&nearside, &mut client, &format!("{set:?} {gone:?}"));
    }
    eventually("the connections are given up or kept for the next", || {
        upstream_clients(&mut direct) <= before + 2
    });
}

/// One part of the state that goes leaves the others.
#[test]
fn what_is_left_keeps_the_session() {
    let (_redis, nearside) = start();
    for (lines, last) in [
        (&["CLIENT TRACKING ON", "CLIENT NO-EVICT ON", "CLIENT TRACKING OFF"][..], "CLIENT NO-EVICT OFF"),
        (&["CLIENT NO-EVICT ON", "WATCH users/a", "UNWATCH"], "CLIENT NO-EVICT OFF"),
        (
            &["WATCH users/a", "MULTI", "WATCH users/b", "PING", "CLIENT NO-EVICT ON", "EXEC"],
            "CLIENT NO-EVICT OFF",
        ),
        (&["CLIENT NO-EVICT ON", "CLIENT NO-EVICT MAYBE"], "CLIENT NO-EVICT OFF"),
        (&["WATCH users/a", "EXEC"], "UNWATCH"),
        (&["SUBSCRIBE c", "WATCH users/a", "UNSUBSCRIBE c"], "UNWATCH"),
        (&["SUBSCRIBE a", "PSUBSCRIBE b", "UNSUBSCRIBE"], "PUNSUBSCRIBE b"),
    ] {
        let mut client = nearside.connect_resp3();
        say(&mut client, lines);
        reads_go_past(&nearside, &mut client, &format!("{lines:?}"));
        say(&mut client, &[last]);
        reads_are_cached(&nearside, &mut client, &format!("{lines:?} {last}"));
    }
}

/// Who the session has become on its own connection, it is on the shared one as well.
#[test]
fn who_the_session_became_goes_back_with_it() {
    let (redis, nearside) = start();
    let mut direct = redis.connect();
    direct.cmd("ACL SETUSER bob on >p ~* &* +@all");
    for via in [&["WATCH users/x"][..], &["CLIENT NO-EVICT ON"], &["MULTI"]] {
        for hello in ["HELLO 2", "HELLO 3"] {
            let mut client = nearside.connect();
            say(&mut client, via);
            say(&mut client, &[hello, "SELECT 3", "CLIENT SETNAME me", "AUTH bob p"]);
            match via[0] {
                "WATCH users/x" => say(&mut client, &["UNWATCH"]),
                "MULTI" => say(&mut client, &["EXEC"]),
                _ => say(&mut client, &["CLIENT NO-EVICT OFF"]),
            }
            reads_are_cached(&nearside, &mut client, &format!("{via:?} {hello}"));
            client.cmd("SET users/where db3");
            direct.cmd("SELECT 3");
            assert_eq!(direct.value("users/where").as_deref(), Some("db3"));
            direct.cmd("DEL users/where");
            assert_eq!(client.text("CLIENT GETNAME"), "$2\r\nme\r\n", "{via:?} {hello}");
            assert_eq!(client.text("ACL WHOAMI"), "$3\r\nbob\r\n", "{via:?} {hello}");
            let nil = if hello == "HELLO 3" { "_\r\n" } else { "$-1\r\n" };
            assert_eq!(client.text("GET users/none"), nil, "{via:?} {hello}");
        }
    }
    // What was refused has changed nothing.
    let mut client = nearside.connect();
    say(&mut client, &["WATCH users/x"]);
    assert!(client.text("AUTH bob wrong").starts_with("-WRONGPASS"));
    assert!(client.text("SELECT 1000").starts_with("-ERR"));
    assert!(client.text("HELLO 3 AUTH bob wrong").starts_with("-WRONGPASS"));
    say(&mut client, &["UNWATCH"]);
    reads_are_cached(&nearside, &mut client, "refusals");
    assert_eq!(client.text("ACL WHOAMI"), "$7\r\ndefault\r\n");
    assert_eq!(client.text("GET users/none"), "$-1\r\n");
}

#[test]
fn what_nearside_answers_is_for_whom_the_session_has_become_there() {
    let redis = Redis::start();
    redis.connect().cmd("ACL SETUSER bob on >p ~bob:* +@all");
    let nearside = Nearside::start(redis.address());
    let mut owner = nearside.connect();
    for key in ["secret", "bob:mine"] {
        owner.cmd(&format!("SET {key} v"));
        eventually("it is cached", || {
            owner.cmd(&format!("GET {key}"));
            nearside.is_cached(key)
        });
    }
    for hold in ["WATCH bob:x", "CLIENT NO-EVICT ON"] {
        let mut client = nearside.connect_resp3();
        say(&mut client, &[hold]);
        assert!(client.text("HELLO 2 AUTH bob p").starts_with("*14\r\n"), "{hold}");
        assert_eq!(client.text("CLIENT GETNAME"), "$-1\r\n", "{hold}: it speaks RESP2 now");
        assert!(client.text("NEARSIDE STATS").starts_with('$'), "{hold}");
        assert_eq!(client.text("NEARSIDE KEYS"), "*0\r\n", "{hold}: nothing was read for bob");
        let why = client.text("NEARSIDE WHY secret");
        assert!(why.contains("cached: no"), "{hold}: {why}");
        assert_eq!(client.text("NEARSIDE FLUSH"), "+OK\r\n");
        assert!(nearside.is_cached("secret"), "{hold}: what is not bob's he cannot make nearside forget");
    }
}

#[test]
fn a_monitor_that_goes_at_once_is_let_go() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    for lines in [&["MONITOR", "PING", "QUIT"][..], &["MONITOR", "QUIT"], &["MONITOR x", "PING", "QUIT"]] {
        let mut client = nearside.connect();
        let packet: Vec<u8> = lines.iter().flat_map(|said| line(said)).collect();
        client.send(&packet);
        let mut all = Vec::new();
        while let Ok(reply) = client.try_reply() {
            all.extend(reply);
        }
        let all = String::from_utf8_lossy(&all);
        assert!(client.is_closed(), "{lines:?}: {all}");
        assert!(all.ends_with("+OK\r\n"), "{lines:?}: {all}");
    }
}
