//! A change of users, their rules or passwords ends what is cached for them: at once if it was made through this
//! nearside, within `max-staleness` if it was made straight on the upstream.

use crate::support;

use std::time::{Duration, Instant};

use nearside::config::{Config, Tracking, Upstream};
use support::{Conn, Nearside, Redis, eventually, line};

const STALENESS: Duration = Duration::from_millis(300);

fn with_users(redis: &Redis) {
    let mut direct = redis.connect();
    for rule in ["ACL SETUSER alice on >a ~* &* +@all", "ACL SETUSER bob on >b ~* &* +@all"] {
        assert_eq!(direct.cmd(rule), b"+OK\r\n");
    }
    direct.pipeline(&["SET users/1 secret", "SET users/2 other", "HSET users/h f v"]);
}

fn tight(config: &mut Config) {
    config.max_staleness = STALENESS;
    config.namespaces.iter_mut().for_each(|namespace| namespace.max_staleness = STALENESS);
}

fn started(redis: &Redis, tracking: Tracking) -> Nearside {
    with_users(redis);
    Nearside::with(redis.address(), |config| {
        tight(config);
        config.tracking = tracking;
    })
}

fn logged_in(nearside: &Nearside, login: &str) -> Conn {
    let mut client = nearside.connect();
    assert_eq!(client.text(&format!("AUTH {login}")), "+OK\r\n");
    client
}

#[track_caller]
fn becomes_hit(nearside: &Nearside, client: &mut Conn, line: &str) {
    eventually("a hit", || {
        client.cmd(line);
        let before = nearside.stat("hits");
        client.cmd(line);
        nearside.stat("hits") > before
    });
}

/// Until when an older reply may be served that was good until now. A scheduler may come between.
fn latest() -> Instant {
    Instant::now() + STALENESS + Duration::from_millis(150)
}

#[track_caller]
fn is_refused_by(client: &mut Conn, line: &str, latest: Instant) {
    loop {
        let asked = Instant::now();
        if client.text(line).starts_with("-NOPERM") {
            return;
        }
        assert!(asked < latest, "it is served though the user may not read it any more");
    }
}

#[test]
fn rules_that_are_changed_on_the_upstream() {
    for tracking in [Tracking::Keys, Tracking::Prefix, Tracking::Off] {
        let redis = Redis::start();
        let nearside = started(&redis, tracking);
        let mut direct = redis.connect();
        let (mut alice, mut plain) = (logged_in(&nearside, "alice a"), nearside.connect());
        for _ in 0..3 {
            for read in ["GET users/1", "MGET users/1 users/2", "HGET users/h f"] {
                becomes_hit(&nearside, &mut alice, read);
                becomes_hit(&nearside, &mut plain, read);
            }
            direct.cmd("ACL SETUSER alice resetkeys ~items/*");
            let latest = latest();
            for read in ["GET users/1", "MGET users/1 users/2", "HGET users/h f"] {
                is_refused_by(&mut alice, read, latest);
                assert!(!plain.text(read).starts_with('-'), "the others are not concerned");
            }
            direct.cmd("ACL SETUSER alice ~*");
            assert_eq!(alice.value("users/1").as_deref(), Some("secret"));
        }
        assert!(nearside.stat("reason_users") > 0, "{}", nearside.stats());
    }
}

#[test]
fn rules_of_nearsides_own_user() {
    let redis = Redis::start();
    let nearside = started(&redis, Tracking::Keys);
    let (mut direct, mut plain) = (redis.connect(), nearside.connect());
    becomes_hit(&nearside, &mut plain, "GET users/1");
    direct.cmd("ACL SETUSER default resetkeys ~items/*");
    is_refused_by(&mut plain, "GET users/1", latest());
    direct.cmd("ACL SETUSER default ~*");
    becomes_hit(&nearside, &mut plain, "GET users/1");
}

