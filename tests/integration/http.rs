//! HTTP on the port: closed without a word, told once, and nobody else notices. And whatever may end a connection
//! upstream never goes over one that clients share.

use crate::support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use nearside::config::{Auth, Secret};
use support::program::Program;
use support::{Conn, Nearside, Redis, line, request};

/// All that comes until the connection is closed.
fn last_words(conn: &mut Conn) -> String {
    let mut said = Vec::new();
    conn.stream.read_to_end(&mut said).expect("the connection is closed in good order");
    String::from_utf8_lossy(&said).into_owned()
}

fn requests() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\nFLUSHALL\r\n\r\n",
        "post / HTTP/1.0\r\n\r\n",
        "Host: x\r\n",
        "hOsT: localhost:6380\r\n",
        "POST\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    all.extend([line("POST / HTTP/1.1"), line("host: x"), line("PoSt"), line("HOST:")]);
    all.push(request(&[b"POST\0x", b"/"]));
    all
}

#[test]
fn it_is_closed_as_redis_does_and_nothing_goes_upstream() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let strict = Nearside::unready(redis.address(), |config| {
        (config.auth, config.password) = (Auth::Password, Some(Secret::new("sesame")));
    });
    let mut other = nearside.connect();
    other.cmd("SET users/1 v");
    other.cmd("GET users/1");
    let (hits, links) = (nearside.stat("hits"), nearside.stat("upstream_connects"));
    let mut monitor = redis.monitor();
    let mut sent = 0;
    for asked in requests() {
        let shown = asked.escape_ascii().to_string();
        let mut ways = vec![(nearside.connect(), &[][..]), (nearside.connect_resp3(), &[])];
        ways.push((nearside.connect(), &["PING"][..]));
        for (mut conn, before) in ways {
            let theirs = last_words_after(&mut redis.connect(), before, &asked);
            assert_eq!(last_words_after(&mut conn, before, &asked), theirs, "{shown}");
            sent += 1;
        }
        assert_eq!(last_words_after(&mut strict.connect(), &[], &asked), "", "{shown} before the password");
    }
    let seen: Vec<_> = monitor.seen().into_iter().map(|line| line.to_ascii_lowercase()).collect();
    assert!(!seen.iter().any(|line| line.contains("host:") || line.contains("post")), "{seen:?}");
    assert_eq!(other.value("users/1").as_deref(), Some("v"));
    assert_eq!(nearside.stat("hits"), hits + 1, "nothing that was cached is lost");
    assert_eq!(nearside.stat("upstream_connects"), links, "no connection was made for it");
    let (_, page) = nearside.get("/metrics");
    assert!(page.contains(&format!("nearside_closed_clients_total{{reason=\"http\"}} {sent}\n")), "{page}");
}

/// Sends the requests and behind them `asked`, in one packet.
fn last_words_after(conn: &mut Conn, before: &[&str], asked: &[u8]) -> String {
    let mut packet: Vec<u8> = before.iter().flat_map(|words| line(words)).collect();
    packet.extend_from_slice(asked);
    conn.send(&packet);
    last_words(conn)
}

#[test]
fn it_is_closed_in_every_state_of_a_session() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    for (state, replies) in [
        (&["MULTI", "SET users/1 v"][..], 2),
        (&["WATCH k"], 1),
        (&["SUBSCRIBE c"], 1),
        (&["CLIENT REPLY OFF"], 0),
        (&["MONITOR"], 1),
        (&["SELECT 3"], 1),
    ] {
        let mut conn = nearside.connect();
        for words in state {
            conn.send(&line(words));
        }
        (0..replies).for_each(|_| drop(conn.reply()));
        conn.send(b"POST / HTTP/1.1\r\nPING\r\n");
        assert!(!last_words(&mut conn).contains("PONG"), "{state:?}");
    }
    assert_eq!(redis.connect().text("EXISTS users/1"), ":0\r\n", "no transaction was carried out");
}

/// It gets no error either, as from Redis.
#[test]
fn a_browser_that_says_get_is_closed_at_its_host() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let asked = b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: y\r\n\r\n";
    let theirs = last_words_after(&mut redis.connect(), &[], asked);
    assert_eq!(theirs, "");
    assert_eq!(last_words_after(&mut nearside.connect(), &[], asked), theirs);
}

