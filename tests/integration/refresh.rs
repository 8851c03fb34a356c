//! `on-update = "refresh"`: what is in use is fetched anew when an update is announced; the rest is dropped.

use crate::support;

use std::time::Duration;

use nearside::config::{Config, OnUpdate, Tracking};
use support::scripted::{Asked, Scripted, invalidate, message};
use support::{Conn, Nearside, Redis, eventually, line};

fn both(test: impl Fn(&Redis, &Nearside)) {
    for tracking in [Tracking::Keys, Tracking::Off] {
        let redis = Redis::start();
        let nearside = Nearside::with(redis.address(), |config: &mut Config| {
            config.tracking = tracking;
            config.namespaces.iter_mut().for_each(|namespace| namespace.on_update = OnUpdate::Refresh);
        });
        test(&redis, &nearside);
    }
}

fn metric(nearside: &Nearside, name: &str) -> u64 {
    let page = nearside.get("/metrics").1;
    let prefix = format!("nearside_{name} ");
    page.lines().find_map(|line| line.strip_prefix(&prefix)?.parse().ok()).unwrap_or_else(|| panic!("{page}"))
}

/// A write by somebody who keeps to the protocol.
fn write(other: &mut Conn, key: &str, value: &str) {
    let bare = key.strip_prefix("users/").unwrap();
    other.pipeline(&[format!("SET {key} {value}"), format!("PUBLISH users/update {bare}")]);
}

/// Reads the key, and once more from the cache.
fn use_key(client: &mut Conn, key: &str) {
    assert_eq!(client.value(key), client.value(key));
}

#[test]
fn what_is_in_use_is_fetched_anew() {
    both(|redis, nearside| {
        let (mut client, mut other) = (nearside.connect(), redis.connect());
        other.cmd("MSET users/1 old users/2 old");
        // The first is read since its fill, the second not, the third is not cached.
        for key in ["users/1", "users/1", "users/2"] {
            assert_eq!(client.value(key).as_deref(), Some("old"));
        }
        let before = redis.calls("get");
        for key in ["users/1", "users/2", "users/3"] {
            write(&mut other, key, "new");
        }
        eventually("all is heard", || metric(nearside, "invalidations_total{source=\"update\"}") == 3);
        eventually("users/1 is back", || nearside.is_cached("users/1"));
        assert!(!nearside.is_cached("users/2"), "nobody had read it since");
        assert!(!nearside.is_cached("users/3"));
        assert_eq!(redis.calls("get") - before, 1);
        let hits = nearside.stat("hits");
        assert_eq!(client.value("users/1").as_deref(), Some("new"));
        assert_eq!((nearside.stat("hits") - hits, redis.calls("get") - before), (1, 1));
        assert_eq!(client.value("users/2").as_deref(), Some("new"));
    });
}

#[test]
fn all_replies_of_a_key_with_their_arguments() {
    both(|redis, nearside| {
        let (mut client, mut other) = (nearside.connect(), redis.connect());
        other.cmd("SET users/1 0123456789");
        let reads = ["GET users/1", "GETRANGE users/1 0 3", "GETRANGE users/1 5 -1", "STRLEN users/1"];
        client.pipeline(&reads);
        client.pipeline(&reads);
        write(&mut other, "users/1", "abcdefghijk");
        let expected = other.pipeline(&reads);
        eventually("all four are asked for", || metric(nearside, "refreshes_total") == 4);
        eventually("all four are back", || nearside.why("users/1").matches("reply: ").count() == 4);
        let hits = nearside.stat("hits");
        assert_eq!(client.pipeline(&reads), expected);
        assert_eq!(nearside.stat("hits") - hits, 4);
    });
}

#[test]
fn a_delete_drops() {
    both(|redis, nearside| {
        let (mut client, mut other) = (nearside.connect(), redis.connect());
        other.cmd("SET users/1 old");
        use_key(&mut client, "users/1");
        let before = redis.calls("get");
        other.pipeline(&["DEL users/1", "PUBLISH users/delete 1"]);
        eventually("it is dropped", || !nearside.is_cached("users/1"));
        // The feed has gone on beyond it when this is seen.
        use_key(&mut client, "users/2");
        other.cmd("PUBLISH users/delete 2");
        eventually("the next is dropped", || !nearside.is_cached("users/2"));
        assert!(!nearside.is_cached("users/1"));
        assert_eq!(redis.calls("get") - before, 1, "only users/2 was fetched");
        assert_eq!(client.value("users/1"), None);
    });
}

#[test]
fn a_burst_is_fetched_a_few_times_at_most() {
    both(|redis, nearside| {
        let (mut client, mut other) = (nearside.connect(), redis.connect());
        other.cmd("SET users/1 old");
        use_key(&mut client, "users/1");
        let before = redis.calls("get");
        let writes =
            (0..200).flat_map(|i| [line(&format!("SET users/1 {i}")), line("PUBLISH users/update 1")]);
        other.send(&writes.collect::<Vec<_>>().concat());
        (0..400).for_each(|_| drop(other.reply()));
        eventually("all of it is heard", || {
            metric(nearside, "invalidations_total{source=\"update\"}") == 200
        });
        // What was fetched anew was not read, so the next update only drops it, and only so many follow one
        // that was overtaken.
        eventually("the first is fetched", || metric(nearside, "refreshes_total") > 0);
        let calls = redis.calls("get") - before;
        let refreshes = metric(nearside, "refreshes_total");
        assert!((1..=4).contains(&refreshes) && calls <= refreshes, "{calls} fetches, {refreshes} refreshes");
        assert_eq!(client.value("users/1").as_deref(), Some("199"));
    });
}