#[test]
fn whatever_way_a_session_changes_them_it_holds_at_once() {
    let redis = Redis::start();
    let nearside = started(&redis, Tracking::Keys);
    let (mut alice, mut admin) = (logged_in(&nearside, "alice a"), nearside.connect());
    let revoke = "ACL SETUSER alice resetkeys ~items/*";
    for round in 0..5 {
        becomes_hit(&nearside, &mut alice, "GET users/1");
        match round {
            0 => assert_eq!(admin.text(revoke), "+OK\r\n"),
            1 => {
                let said = admin.pipeline(&["MULTI", revoke, "EXEC"]);
                assert_eq!(said[2], "*1\r\n+OK\r\n");
            }
            2 => {
                let said = admin.pipeline(&["WATCH users/1", revoke, "UNWATCH"]);
                assert_eq!(said[1], "+OK\r\n");
            }
            3 => {
                admin.send(&[line("CLIENT REPLY SKIP"), line(revoke), line("ACL WHOAMI")].concat());
                assert_eq!(admin.reply(), b"$7\r\ndefault\r\n");
            }
            _ => {
                let mut other = logged_in(&nearside, "bob b");
                assert_eq!(other.text(revoke), "+OK\r\n");
            }
        }
        assert!(alice.text("GET users/1").starts_with("-NOPERM"), "{round}");
        admin.cmd("RESET");
        assert_eq!(admin.text("ACL SETUSER alice ~*"), "+OK\r\n");
        assert_eq!(alice.value("users/1").as_deref(), Some("secret"), "{round}");
    }
    // A password too.
    becomes_hit(&nearside, &mut alice, "GET users/1");
    let fills = nearside.stat("fills");
    assert_eq!(admin.text("CONFIG SET requirepass sesame"), "+OK\r\n");
    assert_eq!(alice.value("users/1").as_deref(), Some("secret"), "as with Redis, it stays logged in");
    assert!(nearside.stat("fills") > fills, "but that was read anew");
}

#[test]
fn a_user_who_was_deleted_is_given_nothing() {
    for tracking in [Tracking::Keys, Tracking::Prefix, Tracking::Off] {
        let redis = Redis::start();
        let nearside = started(&redis, tracking);
        let (mut alice, mut direct) = (logged_in(&nearside, "alice a"), redis.connect());
        becomes_hit(&nearside, &mut alice, "GET users/1");
        direct.cmd("ACL DELUSER alice");
        let latest = latest();
        loop {
            let asked = Instant::now();
            if alice.text("GET users/1").starts_with('-') {
                break;
            }
            assert!(asked < latest, "it is served though the user was deleted");
        }
        // Another one of the same name, whose replies are cached.
        direct.cmd("ACL SETUSER alice on >new ~* &* +@all");
        let mut new = logged_in(&nearside, "alice new");
        becomes_hit(&nearside, &mut new, "GET users/1");
        for _ in 0..20 {
            assert!(alice.text("GET users/1").starts_with('-'), "it is the new one's");
            assert_eq!(new.value("users/1").as_deref(), Some("secret"));
        }
        assert!(nearside.stat("reason_user") > 0);
        assert_eq!(alice.text("AUTH alice new"), "+OK\r\n");
        assert_eq!(alice.value("users/1").as_deref(), Some("secret"));
    }
}

#[test]
fn users_are_not_cached_for_where_nearside_may_not_ask() {
    let redis = Redis::start();
    with_users(&redis);
    let mut direct = redis.connect();
    direct.cmd("ACL SETUSER near on >n ~* &* +@all -info");
    let url = format!("redis://near:n@{}", redis.address());
    let nearside = Nearside::with(redis.address(), |config| config.upstream = Upstream::parse(&url).unwrap());
    let (mut alice, mut plain) = (logged_in(&nearside, "alice a"), nearside.connect());
    becomes_hit(&nearside, &mut plain, "GET users/1");
    let (calls, hits) = (redis.calls("get"), nearside.stat("hits"));
    for _ in 0..5 {
        assert_eq!(alice.value("users/1").as_deref(), Some("secret"));
    }
    assert_eq!((redis.calls("get") - calls, nearside.stat("hits") - hits), (5, 0));
    assert_eq!(nearside.stat("reason_user"), 5);
    // On the same connection: what was refused is asked again from time to time.
    direct.cmd("ACL SETUSER near +info");
    becomes_hit(&nearside, &mut alice, "GET users/1");
}

