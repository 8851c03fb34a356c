//! Connections that are closed because of their age, or because nobody has said anything: where nothing was in flight, no
//! client sees an error, and nothing is executed twice.

use crate::support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use rustix::process::Signal;
use support::program::Program;
use support::relay::Relay;
use support::{Conn, Nearside, Redis, eventually, line};

/// One of each way in which a request goes; each counts once in `n`, and none may fail.
fn ask(conn: &mut Conn, turn: u64) {
    let number = |said: &str| said.starts_with(':');
    match turn % 5 {
        0 => {
            let said = conn.text("INCR n");
            assert!(number(&said), "{said}");
        }
        1 => {
            let said = conn.pipeline(&["MULTI", "INCR n", "EXEC"]);
            assert!(said[2].starts_with("*1\r\n:"), "{said:?}");
        }
        2 => {
            let said = conn.pipeline(&["GET k", "INCR n", "GET k", "SET users/1 x"]);
            assert!(number(&said[1]) && said[2] == "$1\r\nv\r\n" && said[3] == "+OK\r\n", "{said:?}");
        }
        3 => {
            let said = conn.pipeline(&["WATCH w", "INCR n", "UNWATCH"]);
            assert!(number(&said[1]), "{said:?}");
        }
        _ => {
            // More than is gathered in one piece.
            let large = "x".repeat(100_000);
            let said = conn.pipeline(&[&format!("SET large {large}"), "INCR n"]);
            assert!(said[0] == "+OK\r\n" && number(&said[1]), "{said:?}");
        }
    }
}

#[track_caller]
fn hits(nearside: &Nearside) {
    let (mut conn, before) = (nearside.connect(), nearside.stat("hits"));
    eventually("hits", || {
        assert_eq!(conn.value("k").as_deref(), Some("v"));
        nearside.stat("hits") > before
    });
}

/// Runs so many at the same time, each with its number.
fn at_once(count: u64, each: impl Fn(u64) + Sync) {
    let each = &each;
    std::thread::scope(|scope| (0..count).for_each(|i| drop(scope.spawn(move || each(i)))));
}

#[test]
fn a_request_that_comes_just_after_a_cut_goes_on_the_next_connection() {
    // Each waits most of the time.
    at_once(4, |first| {
        let redis = Redis::start();
        let relay = Relay::to(redis.address());
        let nearside = Nearside::start(relay.address);
        let mut direct = redis.connect();
        direct.cmd("SET k v");
        let mut conn = nearside.connect();
        for turn in (first..60).step_by(4) {
            ask(&mut conn, turn);
            // Long enough for it to be quiet, and for what is kept for the next session to have been given back.
            std::thread::sleep(Duration::from_millis(160 + turn % 20));
            // When this comes back, the end of each connection has come to nearside's side.
            relay.cut();
            ask(&mut conn, turn);
        }
        assert_eq!(direct.value("n").as_deref(), Some("30"), "each was executed once");
        hits(&nearside);
    });
}

/// Whether all threads are.
fn stopped(tasks: &str) -> bool {
    let state =
        |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.unwrap().path().join("stat"));
    std::fs::read_dir(tasks).unwrap().map(state).all(|stat| stat.is_ok_and(|stat| stat.contains(") T ")))
}

#[test]
fn a_request_of_which_nothing_was_sent_when_the_end_is_seen_goes_on_the_next_connection() {
    let redis = Redis::start();
    let relay = Relay::to(redis.address());
    let mut program = Program::start(relay.address.port(), &[]);
    let mut direct = redis.connect();
    direct.cmd("SET k v");
    let mut conn = program.connect();
    let large = format!("SET large {}", "x".repeat(100_000));
    let requests: [(&[&str], &str); 5] = [
        (&["INCR n"], ":"),
        (&["GET k", "INCR n", "SET users/1 x"], "$1"),
        (&["MULTI", "INCR n", "EXEC"], "+OK"),
        (&["WATCH w", "INCR n", "UNWATCH"], "+OK"),
        (&[&large, "INCR n"], "+OK"),
    ];
    for turn in 0..4 {
        for (lines, begins) in requests {
            // So that there is a connection for a session alone, and all are idle.
            ask(&mut conn, 1);
            ask(&mut conn, 0);
            std::thread::sleep(Duration::from_millis(160));
            // While it cannot look, both come: the request before the end, or behind it.
            program.signal(Signal::STOP);
            let stat = format!("/proc/{}/task", program.child.id());
            eventually("it stands still", || stopped(&stat));
            let packet: Vec<u8> = lines.iter().flat_map(|words| line(words)).collect();
            if turn % 2 == 0 {
                conn.send(&packet[..packet.len().min(50_000)]);
            }
            relay.cut();
            conn.send(&packet[if turn % 2 == 0 { packet.len().min(50_000) } else { 0 }..]);
            program.signal(Signal::CONT);
            let said: Vec<_> = lines.iter().map(|_| String::from_utf8(conn.reply()).unwrap()).collect();
            assert!(said[0].starts_with(begins), "{lines:?}: {said:?}");
            assert!(!said.iter().any(|said| said.starts_with('-')), "{lines:?}: {said:?}");
        }
    }
    assert_eq!(direct.value("n").as_deref(), Some("60"), "each was executed once");
    program.terminate();
    assert!(program.ended().success());
}

