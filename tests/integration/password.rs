//! `auth = "password"`: nearside asks for a password in Redis' own words, and nobody gets past it without.
//!
//! A server with `requirepass` says what it should say; nearside's upstream has no password.

use crate::support;

use std::process::Command;

use nearside::config::{Auth, Config, Invocation};
use support::{Conn, Nearside, Redis, eventually, line};

fn asking(redis: &Redis) -> Nearside {
    let set = |config: &mut Config| {
        let asks = ["nearside", "--auth", "password"];
        let variable = |name: &str| (name == "NEARSIDE_PASSWORD").then(|| "sesame".into());
        let asked = Invocation::parse(asks, variable).expect("valid").config;
        assert_eq!(asked.auth, Auth::Password);
        (config.auth, config.password) = (asked.auth, asked.password);
    };
    let nearside = Nearside::unready(redis.address(), set);
    let mut client = logged_in(&nearside);
    eventually("nearside is ready", || client.text("NEARSIDE STATS").contains("nearside_tracked_links:1"));
    nearside
}

fn logged_in(nearside: &Nearside) -> Conn {
    let mut client = nearside.connect();
    assert_eq!(client.text("AUTH sesame"), "+OK\r\n");
    client
}

/// What is said to all of `lines` on one connection; the closed one says nothing.
fn said(conn: &mut Conn, lines: &[&str]) -> Vec<String> {
    let said = lines.iter().map_while(|line| conn.try_reply_to(line).ok());
    // The connection's id, and who answers.
    said.map(|bytes| String::from_utf8_lossy(&bytes).split("$2\r\nid\r\n").next().unwrap_or_default().into())
        .collect()
}

const DIALOGUES: &[&[&str]] = &[
    &[
        "GET k",
        "SET k v",
        "MULTI",
        "SUBSCRIBE c",
        "MONITOR",
        "EVAL x 0",
        "CLIENT ID",
        "INFO",
        "PING",
        "SELECT 1",
    ],
    &[
        "NOSUCH a b",
        "NOSUCH",
        "GET",
        "GET a b",
        "CLIENT nosuch",
        "CLIENT",
        "CLIENT SETNAME",
        "CLIENT REPLY OFF",
        "PING",
    ],
    &[
        "AUTH",
        "AUTH a b c",
        "AUTH wrong",
        "AUTH default wrong",
        "AUTH x sesame",
        "AUTH DEFAULT sesame",
        "GET k",
    ],
    &["AUTH sesame", "GET k", "AUTH wrong", "GET k", "RESET", "GET k", "AUTH default sesame", "GET k"],
    &[
        "HELLO",
        "HELLO 3",
        "HELLO 4",
        "HELLO x",
        "HELLO 3 AUTH default wrong",
        "HELLO 3 AUTH default",
        "GET k",
    ],
    &["HELLO 3 SETNAME", "HELLO 3 NOSUCH", "HELLO 3 SETNAME me", "GET k"],
    &["HELLO 3 AUTH default sesame SETNAME me", "GET k", "CLIENT GETNAME", "HELLO 2", "GET k", "ACL WHOAMI"],
    &["HELLO 2 AUTH x sesame", "HELLO 2 AUTH default sesame", "GET k"],
    &["POST x", "GET k"],
    &["host: x"],
    &["RESET", "RESET x", "QUIT x", "GET k"],
    &["QUIT"],
    &[
        "AUTH sesame",
        "WATCH k",
        "AUTH wrong",
        "AUTH sesame",
        "HELLO 3 AUTH default wrong",
        "GET k",
        "UNWATCH",
    ],
    &["AUTH sesame", "WATCH k", "HELLO 3 AUTH default sesame", "GET k", "ACL WHOAMI", "RESET", "GET k"],
    &["AUTH sesame", "SUBSCRIBE c", "AUTH sesame", "HELLO 3 AUTH default sesame", "UNSUBSCRIBE c", "GET k"],
    &["AUTH sesame", "MULTI", "HELLO 3", "GET k", "DISCARD", "GET k"],
];

