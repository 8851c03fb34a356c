//! The upstream's own reports, by key and by prefix: foreign writers, whatever the command.

use crate::support;

use nearside::config::Tracking;
use support::{Nearside, Redis, eventually, without};

/// Each changes or removes the string at `k` without a word on any channel.
const CHANGES: &[&str] = &[
    "SET k w",
    "APPEND k w",
    "DEL k",
    "UNLINK k",
    "GETDEL k",
    "RENAME k k2",
    "PEXPIRE k 1",
    "EVAL redis.call('set','k','w') 0",
    "FLUSHDB",
    "FLUSHALL",
    "SWAPDB 0 1",
    "COPY other k REPLACE",
    "SETRANGE k 0 w",
    "MOVE k 1",
    "DEBUG RELOAD",
];

fn every_foreign_change_is_seen(tracking: Tracking) {
    let redis = Redis::start();
    let nearside = Nearside::with(redis.address(), |config| {
        config.tracking = tracking;
        config.namespaces.clear();
    });
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    for change in CHANGES {
        direct.cmd("FLUSHALL");
        direct.cmd("SET k v");
        direct.cmd("SET other w");
        eventually("a cached value", || client.value("k").as_deref() == Some("v") && nearside.is_cached("k"));
        let reply = direct.text(change);
        assert!(!reply.starts_with('-'), "{change}: {reply}");
        eventually(change, || {
            let truth = direct.value("k");
            client.value("k") == truth && (truth.as_deref() != Some("v") || *change == "DEBUG RELOAD")
        });
    }
}

#[test]
fn every_foreign_change_is_seen_by_key() {
    every_foreign_change_is_seen(Tracking::Keys);
}

#[test]
fn every_foreign_change_is_seen_by_prefix() {
    every_foreign_change_is_seen(Tracking::Prefix);
}

#[test]
fn a_namespace_may_be_tracked_by_prefix_and_the_rest_not_at_all() {
    let redis = Redis::start();
    let nearside = Nearside::with(redis.address(), |config| {
        config.tracking = Tracking::Off;
        config.namespaces[0].tracking = Tracking::Prefix;
        config.namespaces[1].tracking = Tracking::Off;
    });
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    for key in ["users/1", "items/1", "other"] {
        direct.cmd(&format!("SET {key} v"));
    }
    eventually("both namespaces are cached", || {
        client.value("users/1");
        client.value("items/1");
        nearside.is_cached("users/1") && nearside.is_cached("items/1")
    });
    client.value("other");
    assert!(!nearside.is_cached("other"), "nothing would tell of its changes");
    direct.cmd("SET users/1 w");
    eventually("the upstream's report", || client.value("users/1").as_deref() == Some("w"));
    assert_eq!(client.value("items/1").as_deref(), Some("v"), "nobody has announced anything");
}

#[test]
fn where_tracking_is_refused_only_namespaces_are_cached() {
    let redis = Redis::start();
    let mut direct = redis.connect();
    let rules = without("client|tracking");
    assert_eq!(direct.text(&format!("ACL SETUSER default {rules}")), "+OK\r\n");
    let nearside = Nearside::unready(redis.address(), |_| ());
    eventually("the refusal", || nearside.stats().contains("nearside_tracking:off"));
    nearside.wait_ready();
    let mut client = nearside.connect();
    eventually("a cached namespace", || {
        client.value("users/1");
        nearside.is_cached("users/1")
    });
    client.value("other");
    assert!(!nearside.is_cached("other"));
}

#[test]
fn without_info_changes_are_heard_and_the_gap_is_counted() {
    let redis = Redis::start();
    let mut direct = redis.connect();
    assert_eq!(direct.text("ACL SETUSER near on >pw ~* &* +@all -info"), "+OK\r\n");
    let nearside = Nearside::with(redis.address(), |config| {
        config.upstream =
            nearside::config::Upstream::parse(&format!("redis://near:pw@{}", redis.address())).unwrap();
        config.max_staleness = std::time::Duration::from_millis(60);
    });
    let mut client = nearside.connect();
    direct.cmd("SET k v");
    eventually("a cached value", || client.value("k").as_deref() == Some("v") && nearside.is_cached("k"));
    direct.cmd("SET k w");
    eventually("it is heard", || client.value("k").as_deref() == Some("w"));
    let pings = redis.calls("ping");
    eventually("heartbeats", || {
        client.value("k");
        redis.calls("ping") > pings + 10
    });
    let page = nearside.get("/metrics").1;
    for check in ["server", "swapdb"] {
        let line = format!("\nnearside_refused_checks_total{{check=\"{check}\"}} 1\n");
        assert!(page.contains(&line), "{page}");
    }
    // Both are asked again from time to time, and stand there as one entry; the heartbeats do not ask.
    let refusals = direct.text("ACL LOG");
    assert_eq!(refusals.matches("\ninfo\r\n").count(), 1, "{refusals}");
    let asked: u32 =
        refusals.split("$5\r\ncount\r\n:").nth(1).unwrap().split('\r').next().unwrap().parse().unwrap();
    assert!((2..10).contains(&asked), "{refusals}");
}
