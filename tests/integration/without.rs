//! Upstreams that lack a command, or hide it (old servers, services, `rename-command`): what can be had without it is
//! had, nothing hangs, and what is missing is said.

use crate::support;

use std::time::{Duration, Instant};

use nearside::config::{Config, Tracking};
use support::scripted::Scripted;
use support::{Conn, Nearside, Redis, eventually};

/// A server that does not know these commands.
fn without(commands: &[&str]) -> Redis {
    let args: Vec<&str> = commands.iter().flat_map(|command| ["--rename-command", command, ""]).collect();
    Redis::with(&args)
}

fn bounded(config: &mut Config) {
    config.max_staleness = Duration::from_millis(300);
    config.namespaces.iter_mut().for_each(|namespace| namespace.max_staleness = config.max_staleness);
}

#[track_caller]
fn hits(nearside: &Nearside, client: &mut Conn, key: &str) {
    let before = nearside.stat("hits");
    eventually(&format!("{key} is served from the cache"), || {
        client.cmd(&format!("GET {key}"));
        nearside.stat("hits") > before
    });
}

/// A key of a namespace is cached, and an announcement is obeyed.
#[track_caller]
fn is_cached_by_channels(redis: &Redis, nearside: &Nearside, client: &mut Conn) {
    let mut direct = redis.connect();
    for value in ["one", "two", "three"] {
        direct.cmd(&format!("SET users/1 {value}"));
        direct.cmd("PUBLISH users/update 1");
        eventually("an announced change is seen", || client.value("users/1").as_deref() == Some(value));
        hits(nearside, client, "users/1");
    }
    direct.cmd("DEL users/1");
    direct.cmd("PUBLISH users/delete 1");
    eventually("an announced delete is seen", || client.value("users/1").is_none());
}

#[track_caller]
fn is_not_cached(nearside: &Nearside, client: &mut Conn, key: &str) {
    let before = nearside.stat("hits");
    for _ in 0..5 {
        client.cmd(&format!("GET {key}"));
    }
    assert!(!nearside.is_cached(key), "{key}: nothing would tell of its changes");
    assert_eq!(nearside.stat("hits"), before);
}

fn namespaces_are_cached_without(commands: &[&str], resp3: bool, tracking: Tracking) {
    let redis = without(commands);
    let nearside = Nearside::with(redis.address(), |config| {
        bounded(config);
        config.tracking = tracking;
    });
    let mut clients = vec![nearside.connect()];
    if resp3 {
        clients.push(nearside.connect_resp3());
    }
    for client in &mut clients {
        is_cached_by_channels(&redis, &nearside, client);
        is_not_cached(&nearside, client, "elsewhere");
    }
    assert!(nearside.stats().contains("nearside_tracking:off"), "{}", nearside.stats());
    let why = nearside.why("elsewhere");
    assert!(why.contains("note: CLIENT TRACKING is refused"), "{why}");
}

#[test]
fn without_client_namespaces_are_cached_by_their_channels() {
    namespaces_are_cached_without(&["CLIENT"], true, Tracking::Keys);
}

#[test]
fn without_hello_namespaces_are_cached_by_their_channels() {
    namespaces_are_cached_without(&["HELLO"], false, Tracking::Keys);
}

#[test]
fn without_both_namespaces_are_cached_by_their_channels() {
    namespaces_are_cached_without(&["HELLO", "CLIENT"], false, Tracking::Keys);
}

#[test]
fn without_client_what_should_be_tracked_by_prefix_is_cached_by_its_channels() {
    namespaces_are_cached_without(&["CLIENT"], true, Tracking::Prefix);
}

#[test]
fn without_hello_what_should_be_tracked_by_prefix_is_cached_by_its_channels() {
    namespaces_are_cached_without(&["HELLO"], false, Tracking::Prefix);
}

/// As an old server behind a service that hides what tells of others.
#[test]
fn without_nearly_everything_namespaces_are_cached_by_their_channels() {
    namespaces_are_cached_without(&["HELLO", "CLIENT", "INFO", "COMMAND", "CONFIG"], false, Tracking::Keys);
}

/// What only helps: keys outside the namespaces are tracked all the same.
#[test]
fn without_info_command_or_ping_everything_is_cached() {
    for command in ["INFO", "COMMAND", "PING"] {
        let redis = without(&[command]);
        let nearside = Nearside::with(redis.address(), bounded);
        let (mut client, mut direct) = (nearside.connect(), redis.connect());
        for value in ["one", "two"] {
            direct.cmd(&format!("SET elsewhere {value}"));
            eventually(command, || client.value("elsewhere").as_deref() == Some(value));
            hits(&nearside, &mut client, "elsewhere");
        }
        // The bound passes, and the proof is renewed.
        std::thread::sleep(Duration::from_millis(400));
        client.cmd("GET elsewhere");
        hits(&nearside, &mut client, "elsewhere");
        assert_eq!(nearside.stat("feed_lapses"), 0, "{command}");
    }
}

