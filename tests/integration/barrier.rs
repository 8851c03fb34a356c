//! Scripts, and what else may write keys that it does not name: when its reply has come, nobody reads an older value;
//! and the cache goes on serving.

use crate::support;

use std::time::Duration;

use nearside::config::{Config, Tracking};
use support::{Conn, Nearside, Redis, eventually, request};

/// Every way in which nearside can hear of changes.
const ALL: [Tracking; 3] = [Tracking::Keys, Tracking::Prefix, Tracking::Off];

/// Heartbeats are so rare that none of them helps.
fn started(redis: &Redis, tracking: Tracking) -> Nearside {
    Nearside::with(redis.address(), |config: &mut Config| {
        config.tracking = tracking;
        config.workers = 2;
        config.max_staleness = Duration::from_secs(30);
        config.namespaces.iter_mut().for_each(|namespace| namespace.max_staleness = config.max_staleness);
    })
}

/// A script that adds one to a key that it does not declare.
fn script(key: &str) -> Vec<Vec<u8>> {
    let text = format!("return redis.call('incr','{key}')");
    ["EVAL", &text, "0"].map(|word| word.as_bytes().to_vec()).into()
}

fn ask(client: &mut Conn, words: &[Vec<u8>]) -> String {
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    String::from_utf8(client.args(&words)).unwrap()
}

/// The ways in which a script, or what does as one, can be said. All of them add one to `key`.
fn ways(redis: &Redis, key: &str) -> Vec<Vec<Vec<u8>>> {
    let mut direct = redis.connect();
    let text = format!("return redis.call('incr','{key}')");
    let digest = ask(&mut direct, &["SCRIPT", "LOAD", &text].map(|word| word.as_bytes().to_vec()));
    let digest = digest.lines().nth(1).unwrap().to_string();
    let library = "#!lua name=lib\nredis.register_function('add', function(keys, args) return redis.call('incr', args[1]) end)";
    direct.args(&[b"FUNCTION", b"LOAD", b"REPLACE", library.as_bytes()]);
    let built = "return redis.call('incr', KEYS[1] .. ARGV[1])";
    let (head, tail) = key.split_at(key.len() - 1);
    [
        vec!["EVAL", &text, "0"],
        vec!["EVALSHA", &digest, "0"],
        vec!["FCALL", "add", "0", key],
        vec!["EVAL", built, "1", head, tail],
        // An error that comes behind the write.
        vec!["EVAL", &format!("{text};error('late')").replace("return ", ""), "0"],
    ]
    .map(|words| words.into_iter().map(|word| word.as_bytes().to_vec()).collect())
    .into()
}

#[test]
fn what_follows_a_script_in_one_packet_sees_what_it_wrote() {
    for tracking in ALL {
        let redis = Redis::start();
        let nearside = started(&redis, tracking);
        for resp3 in [false, true] {
            let mut client = if resp3 { nearside.connect_resp3() } else { nearside.connect() };
            let key = format!("users/u{}", u8::from(resp3));
            for round in 0..20 {
                for words in ways(&redis, &key) {
                    client.value(&key);
                    client.value(&key);
                    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                    let reads = [
                        request(&[b"GET", key.as_bytes()]),
                        request(&[b"MGET", key.as_bytes(), b"users/none"]),
                    ];
                    client.send(&[request(&words), reads.concat()].concat());
                    client.reply();
                    let (get, mget) = (client.reply(), client.reply());
                    let now = redis.connect().args(&[b"GET", key.as_bytes()]);
                    assert_eq!(
                        get,
                        now,
                        "{tracking:?}, round {round}: {:?}",
                        String::from_utf8_lossy(words[0])
                    );
                    let mget = String::from_utf8(mget).unwrap();
                    assert!(mget.contains(&*String::from_utf8_lossy(&now)), "MGET: {mget}");
                }
            }
        }
    }
}

