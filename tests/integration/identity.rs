//! P7: what was read for one user, database or protocol is never given to another; and logging in is what the
//! upstream makes of it.

use crate::support;

use nearside::config::Upstream;
use support::{Conn, Nearside, Redis, eventually, line};

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Reads until it is a hit: what is served now comes from memory.
#[track_caller]
fn cache(nearside: &Nearside, client: &mut Conn, key: &str) {
    let before = nearside.stat("hits");
    eventually("a hit", || {
        client.cmd(&format!("GET {key}"));
        nearside.stat("hits") > before
    });
}

/// Users: alice may do everything, bob may not read `users/*`, carol may read nothing but may write.
fn with_users(redis: &Redis) {
    let mut direct = redis.connect();
    for rule in [
        "ACL SETUSER alice on >a ~* &* +@all",
        "ACL SETUSER bob on >b ~items/* &* +@all",
        "ACL SETUSER carol on >c ~* +set +hello +client +select +auth",
    ] {
        assert_eq!(direct.cmd(rule), b"+OK\r\n");
    }
    direct.cmd("SET users/a secret");
    direct.cmd("SET items/a shared");
}

#[test]
fn nobody_is_given_what_another_may_read() {
    let redis = Redis::start();
    with_users(&redis);
    let nearside = Nearside::start(redis.address());
    let (mut alice, mut bob, mut plain) = (nearside.connect(), nearside.connect(), nearside.connect());
    assert_eq!(alice.text("AUTH alice a"), "+OK\r\n");
    assert_eq!(bob.text("AUTH bob b"), "+OK\r\n");
    for client in [&mut alice, &mut plain] {
        cache(&nearside, client, "users/a");
        assert_eq!(client.value("users/a").as_deref(), Some("secret"));
    }
    let straight = {
        let mut straight = redis.connect();
        straight.cmd("AUTH bob b");
        ["GET users/a", "MGET users/a items/a", "STRLEN users/a", "EXISTS users/a"]
            .map(|line| straight.text(line))
    };
    assert!(straight.iter().all(|said| said.starts_with("-NOPERM")), "{straight:?}");
    for _ in 0..3 {
        let said = ["GET users/a", "MGET users/a items/a", "STRLEN users/a", "EXISTS users/a"]
            .map(|line| bob.text(line));
        assert_eq!(said, straight);
    }
    cache(&nearside, &mut bob, "items/a");
    assert_eq!(bob.value("items/a").as_deref(), Some("shared"));
    // In RESP3 too, and by HELLO.
    assert!(bob.text("HELLO 3").starts_with('%'));
    assert_eq!(bob.text("GET users/a"), straight[0]);
    let mut other = nearside.connect();
    assert!(other.text("HELLO 3 AUTH bob b SETNAME me").starts_with('%'));
    assert_eq!(other.text("GET users/a"), straight[0]);
    assert_eq!(other.text("CLIENT GETNAME"), "$2\r\nme\r\n");
    assert_eq!(other.text("ACL WHOAMI"), "$3\r\nbob\r\n");
}

#[test]
fn a_user_that_may_not_read_or_publish_keeps_everybody_coherent() {
    let redis = Redis::start();
    with_users(&redis);
    let nearside = Nearside::start(redis.address());
    let (mut carol, mut plain, mut python) = (nearside.connect(), nearside.connect(), redis.connect());
    python.cmd("SUBSCRIBE users/update");
    assert_eq!(carol.text("AUTH carol c"), "+OK\r\n");
    for i in 0..10 {
        cache(&nearside, &mut plain, "users/a");
        assert_eq!(carol.text(&format!("SET users/a {i}")), "+OK\r\n");
        assert_eq!(plain.value("users/a"), Some(i.to_string()));
        assert!(text(python.reply()).ends_with("$1\r\na\r\n"));
        assert!(carol.text("GET users/a").starts_with("-NOPERM"));
    }
}

