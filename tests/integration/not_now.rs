//! An upstream that says "not now" (`-BUSY`, `-LOADING`, `-MASTERDOWN`): whatever it answered so is asked again until
//! it is answered, and nothing is taken for proven meanwhile.

use crate::support;

use std::time::{Duration, Instant};

use nearside::config::{Config, Tracking};
use support::relay::Relay;
use support::scripted::Scripted;
use support::{Conn, Nearside, Redis, eventually};

const BUSY: &str =
    "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n";
const LOADING: &str = "-LOADING Redis is loading the dataset in memory\r\n";
const BOUND: Duration = Duration::from_millis(500);

fn bounded(config: &mut Config) {
    config.max_staleness = BOUND;
    config.namespaces.iter_mut().for_each(|namespace| namespace.max_staleness = BOUND);
}

/// Runs a script at the server that does not end by itself, and gives the connection that waits for its end.
fn busy(redis: &Redis) -> Conn {
    let mut conn = redis.connect();
    conn.send(&support::request(&[b"EVAL", b"while true do end", b"0"]));
    let mut other = redis.connect();
    eventually("the server is busy", || other.text("PING").starts_with("-BUSY"));
    conn
}

/// Ends it.
fn end(redis: &Redis, mut script: Conn) {
    assert_eq!(redis.connect().text("SCRIPT KILL"), "+OK\r\n");
    assert!(script.reply().starts_with(b"-"), "it was killed");
}

fn busy_server() -> Redis {
    Redis::with(&["--busy-reply-threshold", "10"])
}

/// Questions that were put off so far.
fn put_off(nearside: &Nearside) -> u64 {
    let page = nearside.get("/metrics").1;
    let line = page.lines().find_map(|line| line.strip_prefix("nearside_put_off_questions_total "));
    line.expect("the counter").parse().unwrap()
}

#[track_caller]
fn until_it_hits(nearside: &Nearside, client: &mut Conn, key: &str) {
    let before = nearside.stat("hits");
    eventually("hits", || {
        client.cmd(&format!("GET {key}"));
        nearside.stat("hits") > before
    });
}

/// All connections are made anew while a script runs.
fn connections_that_are_made_under_a_script_serve_hits_afterwards(tracking: Tracking) {
    let redis = busy_server();
    let relay = Relay::to(redis.address());
    let nearside = Nearside::with(relay.address, |config| {
        bounded(config);
        config.tracking = tracking;
    });
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    direct.cmd("SET users/1 v");
    let (lapses, before) = (nearside.stat("feed_lapses"), put_off(&nearside));
    let script = busy(&redis);
    relay.cut();
    eventually("the loss is noticed", || nearside.stat("feed_lapses") > lapses);
    eventually("the feed meets the script", || put_off(&nearside) > before);
    end(&redis, script);

    until_it_hits(&nearside, &mut client, "users/1");
    assert_eq!(nearside.stat("tracked_links"), i64::from(tracking == Tracking::Keys));
    for (key, other) in [("users/1", "w"), ("users/1", "x")] {
        direct.cmd(&format!("SET {key} {other}"));
        direct.cmd("PUBLISH users/update 1");
        eventually("changes are heard", || client.value(key).as_deref() == Some(other));
    }
    swaps_are_seen(&nearside, &mut direct, &mut client);
}

