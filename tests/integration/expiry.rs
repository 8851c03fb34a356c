//! A cached reply ends when the upstream's key does, to the millisecond, and never lives beyond `max-age`.

use crate::support;

use std::time::{Duration, Instant};

use nearside::config::{Config, Tracking};
use support::{Conn, Nearside, Redis, eventually};

/// Without tracking nothing but the time to live ends an entry.
fn untold(redis: &Redis) -> Nearside {
    Nearside::with(redis.address(), |config| config.tracking = Tracking::Off)
}

/// Asks upstream and then nearside, until the keys have been gone for a while: what the upstream no longer
/// has must not be served after that. Gives how often each key was served.
#[track_caller]
fn watch(direct: &mut Conn, client: &mut Conn, keys: &[String]) -> Vec<usize> {
    let mut served = vec![0; keys.len()];
    let mut gone = 0;
    let deadline = Instant::now() + support::SOON;
    while gone < 20 {
        assert!(Instant::now() < deadline, "the keys do not expire");
        let mut all_gone = true;
        for (key, served) in keys.iter().zip(&mut served) {
            let upstream = direct.value(key);
            let here = client.value(key);
            assert!(upstream.is_some() || here.is_none(), "{key} is served after its end");
            *served += usize::from(here.is_some());
            all_gone &= upstream.is_none();
        }
        gone += usize::from(all_gone);
    }
    served
}

#[test]
fn to_the_millisecond() {
    let redis = Redis::start();
    let nearside = untold(&redis);
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    for round in 0..3 {
        let keys: Vec<_> = (0..8).map(|i| format!("users/{round}-{i}")).collect();
        for (i, key) in keys.iter().enumerate() {
            direct.cmd(&format!("SET {key} v PX {}", 60 + 17 * i));
        }
        let before = nearside.stat("hits");
        watch(&mut direct, &mut client, &keys);
        // Mostly hits: the time to live does not keep a key out.
        assert!(nearside.stat("hits") - before > 20);
    }
    assert!(nearside.stat("reason_expired") >= 10, "{}", nearside.stats());
}

#[test]
fn a_key_that_expires_is_a_hit_until_then() {
    let redis = Redis::start();
    let nearside = untold(&redis);
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    direct.pipeline(&["SET users/1 v PX 300", "SET users/2 v PX 300", "SET users/3 v EX 1000"]);
    client.cmd("GET users/1");
    client.cmd("MGET users/2 users/3");
    let (calls, start) = (redis.calls("get"), Instant::now());
    while start.elapsed() < Duration::from_millis(100) {
        client.pipeline(&["GET users/1", "GET users/2", "MGET users/3 users/1"]);
    }
    if start.elapsed() < Duration::from_millis(200) {
        assert_eq!((redis.calls("get") - calls, redis.calls("mget")), (0, 1));
    }
    let keys = ["users/1", "users/2"].map(String::from);
    watch(&mut direct, &mut client, &keys);
    assert_eq!(client.text("MGET users/1 users/2 users/3"), "*3\r\n$-1\r\n$-1\r\n$1\r\nv\r\n");
    assert!(nearside.is_cached("users/3"));
}