#[test]
fn a_failed_login_is_worded_by_the_upstream_and_changes_nothing() {
    let redis = Redis::start();
    with_users(&redis);
    let nearside = Nearside::start(redis.address());
    let (mut client, mut straight) = (nearside.connect(), redis.connect());
    for (logged_in, who) in [("PING", "default"), ("AUTH alice a", "alice")] {
        assert_eq!(client.text(logged_in), straight.text(logged_in));
        for wrong in [
            "AUTH alice wrong",
            "AUTH nobody x",
            "AUTH wrong",
            "AUTH",
            "AUTH a b c",
            "HELLO 3 AUTH alice wrong",
            "HELLO 3 AUTH alice wrong SETNAME x",
            "HELLO 3 AUTH alice",
            "HELLO 3 SETNAME",
            "HELLO 4 AUTH alice a",
            "HELLO x",
            "HELLO 3 NOSUCH",
        ] {
            assert_eq!(client.text(wrong), straight.text(wrong), "{wrong}");
            assert_eq!(client.text("ACL WHOAMI"), format!("${}\r\n{who}\r\n", who.len()), "{wrong}");
            // Still RESP2, still without a name.
            assert_eq!(client.text("GET nothing"), "$-1\r\n", "{wrong}");
            assert_eq!(client.text("CLIENT GETNAME"), "$-1\r\n", "{wrong}");
        }
    }
}

#[test]
fn databases_and_protocols_are_kept_apart() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut direct = redis.connect();
    for db in 0..4 {
        direct.cmd(&format!("SELECT {db}"));
        direct.cmd(&format!("SET users/a db{db}"));
        direct.cmd("HSET users/h f v");
    }
    let mut clients: Vec<_> = (0..8)
        .map(|n| {
            let mut client = if n % 2 == 0 { nearside.connect() } else { nearside.connect_resp3() };
            assert_eq!(client.cmd(&format!("SELECT {}", n / 2)), b"+OK\r\n");
            client
        })
        .collect();
    for _ in 0..5 {
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.value("users/a"), Some(format!("db{}", n / 2)));
            let (nil, empty) = if n % 2 == 0 { ("$-1\r\n", "*0\r\n") } else { ("_\r\n", "~0\r\n") };
            assert_eq!(client.text("GET users/none"), nil);
            assert_eq!(client.text("MGET users/none users/a"), format!("*2\r\n{nil}$3\r\ndb{}\r\n", n / 2));
            assert_eq!(client.text("SMEMBERS users/none"), empty);
        }
    }
    assert!(nearside.stat("hits") > 8 * 3, "they are served from memory");
    // A write in one database is seen there, and the others keep theirs.
    clients[2].cmd("SET users/a new");
    for (n, client) in clients.iter_mut().enumerate() {
        let expected = if n / 2 == 1 { "new".to_string() } else { format!("db{}", n / 2) };
        assert_eq!(client.value("users/a"), Some(expected));
    }
    // One session through all of them, pipelined.
    let mut client = nearside.connect();
    let lines: Vec<_> = (0..4).flat_map(|db| [line(&format!("SELECT {db}")), line("GET users/a")]).collect();
    client.send(&[lines.concat(), line("SELECT 99"), line("GET users/a")].concat());
    for expected in ["$3\r\ndb0\r\n", "$3\r\nnew\r\n", "$3\r\ndb2\r\n", "$3\r\ndb3\r\n"] {
        assert_eq!(client.reply(), b"+OK\r\n");
        assert_eq!(text(client.reply()), expected);
    }
    assert_eq!(text(client.reply()), "-ERR DB index is out of range\r\n");
    assert_eq!(text(client.reply()), "$3\r\ndb3\r\n", "still there");
}

#[test]
fn a_password_upstream_with_a_login_of_nearsides_own() {
    let redis = Redis::with(&["--requirepass", "sesame"]);
    let upstream = format!("redis://:sesame@{}", redis.address());
    let nearside =
        Nearside::with(redis.address(), |config| config.upstream = Upstream::parse(&upstream).unwrap());
    let mut client = nearside.connect();
    assert_eq!(client.text("SET users/a 1"), "+OK\r\n", "nearside vouches for its clients");
    cache(&nearside, &mut client, "users/a");
    // Logging in with the same login is the same identity: its cached replies are shared.
    let mut same = nearside.connect();
    for login in ["AUTH sesame", "AUTH default sesame", "HELLO 2 AUTH default sesame"] {
        assert!(!same.text(login).starts_with('-'), "{login}");
        let hits = nearside.stat("hits");
        assert_eq!(same.value("users/a").as_deref(), Some("1"));
        assert_eq!(nearside.stat("hits"), hits + 1, "{login}");
    }
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    assert_eq!(same.text("AUTH wrong"), wrong);
    assert_eq!(same.value("users/a").as_deref(), Some("1"), "as before");
}

