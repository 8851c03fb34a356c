//! A link whose oldest request is stuck (a script that does not end, a write that is paused, a reply that is long in
//! coming) holds up nobody but those whose requests stand on it: others go another way, and come back.

use crate::support;

use std::time::{Duration, Instant};

use nearside::config::Tracking;
use rustix::process::Signal;
use support::relay::Relay;
use support::scripted::Scripted;
use support::sentinel::signal;
use support::{Conn, Nearside, Redis, eventually, line, request};

/// Soon, and far below `upstream-timeout`.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Enough for a link to be seen stuck.
const STUCK: Duration = Duration::from_millis(300);

const FOREVER: &[u8] = b"while true do end";

#[track_caller]
fn soon(client: &mut Conn, command: &str) -> String {
    client.stream.set_read_timeout(Some(AT_ONCE)).unwrap();
    client.text(command)
}

/// A server that says `-BUSY` soon.
fn impatient() -> Redis {
    Redis::with(&["--busy-reply-threshold", "50"])
}

#[test]
fn a_script_that_does_not_end_can_be_killed_and_the_others_are_told_that_the_server_is_busy() {
    for tracking in [Tracking::Off, Tracking::Keys] {
        let redis = impatient();
        let nearside = Nearside::with(redis.address(), |config| config.tracking = tracking);
        let (mut runaway, mut reader, mut killer) =
            (nearside.connect(), nearside.connect(), nearside.connect());
        reader.cmd("SET users/1 v");
        for db in ["0", "3"] {
            for client in [&mut runaway, &mut reader, &mut killer] {
                assert_eq!(client.text(&format!("SELECT {db}")), "+OK\r\n");
            }
            runaway.send(&support::request(&[b"EVAL", FOREVER, b"0"]));
            eventually("the server is busy", || redis.connect().text("PING").starts_with("-BUSY"));
            // On a slow machine answers take long, and so it takes until the link is seen stuck.
            std::thread::sleep(STUCK);
            for command in ["GET elsewhere", "SET users/2 v", "PING", "PUBLISH c m"] {
                let said = soon(&mut reader, command);
                assert!(said.starts_with("-BUSY"), "{tracking:?}, {db}, {command}: {said}");
            }
            assert_eq!(soon(&mut killer, "FUNCTION STATS"), redis.connect().text("FUNCTION STATS"));
            // What comes behind it in the same packet is of the session's own database.
            let said = killer.pipeline(&["SCRIPT KILL", "CLIENT ID", "SET where here"]);
            assert_eq!(said[0], "+OK\r\n", "{tracking:?}, {db}");
            assert!(matches!(&said[2][..4], "+OK\r" | "-BUS"), "{said:?}");
            eventually("it has ended", || killer.text("SET where here") == "+OK\r\n");
            assert!(String::from_utf8(runaway.reply()).unwrap().contains("Script killed"));
            let mut direct = redis.connect();
            direct.cmd(&format!("SELECT {db}"));
            assert_eq!(direct.cmd("DEL where"), b":1\r\n", "{tracking:?}, {db}");
            assert_eq!(soon(&mut reader, "SET users/2 v"), "+OK\r\n");
        }
    }
}

#[test]
fn a_function_that_does_not_end_can_be_killed() {
    let redis = impatient();
    let library = "#!lua name=l\nredis.register_function('run', function() while true do end end)";
    redis.connect().args(&[b"FUNCTION", b"LOAD", library.as_bytes()]);
    let nearside = Nearside::with(redis.address(), |config| config.tracking = Tracking::Off);
    let (mut runaway, mut killer) = (nearside.connect(), nearside.connect_resp3());
    runaway.send(&line("FCALL run 0"));
    eventually("the server is busy", || redis.connect().text("PING").starts_with("-BUSY"));
    assert_eq!(soon(&mut killer, "FUNCTION KILL"), "+OK\r\n");
    assert!(String::from_utf8(runaway.reply()).unwrap().starts_with('-'));
}

#[test]
fn while_writes_are_paused_reads_go_on_and_are_cached() {
    let redis = Redis::start();
    let relay = Relay::to(redis.address());
    let nearside = Nearside::start(relay.address);
    let mut direct = redis.connect();
    direct.cmd("MSET users/1 v users/2 w list/n 1");
    let (mut writer, mut other) = (nearside.connect(), nearside.connect());
    let (mut reader, mut late) = (nearside.connect(), nearside.connect());
    reader.cmd("GET users/1");
    let before = relay.accepted();
    direct.cmd("CLIENT PAUSE 20000 WRITE");
    // The second has its read behind a write of its own, which others would wait for with it.
    writer.send(&line("SET users/9 x"));
    other.send(&[line("INCR users/8"), line("GET users/7")].concat());
    std::thread::sleep(STUCK);
    late.send(&line("SET users/6 x"));
    std::thread::sleep(STUCK);
    for key in ["users/1", "users/2", "users/7", "users/9", "users/6"] {
        soon(&mut reader, &format!("GET {key}"));
    }
    assert_eq!(soon(&mut reader, "GET users/2"), "$1\r\nw\r\n");
    // A writer that has gone the other way comes back to wait with the others.
    let mut second = nearside.connect();
    assert_eq!(soon(&mut second, "GET users/2"), "$1\r\nw\r\n");
    second.send(&[line("GET users/2"), line("SET users/2 z"), line("GET users/2")].concat());
    assert_eq!(second.reply(), b"$1\r\nw\r\n");
    std::thread::sleep(STUCK);
    let mut third = nearside.connect();
    let hits = nearside.stat("hits");
    eventually("reads are hits", || {
        assert_eq!(soon(&mut third, "GET users/1"), "$1\r\nv\r\n");
        soon(&mut third, "HGETALL h");
        nearside.stat("hits") > hits + 10
    });
    assert!(relay.accepted() <= before + 2, "few links for all of them: {}", relay.accepted() - before);
    assert_eq!(direct.cmd("CLIENT UNPAUSE"), b"+OK\r\n");
    assert_eq!(writer.reply(), b"+OK\r\n");
    assert_eq!(other.reply(), b":1\r\n");
    assert_eq!(other.reply(), b"$-1\r\n");
    assert_eq!(late.reply(), b"+OK\r\n");
    assert_eq!(second.reply(), b"+OK\r\n");
    assert_eq!(second.reply(), b"$1\r\nz\r\n");
    for client in [&mut reader, &mut second, &mut third, &mut writer] {
        assert_eq!(client.value("users/2").as_deref(), Some("z"));
        assert_eq!(client.value("users/6").as_deref(), Some("x"));
    }
    assert!(relay.accepted() <= before + 2);
}