#[test]
fn expiry_that_is_set_and_lifted_through_nearside() {
    let redis = Redis::start();
    let nearside = untold(&redis);
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    for write in [
        "PEXPIRE users/1 80",
        "SET users/1 w PX 80",
        "PSETEX users/1 80 w",
        "GETEX users/1 PX 80",
        "EVAL redis.call('PEXPIRE',KEYS[1],80) 1 users/1",
        "RENAME users/soon users/1",
        "COPY users/soon users/1 REPLACE",
    ] {
        direct.cmd("SET users/soon v PX 400");
        client.cmd("SET users/1 v");
        assert_eq!(client.pipeline(&["GET users/1", "GET users/1"]), ["$1\r\nv\r\n"; 2]);
        assert!(!client.text(write).starts_with('-'), "{write}");
        watch(&mut direct, &mut client, &["users/1".to_string()]);
    }
    for write in ["PERSIST users/1", "SET users/1 v", "GETEX users/1 PERSIST", "PEXPIRE users/1 100000"] {
        client.cmd("SET users/1 v PX 300");
        assert_eq!(client.pipeline(&["GET users/1", "GET users/1"]), ["$1\r\nv\r\n"; 2]);
        let ends = Instant::now() + Duration::from_millis(300);
        assert!(!client.text(write).starts_with('-'), "{write}");
        while Instant::now() < ends {
            assert_eq!(client.value("users/1").as_deref(), Some("v"), "{write}");
        }
        let hits = nearside.stat("hits");
        assert_eq!(client.pipeline(&["GET users/1", "GET users/1"]), ["$1\r\nv\r\n"; 2], "{write}");
        assert!(nearside.stat("hits") > hits, "{write}");
    }
}

#[test]
fn expiry_that_is_set_around_nearside() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    for (i, key) in ["users/1", "outside"].iter().enumerate() {
        direct.cmd(&format!("SET {key} v"));
        client.pipeline(&[format!("GET {key}"), format!("GET {key}")]);
        assert!(nearside.is_cached(key));
        let tracked = nearside.stat("reason_tracking");
        direct.cmd(&format!("PEXPIRE {key} 250"));
        eventually("the upstream has reported it", || nearside.stat("reason_tracking") > tracked);
        watch(&mut direct, &mut client, &[key.to_string()]);
        assert_eq!(client.value(key), None, "{i}");
    }
}

#[test]
fn the_end_of_a_key_is_not_mistaken_for_its_absence() {
    let redis = Redis::start();
    let nearside = untold(&redis);
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    // Read in the very moment of its end, over and over: between GET and PTTL it may go.
    for i in 0..40 {
        let key = format!("users/{i}");
        direct.cmd(&format!("SET {key} v PX 5"));
        let mut monotonic = true;
        while let Some(value) = client.value(&key) {
            assert!(monotonic && value == "v");
            nearside.connect().cmd(&format!("NEARSIDE FLUSH {key}"));
            monotonic = direct.value(&key).is_some();
        }
        assert_eq!(client.value(&key), None);
    }
}

#[test]
fn max_age_bounds_every_entry() {
    let age = Duration::from_millis(300);
    let redis = Redis::start();
    let nearside = Nearside::with(redis.address(), |config: &mut Config| {
        config.tracking = Tracking::Off;
        config.namespaces.iter_mut().for_each(|namespace| namespace.max_age = age);
    });
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    direct.pipeline(&["SET users/1 old", "SET users/2 old EX 1000"]);
    assert_eq!(client.text("MGET users/1 users/2"), "*2\r\n$3\r\nold\r\n$3\r\nold\r\n");
    let filled = Instant::now();
    // By somebody who tells nobody.
    direct.cmd("MSET users/1 new users/2 new");
    loop {
        let asked = Instant::now();
        let both = [client.value("users/1"), client.value("users/2")];
        if both.iter().all(|value| value.as_deref() == Some("new")) {
            break;
        }
        assert!(asked < filled + age, "served beyond max-age");
    }
    assert!(nearside.stat("hits") > 0, "until then it is served");
    assert!(nearside.stat("reason_aged") == 2, "{}", nearside.stats());
}

#[test]
fn nothing_is_kept_with_a_max_age_of_zero() {
    let redis = Redis::start();
    let nearside = Nearside::with(redis.address(), |config| {
        config.namespaces.iter_mut().for_each(|namespace| namespace.max_age = Duration::ZERO);
    });
    let mut client = nearside.connect();
    for _ in 0..3 {
        assert_eq!(client.value("users/1"), None);
    }
    assert_eq!((nearside.stat("hits"), redis.calls("get")), (0, 3));
}
