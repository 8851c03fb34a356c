//! `on-update = "refresh"`: what is in use is fetched anew when an update is announced; the rest is dropped.

mod support;

use nearside::config::{Config, OnUpdate, Tracking};
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
        // What was fetched anew was not read, so the next update only drops it.
        let (refreshes, calls) = (metric(nearside, "refreshes_total"), redis.calls("get") - before);
        assert!((1..=2).contains(&refreshes) && calls <= refreshes, "{calls} fetches, {refreshes} refreshes");
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
