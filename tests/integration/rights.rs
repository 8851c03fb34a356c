//! Rights that a user lacks, or is given later: each link's own affair, and noticed without a restart.

use crate::support;

use std::time::Duration;

use nearside::config::{Config, Tracking, TrackingForm, Upstream};
use support::scripted::Scripted;
use support::{Conn, Nearside, Redis, eventually, without};

const ALL: &str = "on >pw ~* &* +@all";

fn bounded(config: &mut Config) {
    config.max_staleness = Duration::from_millis(300);
    config.namespaces.iter_mut().for_each(|namespace| namespace.max_staleness = config.max_staleness);
}

/// nearside that logs in as `near`, who lacks these rights. Does not wait for anything.
fn limited(redis: &Redis, lacks: &str, change: impl FnOnce(&mut Config)) -> Nearside {
    assert_eq!(redis.connect().text(&format!("ACL SETUSER near {ALL} {lacks}")), "+OK\r\n");
    Nearside::unready(redis.address(), |config| {
        bounded(config);
        config.upstream = Upstream::parse(&format!("redis://near:pw@{}", redis.address())).unwrap();
        change(config);
    })
}

fn logged_in(nearside: &Nearside, user: &str, resp3: bool) -> Conn {
    let mut conn = nearside.connect();
    match resp3 {
        true => assert!(conn.text(&format!("HELLO 3 AUTH {user} pw")).starts_with('%')),
        false => assert_eq!(conn.text(&format!("AUTH {user} pw")), "+OK\r\n"),
    }
    conn
}

#[track_caller]
fn hits(nearside: &Nearside, client: &mut Conn, key: &str) {
    let before = nearside.stat("hits");
    eventually(&format!("{key} is served from the cache"), || {
        client.cmd(&format!("GET {key}"));
        nearside.stat("hits") > before
    });
}

#[track_caller]
fn misses(nearside: &Nearside, client: &mut Conn, key: &str) {
    let before = nearside.stat("hits");
    for _ in 0..5 {
        client.cmd(&format!("GET {key}"));
    }
    assert_eq!(nearside.stat("hits"), before, "{key}");
}

fn one_user_whose_link_may_not_track_takes_nothing_from_the_others(resp3: bool) {
    let redis = Redis::start();
    let mut direct = redis.connect();
    direct.cmd(&format!("ACL SETUSER bob {ALL} {}", without("client|tracking")));
    direct.cmd(&format!("ACL SETUSER alice {ALL}"));
    direct.cmd("MSET elsewhere v users/1 v");
    let nearside = Nearside::with(redis.address(), |config| {
        bounded(config);
        // Else the feed would hear for him: see tests/forms.rs.
        config.tracking_form = TrackingForm::Redirect;
    });
    let (mut plain, mut alice) = (nearside.connect(), logged_in(&nearside, "alice", resp3));
    hits(&nearside, &mut plain, "elsewhere");
    hits(&nearside, &mut alice, "elsewhere");
    let mut bob = logged_in(&nearside, "bob", resp3);
    let uncovered = nearside.stat("reason_no_coverage");
    misses(&nearside, &mut bob, "elsewhere");
    assert!(nearside.stat("reason_no_coverage") >= uncovered + 5, "{}", nearside.stats());
    // In a namespace announcements tell of changes.
    hits(&nearside, &mut bob, "users/1");
    direct.cmd("SET users/1 w");
    direct.cmd("PUBLISH users/update 1");
    eventually("he hears of it", || bob.value("users/1").as_deref() == Some("w"));
    let why = String::from_utf8(bob.cmd("NEARSIDE WHY elsewhere")).unwrap();
    assert!(why.contains("note: CLIENT TRACKING is refused to this user: -NOPERM"), "{why}");
    assert!(nearside.stats().contains("nearside_tracking:keys"));
    for (i, client) in [&mut plain, &mut alice].into_iter().enumerate() {
        hits(&nearside, client, "elsewhere");
        direct.cmd(&format!("SET elsewhere {i}"));
        eventually("a foreign change is seen", || client.value("elsewhere") == Some(i.to_string()));
        hits(&nearside, client, "elsewhere");
    }
    // Who comes later, too.
    let mut late = logged_in(&nearside, "alice", !resp3);
    hits(&nearside, &mut late, "elsewhere");

    direct.cmd("ACL SETUSER bob +client|tracking");
    hits(&nearside, &mut bob, "elsewhere");
    direct.cmd("SET elsewhere last");
    eventually("a foreign change is seen", || bob.value("elsewhere").as_deref() == Some("last"));
}

#[test]
fn one_user_whose_link_may_not_track_takes_nothing_from_the_others_on_resp2() {
    one_user_whose_link_may_not_track_takes_nothing_from_the_others(false);
}

#[test]
fn one_user_whose_link_may_not_track_takes_nothing_from_the_others_on_resp3() {
    one_user_whose_link_may_not_track_takes_nothing_from_the_others(true);
}