#[test]
fn while_nothing_is_changed_everything_stays() {
    let redis = Redis::start();
    let nearside = started(&redis, Tracking::Keys);
    let mut alice = logged_in(&nearside, "alice a");
    becomes_hit(&nearside, &mut alice, "GET users/1");
    let mut direct = redis.connect();
    let (fills, end) = (nearside.stat("fills"), Instant::now() + 3 * STALENESS);
    while Instant::now() < end {
        direct.pipeline(&[
            "ACL LIST",
            "ACL WHOAMI",
            "ACL GETUSER alice",
            "CONFIG GET maxmemory",
            "INFO commandstats",
        ]);
        alice.cmd("GET users/1");
    }
    assert_eq!(nearside.stat("reason_users"), 0, "{}", nearside.stats());
    assert!(nearside.stat("fills") <= fills + 1);
}

/// Nearside's own login shares them once it was seen to say each of them, until it is refused one.
#[test]
fn get_and_mget_share_for_nearsides_own_login() {
    for (denied, allowed) in [("GET", "MGET users/1 users/2"), ("MGET", "GET users/1")] {
        let redis = Redis::start();
        let nearside = started(&redis, Tracking::Keys);
        let (mut direct, mut plain) = (redis.connect(), nearside.connect());
        plain.pipeline(&["GET items/1", "MGET items/2"]);
        let calls = redis.calls("mget");
        becomes_hit(&nearside, &mut plain, "GET users/1");
        assert_eq!(plain.text("MGET users/1"), "*1\r\n$6\r\nsecret\r\n");
        assert_eq!(redis.calls("mget"), calls, "it is there");
        direct.cmd(&format!("ACL SETUSER default -{denied}"));
        // What was read before the change may be served until then.
        let latest = latest();
        eventually("the rule is known", || {
            plain.text(&format!("{denied} users/none")).starts_with("-NOPERM") && Instant::now() > latest
        });
        for _ in 0..3 {
            becomes_hit(&nearside, &mut plain, allowed);
            let reply = plain.text(&format!("{denied} users/1"));
            assert!(reply.starts_with("-NOPERM"), "-{denied}: {reply}");
        }
        direct.cmd(&format!("ACL SETUSER default +{denied}"));
        eventually("they share again", || {
            becomes_hit(&nearside, &mut plain, "GET users/2");
            let calls = redis.calls("mget");
            plain.text("MGET users/2");
            redis.calls("mget") == calls
        });
    }
}

/// A login that may say only one of them from the start is never given by the other what that one has filled.
#[test]
fn what_get_fills_is_not_given_by_mget_to_who_may_not_say_it() {
    for (denied, allowed) in [("get", "MGET users/1"), ("mget", "GET users/1")] {
        let redis = Redis::start();
        with_users(&redis);
        redis.connect().cmd(&format!("ACL SETUSER alice -{denied}"));
        redis.connect().cmd(&format!("ACL SETUSER carl on >c ~* &* +@all -{denied}"));
        let upstream = format!("redis://carl:c@{}", redis.address());
        let nearside =
            Nearside::with(redis.address(), |config| config.upstream = Upstream::parse(&upstream).unwrap());
        let refused = if denied == "get" { "GET users/1" } else { "MGET users/1" };
        for mut client in [logged_in(&nearside, "alice a"), nearside.connect(), nearside.connect_resp3()] {
            for _ in 0..3 {
                becomes_hit(&nearside, &mut client, allowed);
                assert!(client.text(refused).starts_with("-NOPERM"), "-{denied}");
            }
            // Behind it in one packet, while its fetch is under way.
            redis.connect().cmd("SET users/1 secret");
            let replies = client.pipeline(&[allowed, refused, allowed, refused]);
            assert!(replies[1].starts_with("-NOPERM") && replies[3].starts_with("-NOPERM"), "{replies:?}");
        }
        // By key: one selector for each.
        redis.connect().cmd("ACL SETUSER dora on >d +@all -get -mget ~* &* (+get ~users/1) (+mget ~users/2)");
        let mut dora = logged_in(&nearside, "dora d");
        for _ in 0..3 {
            becomes_hit(&nearside, &mut dora, "GET users/1");
            becomes_hit(&nearside, &mut dora, "MGET users/2");
            assert!(dora.text("MGET users/1").starts_with("-NOPERM"));
            assert!(dora.text("GET users/2").starts_with("-NOPERM"));
        }
    }
}

