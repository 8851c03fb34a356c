//! The gap rule: without a proven feed nothing is served from the cache, and what was filled before is void.
//! Clients notice nothing of it.

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nearside::config::Tracking;
use support::relay::Relay;
use support::{Conn, Nearside, Redis, eventually};

/// A key of a namespace: it is cached with and without tracking.
const KEY: &str = "users/1";

/// The bound in the tests of half-open connections.
const BOUND: Duration = Duration::from_millis(200);

/// How long it may take until the cache is used again; it is measured and printed.
const REARM: Duration = Duration::from_secs(2);

fn bounded(config: &mut nearside::config::Config) {
    config.max_staleness = BOUND;
    config.namespaces.iter_mut().for_each(|namespace| namespace.max_staleness = BOUND);
}

/// Reads until a read is a hit, and says how long that took.
#[track_caller]
fn until_it_hits(nearside: &Nearside, client: &mut Conn, since: Instant) -> Duration {
    let before = nearside.stat("hits");
    eventually("hits again", || {
        client.cmd(&format!("GET {KEY}"));
        nearside.stat("hits") > before
    });
    let took = since.elapsed();
    println!("serves from the cache again after {took:?}");
    assert!(took < REARM, "{took:?}");
    took
}

/// A client that reads all the time, and what it saw: when each read began, and the value or the error.
struct Reader {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(Instant, String)>>,
}

impl Reader {
    fn start(nearside: &Nearside) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut client, stopped) = (nearside.connect(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                seen.push((began, client.text(&format!("GET {KEY}"))));
                std::thread::sleep(Duration::from_micros(500));
            }
            seen
        });
        Self { stop, thread }
    }

    fn stop(self) -> Vec<(Instant, String)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("every read has a reply")
    }
}

fn bulk(value: &str) -> String {
    format!("${}\r\n{value}\r\n", value.len())
}

#[test]
fn what_was_filled_before_a_loss_is_void() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    direct.cmd(&format!("SET {KEY} v"));
    client.value(KEY);
    client.value(KEY);
    assert_eq!(nearside.stat("hits"), 1);

    let list = direct.text("CLIENT LIST TYPE pubsub");
    let id = list.split(' ').find_map(|word| word.split_once("id=")).expect("the feed").1;
    let killed = Instant::now();
    assert_eq!(direct.text(&format!("CLIENT KILL ID {id}")), ":1\r\n");
    eventually("the loss is noticed", || nearside.stat("feed_lapses") == 1);
    // Nothing has changed upstream, and still the entry is not trusted.
    assert_eq!(client.value(KEY).as_deref(), Some("v"));
    assert_eq!(nearside.stat("hits"), 1);
    until_it_hits(&nearside, &mut client, killed);
    assert_eq!(nearside.stat("feed_lapses"), 1);
}

/// The feed cannot come back for a while, and the key is written meanwhile by somebody else.
fn gap(tracking: Tracking) {
    let redis = Redis::start();
    let relay = Relay::to(redis.address());
    let nearside = Nearside::with(relay.address, |config| config.tracking = tracking);
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    direct.cmd(&format!("SET {KEY} old"));
    client.value(KEY);
    client.value(KEY);
    assert_eq!(nearside.stat("hits"), 1);
    let reader = Reader::start(&nearside);

    relay.refuse_feed(true);
    relay.cut_feed();
    eventually("the loss is noticed", || nearside.stat("feed_lapses") == 1);
    let hits = nearside.stat("hits");
    direct.cmd(&format!("SET {KEY} new"));
    direct.cmd("PUBLISH users/update 1");
    let written = Instant::now();
    for i in 0..200 {
        assert_eq!(client.value(KEY).as_deref(), Some("new"));
        assert_eq!(client.text(&format!("SET other {i}")), "+OK\r\n");
        assert_eq!(client.value("other"), Some(i.to_string()), "its own write");
    }
    assert_eq!(nearside.stat("hits"), hits, "nothing is served from the cache");
    assert!(nearside.stats().contains("nearside_feed:down"));

    relay.refuse_feed(false);
    until_it_hits(&nearside, &mut client, Instant::now());
    assert_eq!(client.value(KEY).as_deref(), Some("new"));
    let seen = reader.stop();
    for (began, value) in seen {
        let right = value == bulk("new") || began < written && value == bulk("old");
        assert!(right, "{value}");
    }
    direct.cmd(&format!("SET {KEY} newer"));
    direct.cmd("PUBLISH users/update 1");
    eventually("changes are heard again", || client.value(KEY).as_deref() == Some("newer"));
}