#[test]
fn a_transaction_with_a_script_is_one() {
    for tracking in ALL {
        let redis = Redis::start();
        let nearside = started(&redis, tracking);
        let (mut client, mut other) = (nearside.connect(), nearside.connect());
        for round in 1..50 {
            client.value("users/u");
            other.value("users/u");
            let script = script("users/u");
            let script: Vec<&[u8]> = script.iter().map(Vec::as_slice).collect();
            let packet =
                [request(&[b"MULTI"]), request(&script), request(&[b"EXEC"]), request(&[b"GET", b"users/u"])];
            client.send(&packet.concat());
            let replies: Vec<_> = packet.iter().map(|_| client.reply()).collect();
            assert_eq!(replies[1], b"+QUEUED\r\n");
            let expected = format!("${}\r\n{round}\r\n", round.to_string().len());
            assert_eq!(String::from_utf8_lossy(&replies[3]), expected, "{tracking:?}");
            assert_eq!(other.value("users/u"), Some(round.to_string()), "{tracking:?}, by another");
        }
    }
}

#[test]
fn after_its_reply_nobody_reads_what_was_before_it() {
    for tracking in ALL {
        let redis = Redis::start();
        let nearside = started(&redis, tracking);
        let (mut client, mut other) = (nearside.connect(), nearside.connect());
        let mut third = nearside.connect_resp3();
        let mut expected = 0;
        for _ in 0..40 {
            for words in ways(&redis, "users/u") {
                for reader in [&mut client, &mut other, &mut third] {
                    reader.value("users/u");
                    reader.value("users/u");
                }
                ask(&mut client, &words);
                expected += 1;
                for reader in [&mut other, &mut client, &mut third] {
                    let found = reader.value("users/u");
                    assert_eq!(
                        found,
                        Some(expected.to_string()),
                        "{tracking:?}: {:?}",
                        words[0].escape_ascii().to_string()
                    );
                }
            }
        }
    }
}

#[test]
fn hits_come_back_a_round_trip_after_a_script() {
    for tracking in [Tracking::Keys, Tracking::Prefix] {
        let redis = Redis::start();
        let nearside = started(&redis, tracking);
        let mut client = nearside.connect();
        for key in ["users/a", "users/b"] {
            client.value(key);
        }
        for _ in 0..3 {
            let filled = nearside.stat("fills");
            assert_eq!(ask(&mut client, &script("elsewhere")).as_bytes()[0], b':');
            // Nothing is asked meanwhile, and no heartbeat is near (they are ten seconds apart): what was there comes back by
            // itself, on a machine that has much else to do, too.
            std::thread::sleep(Duration::from_millis(700));
            let hits = nearside.stat("hits");
            assert_eq!((client.value("users/a"), client.value("users/b")), (None, None));
            assert_eq!(
                (nearside.stat("hits") - hits, nearside.stat("fills") - filled),
                (2, 0),
                "{tracking:?}"
            );
        }
    }
}

#[test]
fn an_unknown_command_leaves_the_cache_as_it_is() {
    for tracking in ALL {
        let redis = Redis::start();
        let nearside = started(&redis, tracking);
        let (mut client, mut other) = (nearside.connect(), nearside.connect());
        client.value("users/a");
        for _ in 0..10 {
            assert!(other.text("FOO bar").starts_with("-ERR unknown command"));
            assert!(nearside.is_cached("users/a"));
            let hits = nearside.stat("hits");
            client.value("users/a");
            assert_eq!(nearside.stat("hits") - hits, 1, "{tracking:?}");
        }
        other.pipeline(&["MULTI", "FOO bar", "EXEC"]);
        eventually("hits after a transaction that was refused", || {
            let hits = nearside.stat("hits");
            client.value("users/a");
            nearside.stat("hits") > hits
        });
    }
}

#[test]
fn what_only_announcements_tell_of_is_void_after_a_script() {
    let redis = Redis::start();
    let nearside = started(&redis, Tracking::Off);
    let mut client = nearside.connect();
    client.value("users/a");
    assert!(nearside.is_cached("users/a"));
    ask(&mut client, &script("elsewhere"));
    assert!(!nearside.is_cached("users/a"), "nobody would tell of what the script did");
    client.value("users/a");
    assert!(nearside.is_cached("users/a"), "what is read after it is kept");
}

