//! What waits at the server keeps nothing from the cache meanwhile, and when it is answered nobody reads an older value.

use crate::support;

use nearside::config::Tracking;
use support::{Conn, Nearside, Redis, eventually, line};

/// What waits, what lets it go on, and a read of what it changes.
const WAITING: &[(&str, &str, &str)] = &[
    ("BLPOP users/q 0", "RPUSH users/q x", "LLEN users/q"),
    ("BRPOP users/q0 users/q 0", "RPUSH users/q x", "LLEN users/q"),
    ("BLMOVE users/q users/other LEFT RIGHT 0", "RPUSH users/q x", "LLEN users/other"),
    ("BRPOPLPUSH users/q users/other 0", "RPUSH users/q x", "LLEN users/q"),
    ("BLMPOP 0 2 users/q0 users/q LEFT", "RPUSH users/q x", "LLEN users/q"),
    ("BZPOPMIN users/z 0", "ZADD users/z 1 x", "ZCARD users/z"),
    ("BZPOPMAX users/z 0", "ZADD users/z 1 x", "ZCARD users/z"),
    ("BZMPOP 0 1 users/z MIN", "ZADD users/z 1 x", "ZCARD users/z"),
    ("XREADGROUP GROUP g c BLOCK 0 STREAMS users/s >", "XADD users/s * f v", "XLEN users/s"),
];

fn waits(redis: &Redis, nearside: &Nearside, line_: &str) -> Conn {
    let mut client = nearside.connect();
    client.send(&line(line_));
    let blocked = || redis.connect().text("INFO clients").contains("blocked_clients:1");
    eventually("the client waits", blocked);
    client
}

#[test]
fn what_waits_keeps_nothing_from_the_cache() {
    for tracking in [Tracking::Keys, Tracking::Prefix, Tracking::Off] {
        let redis = Redis::start();
        let nearside = Nearside::with(redis.address(), |config| config.tracking = tracking);
        redis.connect().text("XGROUP CREATE users/s g $ MKSTREAM");
        let (mut reader, mut writer) = (nearside.connect(), nearside.connect());
        for (waiting, write, read) in WAITING {
            let mut client = waits(&redis, &nearside, waiting);
            reader.text(read);
            let hits = nearside.stat("hits");
            reader.text(read);
            assert_eq!(nearside.stat("hits") - hits, 1, "{tracking:?}: {read} while {waiting}");
            writer.text(write);
            let reply = String::from_utf8(client.reply()).unwrap();
            assert!(reply.starts_with(['*', '$']), "{waiting}: {reply}");
            let now = redis.connect().text(read);
            assert_eq!(reader.text(read), now, "{tracking:?}: {read} after {waiting}");
            assert_eq!(client.text(read), now, "{tracking:?}: {read} after {waiting}, by itself");
        }
    }
}

#[test]
fn what_waited_for_nothing_leaves_the_cache_as_it_is() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut client = nearside.connect();
    client.pipeline(&["LLEN queue", "LLEN users/q"]);
    for waiting in
        ["BLPOP queue users/q 0.01", "BLMOVE users/q queue LEFT LEFT 0.01", "BZPOPMIN users/q 0.01"]
    {
        client.text(waiting);
        assert!(nearside.is_cached("queue") && nearside.is_cached("users/q"), "{waiting}");
    }
}

/// Pops and pushes as fast as they go: when a pop is answered, no read by the same client or another is older.
#[test]
fn readers_see_what_was_popped() {
    for tracking in [Tracking::Keys, Tracking::Off] {
        let redis = Redis::start();
        let nearside = Nearside::with(redis.address(), |config| {
            config.tracking = tracking;
            config.workers = 2;
        });
        let (mut popper, mut pusher) = (nearside.connect(), nearside.connect());
        let mut readers = [nearside.connect(), nearside.connect()];
        for round in 0..300 {
            popper.send(&line("BLPOP users/q 0"));
            readers.iter_mut().for_each(|reader| reader.send(&line("LLEN users/q")));
            pusher.send(&line("RPUSH users/q x"));
            readers.iter_mut().for_each(|reader| drop(reader.reply()));
            popper.reply();
            for reader in readers.iter_mut().chain([&mut popper]) {
                assert_eq!(reader.text("LLEN users/q"), ":0\r\n", "{tracking:?}, round {round}");
            }
            pusher.reply();
        }
    }
}