/// Who may say both is given by either what the other has filled, once it was asked for by both.
#[test]
fn another_user_hits_by_get_and_mget_alike() {
    let redis = Redis::start();
    let nearside = started(&redis, Tracking::Keys);
    let mut alice = logged_in(&nearside, "alice a");
    becomes_hit(&nearside, &mut alice, "GET users/1");
    becomes_hit(&nearside, &mut alice, "MGET users/1");
    let hits = nearside.stat("hits");
    for _ in 0..5 {
        alice.pipeline(&["GET users/1", "MGET users/1"]);
    }
    assert_eq!(nearside.stat("hits") - hits, 10);
    assert_eq!(nearside.stat("entries"), 1, "it is one entry, so neither is older than the other");
}

#[test]
fn a_user_is_told_nothing_of_what_others_have_cached() {
    let redis = Redis::start();
    with_users(&redis);
    // What was proven fresh is to be so still at the next read, however busy the machine is.
    let nearside = Nearside::with(redis.address(), |config| config.max_staleness = Duration::from_secs(10));
    let mut direct = redis.connect();
    direct.cmd("ACL SETUSER bob on >b resetkeys ~bob:* &* +@all");
    direct.cmd("MSET alice:1 secret bob:1 own");
    let (mut alice, mut bob, mut own) =
        (logged_in(&nearside, "alice a"), logged_in(&nearside, "bob b"), nearside.connect());
    becomes_hit(&nearside, &mut alice, "GET alice:1");
    becomes_hit(&nearside, &mut own, "GET alice:1");
    becomes_hit(&nearside, &mut bob, "GET bob:1");
    let listed = |client: &mut Conn| {
        let mut listed: Vec<String> = client
            .text("NEARSIDE KEYS")
            .lines()
            .filter(|line| line.contains(':'))
            .map(String::from)
            .collect();
        listed.sort();
        listed
    };
    assert_eq!(listed(&mut own), ["alice:1", "bob:1"]);
    assert_eq!(listed(&mut bob), ["bob:1"]);
    assert_eq!(listed(&mut alice), ["alice:1"]);
    assert_eq!(bob.text("NEARSIDE WHY alice:1"), bob.text("NEARSIDE WHY alice:2"), "as of an unknown key");
    assert!(bob.text("NEARSIDE WHY bob:1").contains("cached: yes"));
    for flush in ["NEARSIDE FLUSH alice:1", "NEARSIDE FLUSH"] {
        assert_eq!(bob.text(flush), "+OK\r\n");
        for client in [&mut alice, &mut own] {
            let hits = nearside.stat("hits");
            client.cmd("GET alice:1");
            assert_eq!(nearside.stat("hits") - hits, 1, "{flush} of another");
        }
    }
    assert_eq!(listed(&mut bob), [""; 0], "its own went");
    assert_eq!(own.text("NEARSIDE FLUSH"), "+OK\r\n");
    assert_eq!(listed(&mut own), [""; 0]);
}
