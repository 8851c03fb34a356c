//! A connection that goes dead without a word is known to be dead within `max-staleness`, whatever the moment.

use crate::support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nearside::cache::Micros;
use nearside::config::{Config, Tracking};
use support::alone::Running;
use support::chaos::{Chaos, Role, Way};
use support::relay::Relay;
use support::{Conn, Nearside, Redis, eventually, line};

/// Long enough that what a busy machine adds is small beside a third of it.
const BOUND: Duration = Duration::from_millis(900);

const KEY: &str = "users/1";

fn behind(redis: &Redis, change: impl FnOnce(&mut Config)) -> (Chaos, Nearside) {
    let chaos = Chaos::to(redis.address());
    let nearside = Nearside::with(chaos.address, |config| {
        config.max_staleness = BOUND;
        config.namespaces.iter_mut().for_each(|namespace| namespace.max_staleness = BOUND);
        change(config);
    });
    (chaos, nearside)
}

fn until_it_hits(nearside: &Nearside, client: &mut Conn) {
    let before = nearside.stat("hits");
    eventually("hits", || {
        client.cmd(&format!("GET {KEY}"));
        nearside.stat("hits") > before
    });
}

/// Kills what has this role without a word, and says how long it took until `known`.
fn dies(chaos: &Chaos, role: Role, way: Way, what: &str, known: impl FnMut() -> bool) -> Duration {
    // Those that are dead already are among them.
    chaos.of(role).iter().for_each(|pair| pair.swallow(way));
    let died = Instant::now();
    eventually(what, known);
    let took = died.elapsed();
    println!("{role:?}, {way:?}: known after {took:?}");
    assert!(took <= BOUND, "{took:?}");
    // The connection is left open: nobody tells nearside that it is dead.
    took
}

#[test]
fn a_dead_feed_is_known_within_the_bound_whatever_the_moment() {
    let redis = Redis::start();
    let (chaos, nearside) = behind(&redis, |_| ());
    let mut client = nearside.connect();
    for step in 0..6 {
        until_it_hits(&nearside, &mut client);
        // Another moment between two heartbeats each time.
        std::thread::sleep(BOUND / 18 * step);
        let lapses = nearside.stat("feed_lapses");
        let way = if step % 2 == 0 { Way::Down } else { Way::Up };
        dies(&chaos, Role::Feed, way, "the feed is given up", || nearside.stat("feed_lapses") > lapses);
    }
}

#[test]
fn a_dead_link_is_void_within_the_bound_and_another_takes_its_place() {
    let redis = Redis::start();
    let (chaos, nearside) = behind(&redis, |config| config.upstream_timeout = Some(Duration::from_secs(2)));
    let (mut direct, mut client, mut stuck) = (redis.connect(), nearside.connect(), nearside.connect());
    direct.cmd(&format!("SET {KEY} v"));
    for step in 0..3 {
        until_it_hits(&nearside, &mut client);
        std::thread::sleep(BOUND / 12 * step);
        let lapses = nearside.stat("feed_lapses");
        let connects = connects(&nearside);
        let way = if step % 2 == 0 { Way::Down } else { Way::Up };
        let links = chaos.of(Role::Data);
        links.iter().for_each(|link| link.swallow(way));
        let died = Instant::now();
        stuck.send(&line(&format!("SET other {step}")));
        eventually("another link", || self::connects(&nearside) > connects);
        let took = died.elapsed();
        println!("{way:?}: known after {took:?}");
        assert!(took <= BOUND, "{took:?}");
        eventually("the other is tracked", || nearside.stat("tracked_links") == 1);
        assert_eq!(nearside.stat("feed_lapses"), lapses, "the feed lives");
        // Not for as long as upstream-timeout, in which the old link is given up.
        until_it_hits(&nearside, &mut client);
        assert_eq!(client.value(KEY).as_deref(), Some("v"));
        assert!(died.elapsed() < Duration::from_secs(2), "{:?}", died.elapsed());
        let said = String::from_utf8(stuck.reply()).unwrap();
        // At once, unless it is what stands at the front: a write may be paused.
        assert!(said.contains("no reply within 2s") || said.contains("gives no answer"), "{said}");
        assert!(said.contains("may have been executed"), "{said}");
        assert_eq!(stuck.text("PING"), "+PONG\r\n");
    }
}

#[test]
fn what_is_in_flight_on_a_dead_link_fails_when_it_is_given_up_tracked_or_not() {
    for tracking in [Tracking::Keys, Tracking::Off] {
        let redis = Redis::start();
        let (relay, nearside) = {
            let relay = Relay::to(redis.address());
            let nearside = Nearside::with(relay.address, |config| {
                config.tracking = tracking;
                config.max_staleness = BOUND;
                config.namespaces.iter_mut().for_each(|namespace| namespace.max_staleness = BOUND);
            });
            (relay, nearside)
        };
        let (mut reader, mut waiting) = (nearside.connect(), nearside.connect());
        assert_eq!(reader.text("SET users/1 v"), "+OK\r\n");
        relay.swallow_on_others(true);
        let died = Instant::now();
        reader.send(&line("STRLEN users/1"));
        waiting.send(&line("STRLEN users/1"));
        let said = String::from_utf8(reader.reply()).unwrap();
        relay.swallow_on_others(false);
        println!("{tracking:?}: {:?}", died.elapsed());
        // Where this test was held up before it asked, the link was given up by then, and the next is as dead.
        assert!(said.contains("gives no answer") || said.contains("connect-timeout"), "{said}");
        assert!(died.elapsed() < 4 * BOUND, "not after upstream-timeout: {:?}", died.elapsed());
        waiting.reply();
        eventually("it goes on", || reader.text("STRLEN users/1") == ":1\r\n");
    }
}