#[test]
fn a_refresh_between_sidecars() {
    both(|redis, here| {
        let there = Nearside::start(redis.address());
        let (mut client, mut other) = (here.connect(), there.connect());
        for i in 0..20 {
            use_key(&mut client, "users/1");
            let before = redis.calls("get");
            assert_eq!(other.text(&format!("SET users/1 {i}")), "+OK\r\n");
            eventually("it is fetched anew", || redis.calls("get") > before && here.is_cached("users/1"));
            let hits = here.stat("hits");
            assert_eq!(client.value("users/1"), Some(i.to_string()));
            assert_eq!(here.stat("hits") - hits, 1);
        }
    });
}

/// A refresh is under way when the next update is told, as far as each of these says.
fn overtaken(tracking: Tracking, updates: &[&[&str]]) {
    let upstream = Scripted::start();
    let nearside = Nearside::with(upstream.address, |config: &mut Config| {
        (config.tracking, config.max_staleness) = (tracking, Duration::from_secs(30));
        config.namespaces.iter_mut().for_each(|namespace| {
            namespace.on_update = OnUpdate::Refresh;
            namespace.max_staleness = Duration::from_secs(30);
        });
    });
    let mut client = nearside.connect();
    let fetched = || (upstream.expect("get users/1"), upstream.expect("PTTL users/1"));
    let bring = |(get, ttl): (Asked, Asked), value: usize| {
        get.reply(&format!("$1\r\n{value}\r\n"));
        ttl.reply(":-1\r\n");
    };
    let heard = |what: &str| {
        let count = metric(&nearside, &format!("invalidations_total{{source=\"{what}\"}}"));
        upstream.push(
            upstream.feed(),
            &if what == "update" { message("users/update", "1") } else { invalidate(Some("users/1")) },
        );
        eventually("it is heard", || {
            metric(&nearside, &format!("invalidations_total{{source=\"{what}\"}}")) > count
        });
    };
    client.send(&line("get users/1"));
    bring(fetched(), 0);
    assert_eq!(client.reply(), b"$1\r\n0\r\n");
    assert_eq!(client.value("users/1").as_deref(), Some("0"), "and it is in use");
    heard("update");
    for (i, update) in updates.iter().enumerate() {
        let fetch = fetched();
        update.iter().for_each(|what| heard(what));
        assert_eq!(upstream.waiting(), 0, "one at a time");
        bring(fetch, i + 1);
        // The rest of the update is told when the fetch is over.
        if update == &["tracking"] {
            eventually("it is over", || {
                metric(&nearside, "unkept_fills_total{reason=\"voided\"}") > i as u64
            });
            heard("update");
        }
    }
    bring(fetched(), 9);
    eventually("the last value is cached", || nearside.is_cached("users/1"));
    let hits = nearside.stat("hits");
    assert_eq!(client.value("users/1").as_deref(), Some("9"));
    assert_eq!(nearside.stat("hits"), hits + 1);
    assert_eq!(metric(&nearside, "refreshes_total"), updates.len() as u64 + 1);
}

#[test]
fn a_refresh_that_an_update_overtakes_is_followed_by_another() {
    overtaken(Tracking::Off, &[&["update"]]);
    overtaken(Tracking::Off, &[&["update", "update", "update"], &["update"], &["update", "update"]]);
    overtaken(Tracking::Keys, &[&["tracking", "update"]]);
    overtaken(Tracking::Keys, &[&["tracking", "update", "tracking", "update"], &["tracking", "update"]]);
    overtaken(Tracking::Keys, &[&["tracking"]]);
    overtaken(Tracking::Keys, &[&["tracking"], &["tracking"]]);
}

#[test]
fn only_so_many_refreshes_follow_when_nobody_reads() {
    let upstream = Scripted::start();
    let nearside = Nearside::with(upstream.address, |config: &mut Config| {
        (config.tracking, config.max_staleness) = (Tracking::Off, Duration::from_secs(30));
        config.namespaces.iter_mut().for_each(|namespace| {
            namespace.on_update = OnUpdate::Refresh;
            namespace.max_staleness = Duration::from_secs(30);
        });
    });
    let mut client = nearside.connect();
    let bring = || {
        let (get, ttl) = (upstream.expect("get users/1"), upstream.expect("PTTL users/1"));
        let updates = metric(&nearside, "invalidations_total{source=\"update\"}");
        upstream.push(upstream.feed(), &message("users/update", "1"));
        eventually("heard", || metric(&nearside, "invalidations_total{source=\"update\"}") > updates);
        get.reply("$1\r\nv\r\n");
        ttl.reply(":-1\r\n");
    };
    client.send(&line("get users/1"));
    let (get, ttl) = (upstream.expect("get users/1"), upstream.expect("PTTL users/1"));
    get.reply("$1\r\nv\r\n");
    ttl.reply(":-1\r\n");
    client.reply();
    assert!(client.value("users/1").is_some());
    upstream.push(upstream.feed(), &message("users/update", "1"));
    (0..4).for_each(|_| bring());
    eventually("the last is over", || metric(&nearside, "unkept_fills_total{reason=\"voided\"}") == 4);
    // Whatever it asks for now comes behind what it might have asked for before.
    client.send(&line("GET users/2"));
    upstream.expect("GET users/2");
    assert_eq!(metric(&nearside, "refreshes_total"), 4);
}