#[test]
fn a_foreign_write_in_the_gap_is_seen_with_tracking() {
    gap(Tracking::Keys);
}

#[test]
fn a_foreign_write_in_the_gap_is_seen_without_tracking() {
    gap(Tracking::Off);
}

#[test]
fn an_upstream_that_closes_the_feed_at_once_is_not_pestered() {
    let redis = Redis::start();
    let relay = Relay::to(redis.address());
    let nearside = Nearside::start(relay.address);
    relay.refuse_feed(true);
    relay.cut_feed();
    eventually("it tries again", || relay.feeds() >= 3);
    let (before, since) = (relay.feeds(), Instant::now());
    std::thread::sleep(Duration::from_millis(300));
    let tries = (relay.feeds() - before) as f64 / since.elapsed().as_secs_f64();
    assert!(tries < 100.0, "{tries:.0} tries in a second");
    relay.refuse_feed(false);
    nearside.wait_ready();
}

#[test]
fn a_half_open_feed_is_not_trusted() {
    let redis = Redis::start();
    let relay = Relay::to(redis.address());
    let nearside = Nearside::with(relay.address, bounded);
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    direct.cmd(&format!("SET {KEY} old"));
    until_it_hits(&nearside, &mut client, Instant::now());
    let reader = Reader::start(&nearside);

    relay.swallow_on_feed(true);
    direct.cmd(&format!("SET {KEY} new"));
    let written = Instant::now();
    eventually("the feed is given up", || nearside.stat("feed_lapses") >= 1);
    println!("noticed after {:?}", written.elapsed());
    assert!(written.elapsed() < 5 * BOUND, "{:?}", written.elapsed());
    let hits = nearside.stat("hits");
    for _ in 0..50 {
        assert_eq!(client.value(KEY).as_deref(), Some("new"));
    }
    assert_eq!(nearside.stat("hits"), hits, "nothing is served from the cache");
    assert!(nearside.stats().contains("nearside_feed:down"));

    relay.swallow_on_feed(false);
    until_it_hits(&nearside, &mut client, Instant::now());
    for (began, value) in reader.stop() {
        let may_be_old = began < written + BOUND;
        assert!(value == bulk("new") || may_be_old && value == bulk("old"), "{value}");
    }
}

#[test]
fn a_half_open_link_is_not_trusted() {
    let redis = Redis::start();
    let relay = Relay::to(redis.address());
    let nearside = Nearside::with(relay.address, |config| {
        bounded(config);
        config.upstream_timeout = Some(Duration::from_millis(300));
        config.connect_timeout = Duration::from_millis(300);
    });
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    direct.cmd(&format!("SET {KEY} v"));
    until_it_hits(&nearside, &mut client, Instant::now());

    relay.swallow_on_others(true);
    let broken = Instant::now();
    // The feed still lives, and the last answers on the link prove the entry for as long as the bound.
    let waiting = loop {
        let (hits, misses) = (nearside.stat("hits"), nearside.stat("misses"));
        let began = Instant::now();
        client.send(&support::line(&format!("GET {KEY}")));
        eventually("it hits or goes upstream", || {
            nearside.stat("hits") > hits || nearside.stat("misses") > misses
        });
        if nearside.stat("hits") == hits {
            break began;
        }
        assert!(began < broken + BOUND, "a hit without proof");
        assert_eq!(String::from_utf8(client.reply()).unwrap(), bulk("v"));
    };
    let said = String::from_utf8(client.reply()).unwrap();
    // The link may have been given up by then, and the next one come to nothing.
    let lost = said.contains("no reply within 300ms") && said.contains("may have been executed");
    let refused = said.contains("no answer within 300ms") && said.contains("was not sent");
    assert!(lost || refused, "{said}");
    assert!(waiting.elapsed() < Duration::from_secs(3), "{:?}", waiting.elapsed());

    relay.swallow_on_others(false);
    until_it_hits(&nearside, &mut client, Instant::now());
    assert_eq!(client.value(KEY).as_deref(), Some("v"));
}