#[test]
fn others_do_not_wait_for_a_long_reply_and_nobodys_order_is_lost() {
    let upstream = Scripted::start();
    // No heartbeat asks on the link in between: its answer would have a place among the others.
    let nearside = Nearside::with(upstream.address, |config| {
        config.max_staleness = Duration::from_secs(600);
        config.namespaces.iter_mut().for_each(|namespace| namespace.max_staleness = Duration::from_secs(600));
    });
    let (mut slow, mut other) = (nearside.connect(), nearside.connect());
    slow.send(&line("DUMP k"));
    let asked = upstream.expect("DUMP k");
    upstream.push(asked.connection, &format!("$1000000\r\n{}", "x".repeat(100_000)));
    std::thread::sleep(STUCK);
    other.send(&line("ECHO b"));
    let echo = upstream.expect("ECHO b");
    assert_ne!(echo.connection, asked.connection, "another way");
    // The one that waits stays where its request is.
    slow.send(&line("ECHO a"));
    assert_eq!(upstream.expect("ECHO a").connection, asked.connection);
    // And so does one that has something open on the spare link.
    other.send(&line("ECHO c"));
    let third = upstream.expect("ECHO c");
    assert_eq!(third.connection, echo.connection);
    echo.reply("$1\r\nb\r\n");
    third.reply("$1\r\nc\r\n");
    assert_eq!((other.reply(), other.reply()), (b"$1\r\nb\r\n".to_vec(), b"$1\r\nc\r\n".to_vec()));
    assert_eq!(nearside.stat("spare_links"), 1);
    // When the first is free again it is used again.
    upstream.push(asked.connection, &("x".repeat(900_000) + "\r\n$1\r\na\r\n"));
    assert_eq!(slow.reply().len(), 1_000_000 + 12);
    assert_eq!(slow.reply(), b"$1\r\na\r\n");
    other.send(&line("ECHO d"));
    assert_eq!(upstream.expect("ECHO d").connection, asked.connection);
}

#[test]
fn who_waits_for_anothers_read_behind_a_stuck_request_reads_for_itself() {
    let upstream = Scripted::start();
    let nearside = Nearside::with(upstream.address, |config| config.workers = 2);
    let mut stuck = nearside.connect();
    stuck.send(&[line("DUMP k"), line("GET users/1")].concat());
    let dump = upstream.expect("DUMP k");
    let get = upstream.expect("GET users/1");
    upstream.expect("PTTL users/1");
    // Of both workers, and before and after it is known to be stuck.
    let mut early: Vec<_> = (0..4).map(|_| nearside.connect()).collect();
    early.iter_mut().for_each(|client| client.send(&line("GET users/1")));
    let answer = |client: &mut Conn| {
        client.stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let mut said = None;
        eventually("it is answered", || {
            while upstream.waiting() > 0 {
                let again = upstream.next();
                assert_ne!(again.connection, get.connection);
                again.reply(if again.words[0] == "GET" { "$3\r\nnew\r\n" } else { ":-1\r\n" });
            }
            said = client.try_reply().ok();
            said.is_some()
        });
        assert_eq!(said.unwrap(), b"$3\r\nnew\r\n");
    };
    early.iter_mut().for_each(answer);
    // The old reply is its reader's, and nobody else's.
    dump.reply("$1\r\nd\r\n");
    get.reply("$3\r\nold\r\n");
    assert_eq!(stuck.reply(), b"$1\r\nd\r\n");
    drop(stuck);
    let mut late = nearside.connect();
    late.send(&line("GET users/1"));
    late.stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    eventually("it is answered", || {
        while upstream.waiting() > 0 {
            let again = upstream.next();
            again.reply(if again.words[0] == "GET" { "$3\r\nnew\r\n" } else { ":-1\r\n" });
        }
        late.try_reply().is_ok_and(|said| said == b"$3\r\nnew\r\n")
    });
}

/// Clients send much more than is held for a server that takes nothing, so each is held back, and some in the middle of a
/// request. When the server goes on, so do they.
#[test]
fn who_was_held_back_amid_a_request_is_read_on() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let request = request(&[b"SET", b"k", &vec![b'x'; 500_000]]);
    for _ in 0..2 {
        let clients: Vec<_> = (0..8).map(|_| nearside.connect()).collect();
        signal(redis.pid(), Signal::STOP);
        let send = |mut client: Conn| {
            let request = request.clone();
            std::thread::spawn(move || (0..60).for_each(|_| client.send(&request)))
        };
        let threads: Vec<_> = clients.into_iter().map(send).collect();
        std::thread::sleep(STUCK);
        signal(redis.pid(), Signal::CONT);
        let deadline = Instant::now() + Duration::from_secs(60);
        while threads.iter().any(|thread| !thread.is_finished()) {
            assert!(Instant::now() < deadline, "a client is not read on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
