//! A write through one sidecar is soon seen through all the others.

use crate::support;

use nearside::config::Tracking;
use support::{Conn, Nearside, Redis, eventually};

fn sidecar(redis: &Redis, tracking: Tracking) -> Nearside {
    Nearside::with(redis.address(), |config| config.tracking = tracking)
}

/// A client in database `db`.
fn client(nearside: &Nearside, db: u32) -> Conn {
    let mut client = nearside.connect();
    assert_eq!(client.text(&format!("SELECT {db}")), "+OK\r\n");
    client
}

/// Reads until it is a hit; then an old value can only go away by being told.
#[track_caller]
fn cache(nearside: &Nearside, client: &mut Conn, key: &str, value: Option<&str>) {
    eventually("the value, from the cache", || {
        let before = nearside.stat("hits");
        client.value(key).as_deref() == value && nearside.stat("hits") > before
    });
}

#[test]
fn three_in_step() {
    for (tracking, keys) in [
        (Tracking::Keys, ["users/1", "items/2", "outside"].as_slice()),
        (Tracking::Off, ["users/1", "items/2"].as_slice()),
    ] {
        let redis = Redis::start();
        let all = [(); 3].map(|()| sidecar(&redis, tracking));
        for db in [0, 5] {
            let mut clients = all.each_ref().map(|nearside| client(nearside, db));
            for (round, key) in keys.iter().cycle().take(6).enumerate() {
                let writer = round % 3;
                let old = clients[writer].value(key);
                for (nearside, client) in all.iter().zip(&mut clients) {
                    cache(nearside, client, key, old.as_deref());
                }
                let new = (round < 4).then(|| format!("{db}-{round}"));
                let write = new.as_ref().map_or(format!("DEL {key}"), |new| format!("SET {key} {new}"));
                assert!(!clients[writer].text(&write).starts_with('-'));
                assert_eq!(clients[writer].value(key), new, "its own write at once");
                for client in &mut clients {
                    eventually(&format!("{write} in database {db}, {tracking:?}"), || {
                        client.value(key) == new
                    });
                }
            }
        }
    }
}

#[test]
fn what_is_announced_counts_in_every_database() {
    let redis = Redis::start();
    let nearside = sidecar(&redis, Tracking::Off);
    let (mut zero, mut five) = (client(&nearside, 0), client(&nearside, 5));
    cache(&nearside, &mut zero, "users/1", None);
    cache(&nearside, &mut five, "users/1", None);
    let mut direct = redis.connect();
    direct.pipeline(&["SET users/1 zero", "SELECT 5", "SET users/1 five"]);
    assert_eq!((zero.value("users/1"), five.value("users/1")), (None, None), "nobody has told");
    assert_eq!(direct.text("PUBLISH users/update 1"), ":1\r\n");
    eventually("the announcement", || zero.value("users/1").as_deref() == Some("zero"));
    assert_eq!(five.value("users/1").as_deref(), Some("five"));
}

#[test]
fn without_tracking_only_namespaces_are_cached() {
    let redis = Redis::start();
    let nearside = sidecar(&redis, Tracking::Off);
    let mut client = nearside.connect();
    redis.connect().cmd("MSET outside v users v users/1 v usersx/1 v");
    for key in ["outside", "users", "usersx/1"] {
        let before = redis.calls("get");
        for _ in 0..3 {
            assert_eq!(client.value(key).as_deref(), Some("v"));
        }
        assert_eq!(redis.calls("get") - before, 3, "{key}");
        assert!(!nearside.is_cached(key));
        assert!(nearside.why(key).contains("only keys in namespaces are cached"), "{}", nearside.why(key));
    }
    cache(&nearside, &mut client, "users/1", Some("v"));
    assert!(nearside.why("users/1").contains("coverage channels"), "{}", nearside.why("users/1"));
}

#[test]
fn a_transaction_a_script_and_a_flush_are_seen_by_all() {
    for tracking in [Tracking::Keys, Tracking::Off] {
        let redis = Redis::start();
        let (here, there) = (sidecar(&redis, tracking), sidecar(&redis, tracking));
        let (mut writer, mut reader) = (here.connect(), there.connect());
        let writes: [(&[&str], &str); 5] = [
            (&["MULTI", "SET users/1 a", "RPUSH users/l x", "EXEC"], "a"),
            (&["EVAL redis.call('SET',KEYS[1],'b') 1 users/1"], "b"),
            (&["MSET users/0 x users/1 c"], "c"),
            (&["RENAME users/0 users/1"], "x"),
            (&["WATCH users/1", "MULTI", "APPEND users/1 y", "EXEC"], "xy"),
        ];
        for (lines, value) in writes {
            let old = reader.value("users/1");
            cache(&there, &mut reader, "users/1", old.as_deref());
            writer.pipeline(lines);
            eventually(&format!("{lines:?} {tracking:?}"), || {
                reader.value("users/1").as_deref() == Some(value)
            });
        }
        if tracking == Tracking::Keys {
            cache(&there, &mut reader, "users/1", Some("xy"));
            assert_eq!(writer.text("FLUSHALL"), "+OK\r\n");
            eventually("FLUSHALL", || reader.value("users/1").is_none());
        }
    }
}

#[test]
fn writers_on_all_sides_end_in_agreement() {
    for tracking in [Tracking::Keys, Tracking::Off] {
        let redis = Redis::start();
        let all = [(); 3].map(|()| sidecar(&redis, tracking));
        let keys: Vec<_> = (0..20).map(|i| format!("users/{i}")).collect();
        std::thread::scope(|scope| {
            for (n, nearside) in all.iter().enumerate() {
                let (mut writer, mut reader, keys) = (nearside.connect(), nearside.connect(), &keys);
                scope.spawn(move || {
                    for i in 0..400 {
                        let key = &keys[(i * 7 + n * 3) % keys.len()];
                        match i % 5 {
                            0 => writer.cmd(&format!("DEL {key}")),
                            1 => writer.cmd(&format!("INCRBYFLOAT {key} 0.5")),
                            _ => writer.cmd(&format!("SET {key} {n}{i}")),
                        };
                    }
                });
                scope.spawn(move || {
                    for i in 0..1200 {
                        reader.value(&keys[i % keys.len()]);
                    }
                });
            }
        });
        let gets: Vec<_> = keys.iter().map(|key| format!("GET {key}")).collect();
        let expected = redis.connect().pipeline(&gets);
        for nearside in &all {
            let mut client = nearside.connect();
            eventually("the upstream's values", || client.pipeline(&gets) == expected);
            let hits = nearside.stat("hits");
            assert_eq!(client.pipeline(&gets), expected);
            assert!(nearside.stat("hits") > hits, "and they are cached");
        }
    }
}