#[test]
fn it_asks_as_redis_does() {
    let (redis, strict) = (Redis::start(), Redis::with(&["--requirepass", "sesame"]));
    let about = redis.connect().text("INFO server");
    if !about.contains("redis_version:7.") || about.contains("valkey") {
        eprintln!("its words are those of Redis 7; Valkey 9 asks for the password before all else");
        return;
    }
    let nearside = asking(&redis);
    for dialogue in DIALOGUES {
        let (mut through, mut straight) = (nearside.connect(), strict.connect());
        assert_eq!(said(&mut through, dialogue), said(&mut straight, dialogue), "{dialogue:?}");
        // And all in one packet.
        let (mut through, mut straight) = (nearside.connect(), strict.connect());
        let packet: Vec<u8> = dialogue.iter().flat_map(|words| line(words)).collect();
        for conn in [&mut through, &mut straight] {
            conn.send(&packet);
        }
        for words in *dialogue {
            let [a, b] = [&mut through, &mut straight].map(|conn| conn.try_reply().ok());
            let text = |bytes: Option<Vec<u8>>| {
                let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
                text.split("$2\r\nid\r\n").next().unwrap_or_default().to_owned()
            };
            assert_eq!(text(a), text(b), "{words} in {dialogue:?}");
        }
    }
}

#[test]
fn who_has_not_logged_in_may_not_send_much() {
    let (redis, strict) = (Redis::start(), Redis::with(&["--requirepass", "sesame"]));
    let nearside = asking(&redis);
    let long = format!("*2\r\n$4\r\nAUTH\r\n$16384\r\n{}\r\n", "x".repeat(16384));
    for bytes in [
        "*11\r\n",
        "*1048577\r\n",
        "*10\r\n$3\r\nGET\r\n$16385\r\n",
        "*1\r\n$536870913\r\n",
        &long,
        "*10\r\n$4\r\nAUTH\r\n",
    ] {
        let [a, b] = [nearside.connect(), strict.connect()].map(|mut conn| {
            conn.send(bytes.as_bytes());
            // One that takes it so far waits for more; what comes then ends it.
            conn.send(&line("x"));
            String::from_utf8_lossy(&conn.reply()).into_owned()
        });
        assert_eq!(a, b, "{}", &bytes[..20.min(bytes.len())]);
    }
    // As soon as it is read how much is to come.
    for cut in 1..5 {
        let mut client = nearside.connect();
        let (a, b) = b"*11\r\n".split_at(cut);
        client.send(a);
        assert_eq!(nearside.connect().text("PING"), "-NOAUTH Authentication required.\r\n");
        client.send(b);
        assert_eq!(client.reply(), b"-ERR Protocol error: unauthenticated multibulk length\r\n");
        assert!(client.is_closed());
    }
    let mut client = logged_in(&nearside);
    let value = "x".repeat(20_000);
    assert_eq!(client.args(&[b"SET", b"k", value.as_bytes()]), b"+OK\r\n");
    assert_eq!(client.cmd(&format!("DEL k{}", " k".repeat(20))), b":1\r\n");
    // The limits hold again after RESET.
    client.cmd("RESET");
    client.send(b"*11\r\n");
    assert_eq!(client.reply(), b"-ERR Protocol error: unauthenticated multibulk length\r\n");
}