#[test]
fn without_subscribe_nothing_is_cached_and_nothing_hangs() {
    let redis = without(&["SUBSCRIBE"]);
    let nearside = Nearside::unready(redis.address(), bounded);
    let mut client = nearside.connect();
    let begun = Instant::now();
    for _ in 0..50 {
        assert_eq!(client.text("SET users/1 v"), "+OK\r\n");
        assert_eq!(client.value("users/1").as_deref(), Some("v"));
    }
    assert!(begun.elapsed() < Duration::from_secs(2));
    is_not_cached(&nearside, &mut client, "users/1");
    assert!(nearside.stats().contains("nearside_feed:down"));
}

#[test]
fn without_pttl_nothing_is_cached_and_that_is_said() {
    let redis = without(&["PTTL"]);
    let nearside = Nearside::with(redis.address(), bounded);
    let mut client = nearside.connect();
    client.cmd("MSET users/1 v users/2 w");
    for _ in 0..3 {
        assert_eq!(client.value("users/1").as_deref(), Some("v"));
        assert_eq!(client.text("MGET users/1 users/2"), "*2\r\n$1\r\nv\r\n$1\r\nw\r\n");
    }
    assert_eq!((nearside.stat("hits"), nearside.stat("entries")), (0, 0));
    assert_eq!(nearside.stat("reason_ttl_refused"), 9, "{}", nearside.stats());
    let why = nearside.why("users/1");
    assert!(why.contains("ttl_refused") && why.contains("does not allow PTTL"), "{why}");
}

#[test]
fn an_upgrade_in_place_is_noticed() {
    let mut redis = without(&["HELLO", "CLIENT"]);
    let nearside = Nearside::with(redis.address(), bounded);
    let mut client = nearside.connect();
    is_cached_by_channels(&redis, &nearside, &mut client);
    assert!(nearside.stats().contains("nearside_tracking:off"));
    redis.become_another(&[]);
    eventually("keys are tracked", || {
        nearside.stats().contains("nearside_tracking:keys") && nearside.stat("tracked_links") >= 1
    });
    eventually("it is reached again", || !client.text("SET elsewhere one").starts_with('-'));
    hits(&nearside, &mut client, "elsewhere");
    redis.connect().cmd("SET elsewhere two");
    eventually("a foreign change is seen", || client.value("elsewhere").as_deref() == Some("two"));
    redis.become_another(&["--rename-command", "HELLO", ""]);
    eventually("and the way back", || nearside.stats().contains("nearside_tracking:off"));
    eventually("it is reached again", || !client.text("GET users/1").starts_with('-'));
    is_cached_by_channels(&redis, &nearside, &mut client);
}

/// What the feed says to have changes reported by prefix.
fn broadcast(change: impl FnOnce(&mut Config)) -> String {
    let upstream = Scripted::start();
    let nearside = Nearside::unready(upstream.address, change);
    eventually("the feed is up", || nearside.stats().contains("nearside_feed:up"));
    let said = upstream.log().into_iter().find(|words| words.contains(&"BCAST".into()));
    said.unwrap_or_default().join(" ")
}

#[test]
fn of_a_namespace_only_its_prefix_is_broadcast() {
    use Tracking::{Keys, Off, Prefix};
    for (outside, users, items, said) in [
        (Keys, Prefix, Keys, "CLIENT TRACKING ON BCAST PREFIX users/"),
        (Off, Prefix, Off, "CLIENT TRACKING ON BCAST PREFIX users/"),
        (Off, Prefix, Prefix, "CLIENT TRACKING ON BCAST PREFIX users/ PREFIX items/"),
        (Prefix, Prefix, Prefix, "CLIENT TRACKING ON BCAST"),
        (Prefix, Off, Keys, "CLIENT TRACKING ON BCAST"),
        (Keys, Off, Keys, ""),
    ] {
        let sent = broadcast(|config| {
            config.tracking = outside;
            config.namespaces[0].tracking = users;
            config.namespaces[1].tracking = items;
        });
        assert_eq!(sent, said, "outside {outside:?}, users {users:?}, items {items:?}");
    }
    let sent = broadcast(|config| {
        config.tracking = Off;
        config.namespaces.truncate(1);
        config.namespaces[0].tracking = Prefix;
        config.namespaces[0].prefix = "u:".into();
    });
    assert_eq!(sent, "CLIENT TRACKING ON BCAST PREFIX u:");
}