/// Nothing is read, so nothing but the writes tells that the link is dark; a paused one is waited for (below).
#[test]
fn a_write_on_a_dead_link_fails_long_before_upstream_timeout() {
    for tracking in [Tracking::Keys, Tracking::Prefix, Tracking::Off] {
        for way in [Way::Down, Way::Up] {
            let redis = Redis::start();
            let (chaos, nearside) = behind(&redis, |config| {
                config.tracking = tracking;
                config.workers = 1;
            });
            let (mut writer, mut behind_it) = (nearside.connect(), nearside.connect());
            assert_eq!(writer.text("SET other 1"), "+OK\r\n");
            // What is not tracked is told by nothing from other connections.
            let role = if tracking == Tracking::Keys { Role::Data } else { Role::Unknown };
            assert_eq!(chaos.of(role).len(), 1);
            chaos.of(role).iter().for_each(|link| link.swallow(way));
            let died = Instant::now();
            writer.send(&line("SET other 2"));
            let said = String::from_utf8(writer.reply()).unwrap();
            println!("{tracking:?}, {way:?}: {:?}", died.elapsed());
            assert!(said.contains("gives no answer") && said.contains("may have been executed"), "{said}");
            assert!(died.elapsed() < 6 * BOUND, "{:?}", died.elapsed());
            for client in [&mut writer, &mut behind_it] {
                assert_eq!(client.text("SET other 3"), "+OK\r\n", "another link has taken its place");
            }
        }
    }
}

fn connects(nearside: &Nearside) -> u64 {
    let page = nearside.get("/metrics").1;
    let line = page.lines().find_map(|line| line.strip_prefix("nearside_upstream_connects_total "));
    line.expect("the metric").parse().unwrap()
}

#[test]
fn a_slow_link_is_tracked_again_when_it_answers() {
    let redis = Redis::start();
    let (chaos, nearside) = behind(&redis, |config| config.workers = 1);
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    direct.cmd(&format!("SET {KEY} v"));
    until_it_hits(&nearside, &mut client);
    // It is on the old link as well, and asks for nothing any more.
    let mut idle = nearside.connect();
    assert_eq!(idle.value(KEY).as_deref(), Some("v"));
    // Everything of one client is held up, its PINGs as well; the feed asks for nothing that is.
    let paused = Instant::now();
    direct.cmd("CLIENT PAUSE 2000 WRITE");
    let mut writer = nearside.connect();
    writer.send(&line(&format!("SET {KEY} w")));
    eventually("another link", || chaos.of(Role::Data).len() == 2);
    assert_eq!(client.value(KEY).as_deref(), Some("v"), "reads go on");
    assert_eq!(String::from_utf8(writer.reply()).unwrap(), "+OK\r\n", "and the write is not given up");
    assert!(paused.elapsed() >= Duration::from_millis(1900));
    assert_eq!(client.value(KEY).as_deref(), Some("w"));
    assert_eq!(writer.value(KEY).as_deref(), Some("w"));
    until_it_hits(&nearside, &mut client);
    eventually("the old link has gone", || chaos.of(Role::Data).len() == 1);
    assert_eq!(idle.value(KEY).as_deref(), Some("w"));
    assert_eq!(idle.text("SET other x"), "+OK\r\n");
    assert_eq!(chaos.of(Role::Data).len(), 1, "and nobody goes back to it");
}

#[test]
fn a_feed_that_died_while_nothing_was_read_is_known_within_the_bound_of_the_first_read() {
    let redis = Redis::start();
    let chaos = Chaos::to(redis.address());
    let running = Running::start(chaos.address, BOUND, false);
    let (cache, state) = (&running.cache, &running.state);
    let lapses = || state.metrics.feed_lapses.get();
    let watermark = || cache.coverages().oldest_watermark();
    for _ in 0..2 {
        state.reads.store(true, Ordering::Relaxed);
        eventually("the feed is up", || watermark().is_some());
        state.reads.store(false, Ordering::Relaxed);
        let begun = lapses();
        // What is under way is answered, and then nothing proves the coverage any more.
        eventually("nothing is proven", || {
            watermark().is_some_and(|mark| state.now() - mark > BOUND.as_micros() as Micros)
        });
        let pings = redis.calls("ping");
        chaos.of(Role::Feed).iter().for_each(|pair| pair.swallow(Way::Down));
        std::thread::sleep(2 * BOUND);
        assert_eq!((lapses(), redis.calls("ping")), (begun, pings), "nobody asks, so nobody knows");
        state.reads.store(true, Ordering::Relaxed);
        let read = Instant::now();
        eventually("the feed is given up", || lapses() > begun);
        assert!(read.elapsed() <= BOUND, "{:?}", read.elapsed());
    }
    // One that dies with an answer under way is known to be dead, though nobody reads any more.
    eventually("the feed is up", || watermark().is_some());
    let begun = lapses();
    chaos.of(Role::Feed).iter().for_each(|pair| pair.swallow(Way::Down));
    let died = Instant::now();
    std::thread::sleep(BOUND / 2);
    state.reads.store(false, Ordering::Relaxed);
    eventually("the feed is given up", || lapses() > begun);
    assert!(died.elapsed() <= BOUND, "{:?}", died.elapsed());
    running.stop();
}