#[test]
fn nothing_of_a_locked_client_and_no_login_goes_upstream() {
    let redis = Redis::start();
    redis.connect().cmd("ACL SETUSER other on >other ~* +@all");
    let nearside = asking(&redis);
    let mut seen = redis.monitor();
    let mut client = nearside.connect();
    for line in
        ["SET k v", "NOSUCH x", "GET k", "MULTI", "AUTH other other", "HELLO 3 AUTH other other", "HELLO 3"]
    {
        assert!(client.text(line).starts_with('-'), "{line}");
    }
    assert_eq!(seen.seen(), Vec::<String>::new());
    // Logged in, on a connection of its own.
    assert_eq!(client.text("AUTH sesame"), "+OK\r\n");
    client.cmd("WATCH k");
    for line in [
        "AUTH other other",
        "AUTH wrong",
        "AUTH sesame",
        "HELLO 2 AUTH other other",
        "HELLO 2 AUTH default sesame",
    ] {
        client.cmd(line);
    }
    client.cmd("MULTI");
    assert!(client.text("AUTH other other").starts_with("-ERR nearside: "));
    assert!(client.text("HELLO 3 AUTH default sesame").starts_with("-ERR nearside: "));
    assert_eq!(client.text("ACL WHOAMI"), "+QUEUED\r\n");
    assert!(client.text("EXEC").ends_with("$7\r\ndefault\r\n"));
    for replies in ["SKIP", "OFF"] {
        client.send(&line(&format!("CLIENT REPLY {replies}")));
        for words in ["AUTH other other", "AUTH sesame", "HELLO 2 AUTH other other"] {
            client.send(&line(words));
            if replies == "SKIP" {
                client.send(&line("CLIENT REPLY SKIP"));
            }
        }
        if replies == "SKIP" {
            client.send(&line("PING"));
            assert_eq!(client.text("PING"), "+PONG\r\n");
        } else {
            assert_eq!(client.text("CLIENT REPLY ON"), "+OK\r\n");
        }
    }
    assert_eq!(client.text("ACL WHOAMI"), "$7\r\ndefault\r\n");
    let seen = seen.seen().join("\n").to_lowercase();
    assert!(!seen.contains("auth") && !seen.contains("sesame") && !seen.contains("other"), "{seen}");
}

#[test]
fn cached_replies_are_for_who_has_logged_in() {
    let redis = Redis::start();
    redis.connect().cmd("SET users/1 v");
    let nearside = asking(&redis);
    let (mut first, mut second) = (logged_in(&nearside), nearside.connect());
    eventually("it is cached", || {
        first.cmd("GET users/1");
        first.text("NEARSIDE WHY users/1").contains("cached: yes")
    });
    assert_eq!(second.text("GET users/1"), "-NOAUTH Authentication required.\r\n");
    assert_eq!(second.text("MGET users/1"), "-NOAUTH Authentication required.\r\n");
    assert_eq!(second.text("NEARSIDE KEYS"), "-NOAUTH Authentication required.\r\n");
    second.cmd("AUTH sesame");
    let calls = redis.calls("get");
    assert_eq!(second.value("users/1").as_deref(), Some("v"));
    assert_eq!(redis.calls("get"), calls, "all have one identity");
    second.cmd("RESET");
    assert_eq!(second.text("GET users/1"), "-NOAUTH Authentication required.\r\n");
}

#[test]
fn the_password_is_never_shown() {
    let redis = Redis::start();
    let nearside = asking(&redis);
    let said = logged_in(&nearside).text("NEARSIDE CONFIG");
    assert!(said.contains("auth") && !said.contains("sesame"), "{said}");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "sesame\n").expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let run = |arguments: &[&str], variable: &str| {
        let mut nearside = Command::new(env!("CARGO_BIN_EXE_nearside"));
        let output = nearside.args(arguments).env("NEARSIDE_PASSWORD", variable).output().expect("it runs");
        let told = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(told).expect("UTF-8"))
    };
    let (code, told) = run(&["check", "--auth", "password", "--password-file", path], "");
    assert!(code == Some(0) && told.contains("auth = \"password\"") && !told.contains("sesame"), "{told}");
    let (code, told) = run(&["check", "--auth", "password"], "sesame");
    assert!(code == Some(0) && !told.contains("sesame"), "{told}");
    for (arguments, variable) in [
        (&["check", "--auth", "password"][..], ""),
        (&["check"][..], "sesame"),
        (&["check", "--password", "sesame"][..], ""),
    ] {
        assert_eq!(run(arguments, variable).0, Some(2), "{arguments:?}");
    }
}