#[test]
fn a_command_that_the_server_knows_by_another_name_may_have_written_anything() {
    for tracking in ALL {
        let redis = Redis::with(&["--rename-command", "APPEND", "EXTEND"]);
        let nearside = started(&redis, tracking);
        let (mut client, mut other) = (nearside.connect(), nearside.connect());
        let mut expected = String::new();
        for _ in 0..50 {
            client.value("users/u");
            other.value("users/u");
            let replies = client.pipeline(&["EXTEND users/u x", "GET users/u"]);
            expected.push('x');
            assert!(replies[0].starts_with(':'), "{}", replies[0]);
            assert!(replies[1].contains(&format!("\r\n{expected}\r\n")), "{tracking:?}: {}", replies[1]);
            assert_eq!(other.value("users/u").as_ref(), Some(&expected), "{tracking:?}, by another");
        }
    }
}

/// Many sessions that say scripts of undeclared keys, and read what they and others have written.
#[test]
fn many_sessions_read_what_scripts_have_written() {
    use std::sync::atomic::{AtomicU64, Ordering};
    for tracking in ALL {
        let redis = Redis::start();
        let nearside = started(&redis, tracking);
        let keys = ["users/1", "users/2", "items/3"];
        let done = keys.map(|_| AtomicU64::new(0));
        let number = |client: &mut Conn, key: &str| -> u64 {
            client.value(key).map_or(0, |value| value.parse().unwrap())
        };
        std::thread::scope(|scope| {
            for writer in 0..3 {
                let (mut client, done) = (nearside.connect(), &done);
                scope.spawn(move || {
                    for i in 0..200 {
                        let k = (writer + i) % keys.len();
                        let reply = ask(&mut client, &script(keys[k]));
                        let count: u64 = reply.trim_start_matches(':').trim_end().parse().unwrap();
                        done[k].fetch_max(count, Ordering::SeqCst);
                        assert!(number(&mut client, keys[k]) >= count, "{tracking:?}: its own write");
                    }
                });
            }
            for _ in 0..3 {
                let (mut client, done) = (nearside.connect(), &done);
                scope.spawn(move || {
                    let mut seen = keys.map(|_| 0);
                    for i in 0..1500 {
                        let k = i % keys.len();
                        let known = done[k].load(Ordering::SeqCst);
                        let now = number(&mut client, keys[k]);
                        assert!(
                            now >= known,
                            "{tracking:?}: {now} is older than {known}, which was acknowledged"
                        );
                        assert!(now >= seen[k], "{tracking:?}: {now} after {}", seen[k]);
                        seen[k] = now;
                    }
                });
            }
        });
        let mut client = nearside.connect();
        assert_eq!(keys.iter().map(|key| number(&mut client, key)).sum::<u64>(), 600);
    }
}

/// One script a second and an unknown command all the time: other keys are served from the cache as before.
#[test]
fn the_cache_goes_on_serving_beside_scripts() {
    let redis = Redis::start();
    let nearside = started(&redis, Tracking::Keys);
    let (mut client, mut other) = (nearside.connect(), nearside.connect());
    let (begun, hits) = (std::time::Instant::now(), nearside.stat("hits"));
    let (mut reads, mut scripts) = (0, 0);
    while begun.elapsed() < Duration::from_secs(3) {
        if begun.elapsed() > Duration::from_secs(scripts) {
            ask(&mut other, &script("elsewhere"));
            scripts += 1;
        }
        assert!(other.text("FOO").starts_with("-ERR unknown command"));
        for i in 0..20 {
            client.value(&format!("users/{i}"));
            reads += 1;
        }
    }
    let hits = nearside.stat("hits") - hits;
    assert!(hits * 10 > reads * 9, "{hits} hits of {reads}");
}