/// nearside's own user lacks a right, and is given it later: from then on keys outside the namespaces are cached.
fn a_right_that_is_given_later_is_used(lacks: &[&str], tracking: Tracking) {
    let redis = Redis::start();
    let minus: Vec<_> = lacks.iter().map(|right| without(right)).collect();
    let nearside = limited(&redis, &minus.join(" "), |config| {
        config.tracking = tracking;
        if tracking == Tracking::Keys {
            config.tracking_form = TrackingForm::Redirect;
        }
    });
    let mut client = nearside.connect();
    client.cmd("MSET elsewhere v users/1 v");
    eventually("the refusal", || nearside.stats().contains("nearside_tracking:off"));
    hits(&nearside, &mut client, "users/1");
    misses(&nearside, &mut client, "elsewhere");

    let plus: Vec<_> = lacks.iter().map(|right| format!("+{right}")).collect();
    let mut direct = redis.connect();
    assert_eq!(direct.text(&format!("ACL SETUSER near {}", plus.join(" "))), "+OK\r\n");
    let wanted =
        if tracking == Tracking::Keys { "nearside_tracking:keys" } else { "nearside_tracking:prefix" };
    eventually("it is tracked", || nearside.stats().contains(wanted));
    hits(&nearside, &mut client, "elsewhere");
    direct.cmd("SET elsewhere w");
    eventually("a foreign change is seen", || client.value("elsewhere").as_deref() == Some("w"));
}

#[test]
fn the_right_to_track_that_is_given_later_is_used() {
    a_right_that_is_given_later_is_used(&["client|tracking"], Tracking::Keys);
}

#[test]
fn the_right_to_track_that_is_given_later_is_used_where_users_are_not_watched() {
    a_right_that_is_given_later_is_used(&["client|tracking", "info"], Tracking::Keys);
}

#[test]
fn the_right_to_learn_the_feeds_id_that_is_given_later_is_used() {
    a_right_that_is_given_later_is_used(&["client|id"], Tracking::Keys);
}

#[test]
fn the_right_to_track_by_prefix_that_is_given_later_is_used() {
    a_right_that_is_given_later_is_used(&["client|tracking"], Tracking::Prefix);
}

/// Redis lets everybody say `HELLO`; a service may not.
#[test]
fn the_right_to_say_hello_that_is_given_later_is_used() {
    for refusal in ["-NOPERM this user has no permissions to run the 'hello' command", "-NOPROTO unsupported"]
    {
        let upstream = Scripted::start();
        upstream.answers("HELLO", &format!("{refusal}\r\n"), 2);
        let nearside = Nearside::unready(upstream.address, bounded);
        eventually("a feed without RESP3", || {
            let stats = nearside.stats();
            stats.contains("nearside_feed:up") && stats.contains("nearside_tracking:off")
        });
        eventually("it is tracked", || nearside.stat("tracked_links") == 1);
        assert!(nearside.stats().contains("nearside_tracking:keys"));
    }
}

#[test]
fn the_right_to_subscribe_that_is_given_later_is_used() {
    let redis = Redis::start();
    let nearside = limited(&redis, "-subscribe", |_| ());
    let mut client = nearside.connect();
    misses(&nearside, &mut client, "elsewhere");
    redis.connect().cmd("ACL SETUSER near +subscribe");
    hits(&nearside, &mut client, "elsewhere");
}

/// Once it may look, it sees what is swapped, and trusts nothing of the time before.
#[test]
fn the_right_to_look_that_is_given_later_is_used() {
    let redis = Redis::start();
    let nearside = limited(&redis, "-info", |_| ());
    let (mut client, mut direct) = (nearside.connect(), redis.connect());
    direct.cmd("SET elsewhere v");
    hits(&nearside, &mut client, "elsewhere");
    assert_eq!(direct.text("SWAPDB 0 1"), "+OK\r\n");
    direct.cmd("ACL SETUSER near +info");
    eventually("the swap of the blind time", || client.value("elsewhere").is_none());
    hits(&nearside, &mut client, "elsewhere");
    assert_eq!(direct.text("SWAPDB 0 1"), "+OK\r\n");
    eventually("a swap", || client.value("elsewhere").as_deref() == Some("v"));
}

/// What is refused for long is one entry of the upstream's log.
#[test]
fn what_is_refused_does_not_fill_the_log_of_the_upstream() {
    let redis = Redis::start();
    // Before 7.0 the log does not tell subcommands apart.
    let older = redis.connect().text("ACL DRYRUN default PING") != "+OK\r\n";
    let id = if older { "client" } else { "client|id" };
    let nearside = limited(&redis, "-client +client|setname -info -command", |_| ());
    eventually("the refusal", || nearside.stats().contains("nearside_tracking:off"));
    let mut client = nearside.connect();
    client.cmd("SET users/1 v");
    hits(&nearside, &mut client, "users/1");
    for _ in 0..300 {
        client.cmd("GET users/1");
        std::thread::sleep(Duration::from_millis(5));
    }
    let log = redis.connect().text("ACL LOG");
    for name in ["info", id, "command"] {
        let object = format!("object\r\n${}\r\n{name}\r\n", name.len());
        let entries = log.split("$5\r\ncount\r\n:").skip(1).filter(|entry| entry.contains(&object));
        let counts: Vec<u32> =
            entries.map(|entry| entry.split('\r').next().unwrap().parse().unwrap()).collect();
        assert_eq!(counts.len(), 1, "{name}: {log}");
        assert!((1..12).contains(&counts[0]), "{name}: {log}");
    }
}