#[test]
fn a_password_upstream_that_nearside_does_not_know() {
    let redis = Redis::with(&["--requirepass", "sesame"]);
    let nearside = Nearside::unready(redis.address(), |_| ());
    let (mut client, mut straight) = (nearside.connect(), redis.connect());
    let refused = straight.text("GET users/a");
    assert_eq!(refused, "-NOAUTH Authentication required.\r\n");
    for command in ["GET users/a", "SET users/a 1", "PING", "MULTI", "SUBSCRIBE c"] {
        assert_eq!(client.text(command), refused, "{command}");
    }
    let said = |conn: &mut Conn| conn.text("HELLO 3");
    assert_eq!(said(&mut client), said(&mut straight));
    assert_eq!(client.text("AUTH wrong"), straight.text("AUTH wrong"));
    assert_eq!(client.text("AUTH sesame"), "+OK\r\n");
    assert_eq!(client.text("SET users/a 1"), "+OK\r\n");
    assert_eq!(client.value("users/a").as_deref(), Some("1"));
    let mut other = nearside.connect();
    for _ in 0..3 {
        assert_eq!(other.text("GET users/a"), refused, "another session is not logged in");
    }
}

/// A login holds for one session, and ends with RESET.
#[test]
fn a_login_is_one_sessions_own() {
    let redis = Redis::start();
    with_users(&redis);
    let nearside = Nearside::start(redis.address());
    let (mut client, mut other) = (nearside.connect(), nearside.connect());
    assert_eq!(client.text("AUTH bob b"), "+OK\r\n");
    assert_eq!(client.text("ACL WHOAMI"), "$3\r\nbob\r\n");
    assert_eq!(other.text("ACL WHOAMI"), "$7\r\ndefault\r\n");
    // On a connection of its own as well.
    client.send(&["MULTI", "GET users/a", "GET items/a", "EXEC"].map(line).concat());
    assert_eq!(client.reply(), b"+OK\r\n");
    assert!(text(client.reply()).starts_with("-NOPERM"));
    assert_eq!(client.reply(), b"+QUEUED\r\n");
    assert!(text(client.reply()).starts_with("-EXECABORT"));
    assert_eq!(client.text("RESET"), "+RESET\r\n");
    assert_eq!(client.text("ACL WHOAMI"), "$7\r\ndefault\r\n");
    assert_eq!(client.value("users/a").as_deref(), Some("secret"));
    // A login in the middle of a state of its own stays with that connection.
    client.cmd("WATCH users/a");
    assert_eq!(client.text("AUTH bob b"), "+OK\r\n");
    assert!(client.text("GET users/a").starts_with("-NOPERM"));
    client.cmd("UNWATCH");
    assert!(client.text("GET users/a").starts_with("-NOPERM"));
    assert_eq!(client.text("ACL WHOAMI"), "$3\r\nbob\r\n");
    drop(client);
    for _ in 0..3 {
        let mut next = nearside.connect();
        next.send(&["MULTI", "ACL WHOAMI", "EXEC"].map(line).concat());
        let said: String = (0..3).map(|_| text(next.reply())).collect();
        assert!(said.ends_with("default\r\n"), "{said}");
    }
}

/// A password that was changed does not let the old one in, whoever was logged in with it.
#[test]
fn each_login_is_checked_anew() {
    let redis = Redis::start();
    with_users(&redis);
    let nearside = Nearside::start(redis.address());
    let (mut first, mut second) = (nearside.connect(), nearside.connect());
    assert_eq!(first.text("AUTH alice a"), "+OK\r\n");
    cache(&nearside, &mut first, "users/a");
    redis.connect().cmd("ACL SETUSER alice resetpass >new");
    assert!(second.text("AUTH alice a").starts_with("-WRONGPASS"));
    assert_eq!(second.text("AUTH alice new"), "+OK\r\n");
    assert_eq!(second.value("users/a").as_deref(), Some("secret"));
    redis.connect().cmd("ACL DELUSER alice");
    let mut third = nearside.connect();
    assert!(third.text("AUTH alice new").starts_with("-WRONGPASS"));
}