/// A swap of databases is seen within the bound.
#[track_caller]
fn swaps_are_seen(nearside: &Nearside, direct: &mut Conn, client: &mut Conn) {
    direct.cmd("SET users/1 before");
    direct.cmd("PUBLISH users/update 1");
    eventually("the value before", || client.value("users/1").as_deref() == Some("before"));
    until_it_hits(nearside, client, "users/1");
    assert_eq!(direct.text("SWAPDB 0 1"), "+OK\r\n");
    let swapped = Instant::now();
    while client.value("users/1").is_some() {
        // Twice the bound, for a machine that is slow itself.
        assert!(swapped.elapsed() < 2 * BOUND, "the swap was not seen within {:?}", swapped.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn connections_that_are_made_under_a_script_serve_hits_afterwards_by_key() {
    connections_that_are_made_under_a_script_serve_hits_afterwards(Tracking::Keys);
}

#[test]
fn connections_that_are_made_under_a_script_serve_hits_afterwards_by_prefix() {
    connections_that_are_made_under_a_script_serve_hits_afterwards(Tracking::Prefix);
}

#[test]
fn connections_that_are_made_under_a_script_serve_hits_afterwards_by_channels() {
    connections_that_are_made_under_a_script_serve_hits_afterwards(Tracking::Off);
}

/// The connections stand, and only the heartbeats meet the script.
#[test]
fn a_short_script_takes_no_sight_of_swapped_databases() {
    let redis = busy_server();
    let nearside = Nearside::with(redis.address(), bounded);
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    direct.cmd("SET users/1 v");
    until_it_hits(&nearside, &mut client, "users/1");
    let before = put_off(&nearside);
    let script = busy(&redis);
    eventually("the heartbeats meet the script", || {
        client.cmd("GET users/1");
        put_off(&nearside) > before + 2
    });
    end(&redis, script);
    until_it_hits(&nearside, &mut client, "users/1");
    swaps_are_seen(&nearside, &mut direct, &mut client);
}

/// A script that swaps while the feed cannot look: what the next answered look shows counts from the last one.
#[test]
fn a_swap_that_falls_among_unanswered_looks_is_seen() {
    let redis = busy_server();
    let nearside = Nearside::with(redis.address(), bounded);
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    direct.cmd("SET users/1 v");
    until_it_hits(&nearside, &mut client, "users/1");
    let script = "local function now() local t = redis.call('time') return t[1] * 1000 + t[2] / 1000 end \
                  redis.call('swapdb', 0, 1) local e = now() + 600 while now() < e do end";
    direct.send(&support::request(&[b"EVAL", script.as_bytes(), b"0"]));
    // Not looked at, but reads come in, so heartbeats go on.
    for _ in 0..200 {
        client.cmd("GET users/1");
        std::thread::sleep(Duration::from_millis(4));
    }
    direct.reply();
    let over = Instant::now();
    while client.value("users/1").is_some() {
        assert!(over.elapsed() < 2 * BOUND, "still the old database");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Each of the feed's and the links' questions meets "not now" alone, three times.
fn each_question_is_asked_again(reply: &str) {
    const QUESTIONS: [&str; 7] = [
        "CLIENT ID",
        "INFO server",
        "INFO commandstats",
        "COMMAND",
        "SUBSCRIBE",
        "PING",
        "CLIENT TRACKING ON REDIRECT",
    ];
    for question in QUESTIONS {
        let upstream = Scripted::start();
        upstream.answers(question, reply, 3);
        let nearside = Nearside::unready(upstream.address, bounded);
        eventually(&format!("{question} is asked until it is answered"), || upstream.left() == 0);
        eventually(&format!("{question}: the link is tracked"), || nearside.stat("tracked_links") == 1);
        assert!(nearside.stats().contains("nearside_feed:up"), "{question}");
        assert!(nearside.stats().contains("nearside_tracking:keys"), "{question}");
        let mut client = nearside.connect();
        client.send(&support::line("GET k"));
        upstream.expect("GET k").reply("$1\r\nv\r\n");
        upstream.expect("PTTL k").reply(":-1\r\n");
        client.reply();
        assert_eq!(client.value("k").as_deref(), Some("v"), "{question}");
        assert_eq!(nearside.stat("hits"), 1, "{question}");
    }
}

#[test]
fn each_question_that_meets_a_busy_server_is_asked_again() {
    each_question_is_asked_again(BUSY);
}

#[test]
fn each_question_that_meets_a_loading_server_is_asked_again() {
    each_question_is_asked_again(LOADING);
}

#[test]
fn what_tracks_by_prefix_is_asked_again() {
    let upstream = Scripted::start();
    upstream.answers("CLIENT TRACKING ON BCAST", BUSY, 3);
    let nearside = Nearside::unready(upstream.address, |config| config.tracking = Tracking::Prefix);
    eventually("it is asked until it is answered", || upstream.left() == 0);
    eventually("keys are tracked", || nearside.stats().contains("nearside_tracking:prefix"));
}

/// Until the upstream is itself again nothing is trusted, and it is not asked in a hurry.
#[test]
fn a_ping_that_meets_a_busy_server_arms_nothing() {
    let upstream = Scripted::start();
    upstream.answers("PING", BUSY, usize::MAX);
    let nearside = Nearside::unready(upstream.address, bounded);
    eventually("it is asked", || upstream.count("PING") >= 3);
    let (before, since) = (upstream.count("PING"), Instant::now());
    std::thread::sleep(Duration::from_millis(500));
    assert!(nearside.stats().contains("nearside_feed:down"));
    let rate = (upstream.count("PING") - before) as f64 / since.elapsed().as_secs_f64();
    assert!(rate < 40.0, "{rate:.0} questions in a second");
}