#[test]
fn a_lost_link_voids_what_was_read_on_it_and_nobody_notices() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    direct.cmd("SET elsewhere v");
    client.value("elsewhere");
    client.value("elsewhere");
    assert_eq!(nearside.stat("hits"), 1);
    let list = direct.text("CLIENT LIST TYPE normal");
    let line = list.lines().find(|line| line.contains("name=nearside")).expect("the link");
    let id = line.split(' ').find_map(|word| word.split_once("id=")).unwrap().1;
    assert_eq!(direct.text(&format!("CLIENT KILL ID {id}")), ":1\r\n");
    let lost = "\nnearside_upstream_disconnects_total 1\n";
    eventually("the loss is noticed", || nearside.get("/metrics").1.contains(lost));
    direct.cmd("SET elsewhere w");
    assert_eq!(client.value("elsewhere").as_deref(), Some("w"));
    assert_eq!(nearside.stat("hits"), 1);
    assert_eq!(nearside.stat("feed_lapses"), 0);
    eventually("tracking is back", || {
        client.value("elsewhere");
        nearside.stat("hits") > 1
    });
}

#[test]
fn an_upstream_that_comes_back_empty_is_believed() {
    let mut redis = Redis::start();
    let nearside = Nearside::with(redis.address(), bounded);
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    direct.cmd(&format!("SET {KEY} v"));
    until_it_hits(&nearside, &mut client, Instant::now());
    let reader = Reader::start(&nearside);

    redis.kill();
    let killed = Instant::now();
    eventually("the loss is noticed", || nearside.stat("feed_lapses") >= 1);
    let said = client.text(&format!("GET {KEY}"));
    assert!(said.starts_with("-ERR nearside: upstream "), "{said}");
    redis.restart();
    let answers = Instant::now();
    eventually("it is reached again", || !client.text(&format!("GET {KEY}")).starts_with('-'));
    until_it_hits(&nearside, &mut client, answers);
    assert_eq!(client.value(KEY), None);

    let mut gone = false;
    for (began, value) in reader.stop() {
        let is_old = value == bulk("v");
        assert!(!(gone && is_old), "the old value came back");
        assert!(!is_old || began < killed + BOUND, "the old value was served without proof");
        gone |= !is_old;
    }
    assert!(gone);
}

/// An announcement that was never sent has no echo: nobody may be deaf for its sake.
#[test]
fn a_write_that_could_not_be_sent_leaves_nobody_deaf() {
    let redis = Redis::start();
    let relay = Relay::to(redis.address());
    let nearside = Nearside::start(relay.address);
    let (mut client, mut direct) = (nearside.connect(), redis.connect());
    client.cmd("SET users/1 v");
    // The feed stays.
    relay.refuse(true);
    for connection in direct
        .text("CLIENT LIST")
        .lines()
        .filter(|line| line.contains("name=nearside") && line.contains(" sub=0 "))
    {
        let id = connection.split("id=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        direct.cmd(&format!("CLIENT KILL ID {id}"));
    }
    let refused = nearside.stat("upstream_refused");
    eventually("writes are refused", || {
        client.cmd("SET users/1 w");
        nearside.stat("upstream_refused") > refused + 3
    });
    relay.refuse(false);
    eventually("the link is back", || !client.cmd("ECHO x").starts_with(b"-"));
    direct.cmd("SET users/1 before");
    eventually("it is cached again", || {
        client.cmd("GET users/1");
        nearside.is_cached("users/1")
    });
    direct.cmd("SET users/1 after");
    direct.cmd("PUBLISH users/update 1");
    eventually("the change is seen", || client.value("users/1").as_deref() == Some("after"));
}