#[test]
fn clients_see_nothing_of_connections_that_are_closed_again_and_again_while_they_are_idle() {
    let redis = Redis::start();
    let relay = Relay::to(redis.address());
    let nearside = Nearside::with(relay.address, |config| config.workers = 2);
    redis.connect().cmd("SET k v");
    // Whoever has something in flight holds it.
    let busy = Arc::new(RwLock::new(()));
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (mut conn, busy) = (nearside.connect(), busy.clone());
            let (stop, asked) = (stop.clone(), asked.clone());
            std::thread::spawn(move || {
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    {
                        let _busy = busy.read().unwrap();
                        ask(&mut conn, turn);
                        asked.fetch_add(1, Ordering::Relaxed);
                        for _ in 0..5 {
                            assert_eq!(conn.value("k").as_deref(), Some("v"));
                        }
                    }
                    std::thread::sleep(Duration::from_millis(1 + turn % 7));
                }
            })
        })
        .collect();
    // More often in a row than connections are made anew at once that do not serve.
    for turn in 0..36 {
        // A connection that has stood for less does not serve.
        std::thread::sleep(Duration::from_millis(165 + 15 * (turn % 4)));
        assert!(!clients.iter().any(|client| client.is_finished()), "a client has seen an error");
        let _nobody = busy.write().unwrap();
        relay.cut();
    }
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("no error"));
    let asked = asked.load(Ordering::Relaxed).to_string();
    assert_eq!(redis.connect().value("n"), Some(asked), "each was executed once");
    assert!(nearside.stat("hits") > 100, "{}", nearside.stats());
    hits(&nearside);
}

#[test]
fn connections_that_the_server_kills_while_they_are_idle_are_made_anew() {
    let redis = Redis::start();
    let mut direct = redis.connect();
    direct.cmd("SET k v");
    let nearside = Nearside::start(redis.address());
    let mut conn = nearside.connect();
    for turn in 0..20 {
        ask(&mut conn, turn);
        hits(&nearside);
        let before = ids(&mut direct);
        assert!(before.len() >= 2, "{before:?}");
        direct.cmd("CLIENT KILL TYPE normal SKIPME yes");
        direct.cmd("CLIENT KILL TYPE pubsub");
        eventually("they are closed", || !ids(&mut direct).iter().any(|id| before.contains(id)));
        ask(&mut conn, turn);
    }
    assert_eq!(direct.value("n").as_deref(), Some("40"));
    assert_eq!(nearside.stat("upstream_lost") + nearside.stat("upstream_refused"), 0);
}

/// The numbers of the server's connections, but for this one.
fn ids(direct: &mut Conn) -> Vec<String> {
    let list = direct.text("CLIENT LIST");
    let others = list.lines().filter(|line| line.contains(" name=nearside "));
    others
        .filter_map(|line| line.split(' ').find(|word| word.starts_with("id=")))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_server_that_closes_idle_connections_costs_a_client_that_comes_now_and_then_nothing() {
    let redis = Redis::with(&["--timeout", "1", "--hz", "100"]);
    redis.connect().cmd("SET k v");
    // Without reads no connection is asked whether it lives, so all are idle.
    at_once(3, |first| {
        let nearside = Nearside::start(redis.address());
        let mut conn = nearside.connect();
        let disconnects = || {
            let page = nearside.get("/metrics").1;
            let line =
                page.lines().find_map(|line| line.strip_prefix("nearside_upstream_disconnects_total "));
            line.and_then(|line| line.parse::<u64>().ok()).expect("a metric")
        };
        for turn in (first..9).step_by(3) {
            let before = disconnects();
            ask(&mut conn, 1);
            ask(&mut conn, turn);
            assert_eq!(conn.value("k").as_deref(), Some("v"));
            eventually("it closes what is idle", || disconnects() > before);
        }
        hits(&nearside);
    });
    assert_eq!(redis.connect().value("n").as_deref(), Some("18"), "each was executed once");
}