#[test]
fn a_health_check_that_comes_all_the_time_is_told_once() {
    let redis = Redis::start();
    let mut program = Program::start(redis.port, &[]);
    for _ in 0..50 {
        let mut conn = program.connect();
        conn.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(last_words(&mut conn), "");
    }
    program.terminate();
    program.ended();
    assert_eq!(program.seen.matches("HTTP").count(), 1, "{}", program.seen);
}

/// The connections to the server that nearside made.
fn ours(direct: &mut Conn) -> BTreeSet<String> {
    let list = direct.text("CLIENT LIST");
    let named = list.lines().filter(|line| line.contains(" name=nearside "));
    let ids = named.filter_map(|line| line.split_once("id=")?.1.split(' ').next().map(str::to_owned));
    ids.collect()
}

#[test]
fn nothing_that_may_end_a_connection_goes_over_a_shared_one() {
    let redis = Redis::with(&["--repl-diskless-sync-delay", "0"]);
    // Some commands keep the server busy for long, which is another reason to leave a connection.
    let nearside = Nearside::with(redis.address(), |config| {
        config.max_staleness = Duration::from_secs(60);
        config.namespaces.clear();
    });
    let (mut direct, mut third) = (redis.connect(), nearside.connect_resp3());
    third.cmd("GET users/1");
    let shared = ours(&mut direct);
    assert!(shared.len() >= 3, "the feed, and a link for each protocol: {shared:?}");

    let mut names: Vec<String> = direct.text("COMMAND LIST").lines().map(str::to_owned).collect();
    names.retain(|name| !name.starts_with(['*', '$']) && !name.is_empty());
    assert!(names.len() > 200, "{names:?}");
    names.extend(["POST", "Host:", "NOSUCH", "", "QUIT\0", "\r\n", "client|kill"].map(str::to_owned));
    let mut tried = 0;
    for name in &names {
        let words: Vec<&[u8]> = name.split('|').map(str::as_bytes).collect();
        for more in 0..5 {
            if name == "shutdown" && more == 0 {
                continue;
            }
            let args = [&words[..], &vec![&b"x"[..]; more]].concat();
            for (mut conn, multi) in
                [(nearside.connect(), false), (nearside.connect_resp3(), false), (nearside.connect(), true)]
            {
                if multi {
                    assert_eq!(conn.text("MULTI"), "+OK\r\n");
                }
                conn.send(&request(&args));
                // A reply has begun, or the connection is closed; but for what a replica says.
                let patience = Duration::from_millis(if name.contains("sync") { 300 } else { 5_000 });
                let mut first = [0];
                conn.stream.set_read_timeout(Some(patience)).unwrap();
                let began = Instant::now();
                let _ = conn.stream.read(&mut first);
                assert!(began.elapsed() < Duration::from_secs(5), "{name} with {more} is not answered");
                tried += 1;
            }
        }
        assert!(ours(&mut direct).is_superset(&shared), "{name} has ended a connection that others use");
    }
    assert!(tried > 3000);
    assert_eq!(nearside.connect().text("PING"), "+PONG\r\n");
}

/// A server with a tight `proto-max-bulk-len` closes the connection with an error.
#[test]
fn an_argument_that_the_upstream_may_not_take_ends_only_its_own_connection() {
    let redis = Redis::with(&["--proto-max-bulk-len", "1mb"]);
    let nearside = Nearside::start(redis.address());
    let mut direct = redis.connect();
    let shared = ours(&mut direct);
    let large = vec![b'x'; (1 << 20) + 1];
    for words in [
        "SET users/1 #",
        "GET #",
        "MGET a #",
        "GET k #",
        "EXEC #",
        "SELECT #",
        "CLIENT SETINFO LIB-NAME #",
        "AUTH a b #",
        "NOSUCH #",
    ] {
        let args: Vec<&[u8]> =
            words.split(' ').map(|word| if word == "#" { &large[..] } else { word.as_bytes() }).collect();
        let mut conn = nearside.connect();
        // The upstream may close before it has read everything, and so may nearside.
        let _ = conn.stream.write_all(&request(&args));
        let said = conn.try_reply().unwrap_or_default();
        assert!(!said.starts_with(b"+OK"), "{words}: {}", said.escape_ascii());
        assert!(ours(&mut direct).is_superset(&shared), "{words} has ended a connection that others use");
    }
    // What is just allowed stays allowed.
    let mut conn = nearside.connect();
    assert_eq!(conn.args(&[b"SET", b"users/1", &large[1..]]), b"+OK\r\n");
    assert_eq!(conn.args(&[b"GET", b"users/1"]).len(), (1 << 20) + 12);
}
