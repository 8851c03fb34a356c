//! Hash reads are cached like any other; where a field can have a time to live of its own, a reply is served until
//! the first of its fields ends, or not kept.
//!
//! What needs a server with such times is tried with a scripted one, and with `NEARSIDE_TEST_SERVER` if that has them.

use crate::support;

use std::time::{Duration, Instant};

use nearside::config::Tracking;
use support::scripted::Scripted;
use support::{Conn, Nearside, Redis, eventually};

/// Whether `line` is answered from the cache now, when it was asked just before.
#[track_caller]
fn is_hit(nearside: &Nearside, client: &mut Conn, line: &str) -> bool {
    client.cmd(line);
    let before = nearside.stat("hits");
    client.cmd(line);
    nearside.stat("hits") > before
}

/// Asks until it is a hit: the first link of an identity is tracked a moment after it is used.
#[track_caller]
fn becomes_hit(nearside: &Nearside, client: &mut Conn, line: &str) {
    eventually(line, || is_hit(nearside, client, line));
}

/// Whether fields can have times of their own. Says so if not.
fn has_field_times(redis: &Redis) -> bool {
    let has = redis.connect().text("COMMAND INFO hpexpire").contains("hpexpire");
    if !has {
        eprintln!("this server knows no times to live of fields: nothing to try");
    }
    has
}

const READS: [&str; 8] = [
    "HGET users/h f",
    "HMGET users/h f g none",
    "HEXISTS users/h f",
    "HSTRLEN users/h f",
    "HGETALL users/h",
    "HKEYS users/h",
    "HVALS users/h",
    "HLEN users/h",
];

#[test]
fn hash_reads_are_hits_until_the_hash_changes() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let (mut client, mut straight) = (nearside.connect(), redis.connect());
    let mut resp3 = nearside.connect_resp3();
    for (i, write) in
        ["HSET users/h f v g w", "HINCRBY users/h n 1", "HDEL users/h g", "DEL users/h"].iter().enumerate()
    {
        client.cmd(write);
        for read in READS {
            becomes_hit(&nearside, &mut client, read);
            becomes_hit(&nearside, &mut resp3, read);
            assert_eq!(client.text(read), straight.text(read), "{write}, {read}");
        }
        // By somebody else, too.
        straight.cmd(&format!("HSET users/h f {i} other {i}"));
        let expected = format!("$1\r\n{i}\r\n");
        eventually("the change is seen", || client.text("HGET users/h f") == expected);
        for read in READS {
            eventually("the change is seen", || client.text(read) == straight.text(read));
        }
    }
}

#[test]
fn a_key_of_another_type_is_an_error_each_time() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let (mut client, mut straight) = (nearside.connect(), redis.connect());
    client.cmd("SET users/h text");
    for read in READS {
        assert_eq!([client.text(read), client.text(read)], [straight.text(read), straight.text(read)]);
        assert!(straight.text(read).starts_with("-WRONGTYPE"));
    }
    assert!(nearside.stat("reason_error_reply") >= 16, "{}", nearside.stats());
}

#[test]
fn a_field_is_served_until_it_ends_and_not_after() {
    let redis = Redis::start();
    if !has_field_times(&redis) {
        return;
    }
    let nearside = Nearside::with(redis.address(), |config| config.tracking = Tracking::Off);
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    for round in 0..3 {
        let key = format!("users/{round}");
        direct.cmd(&format!("HSET {key} f v g w"));
        direct.cmd(&format!("HPEXPIRE {key} 150 FIELDS 1 f"));
        let reads = [format!("HMGET {key} g f"), format!("HGET {key} f"), format!("HEXISTS {key} f")];
        let gone = ["*2\r\n$1\r\nw\r\n$-1\r\n", "$-1\r\n", ":0\r\n"];
        let before = nearside.stat("hits");
        let end = Instant::now() + Duration::from_secs(5);
        let mut seen_gone = 0;
        while seen_gone < 20 {
            assert!(Instant::now() < end, "the field does not end");
            // What the server no longer has must not be served after that.
            let upstream = direct.text(&reads[1]);
            for (read, gone) in reads.iter().zip(gone) {
                let here = client.text(read);
                if upstream == "$-1\r\n" {
                    assert_eq!(here, gone, "{read}");
                }
            }
            seen_gone += usize::from(upstream == "$-1\r\n");
        }
        assert!(nearside.stat("hits") - before > 20, "until then it is served");
    }
    // A time that is set through nearside, and one that is lifted.
    client.cmd("HSET users/h f v");
    becomes_hit(&nearside, &mut client, "HGET users/h f");
    assert!(client.text("HPEXPIRE users/h 60 FIELDS 1 f").ends_with(":1\r\n"));
    eventually("its end", || client.text("HGET users/h f") == "$-1\r\n");
    client.cmd("HSET users/h f v");
    client.cmd("HPEXPIRE users/h 300 FIELDS 1 f");
    becomes_hit(&nearside, &mut client, "HGET users/h f");
    assert!(client.text("HPERSIST users/h FIELDS 1 f").ends_with(":1\r\n"));
    let end = Instant::now() + Duration::from_millis(350);
    while Instant::now() < end {
        assert_eq!(client.text("HGET users/h f"), "$1\r\nv\r\n");
    }
}

#[test]
fn a_whole_hash_is_kept_only_if_no_field_can_end() {
    let redis = Redis::start();
    if !has_field_times(&redis) {
        return;
    }
    let nearside = Nearside::start(redis.address());
    let (mut client, mut straight) = (nearside.connect(), redis.connect());
    let whole = ["HGETALL users/h", "HKEYS users/h", "HVALS users/h", "HLEN users/h"];
    client.cmd("HSET users/h f v g w");
    for read in whole {
        becomes_hit(&nearside, &mut client, read);
    }
    client.cmd("HPEXPIRE users/h 100000 FIELDS 1 f");
    let unkept = nearside.stat("reason_field_ttl");
    for read in whole {
        assert!(!is_hit(&nearside, &mut client, read), "{read}");
        assert_eq!(client.text(read), straight.text(read));
    }
    assert!(nearside.stat("reason_field_ttl") >= unkept + 8);
    assert!(nearside.why("users/h").contains("field_ttl"), "{}", nearside.why("users/h"));
    becomes_hit(&nearside, &mut client, "HGET users/h f");
    for write in [
        "HSETEX users/h EX 100 FIELDS 1 f new",
        "HGETEX users/h PERSIST FIELDS 1 f",
        "HGETDEL users/h FIELDS 1 f",
    ] {
        assert!(!client.text(write).starts_with("-ERR wrong"), "{write}");
        assert_eq!(client.text("HGET users/h f"), straight.text("HGET users/h f"), "{write}");
        becomes_hit(&nearside, &mut client, "HGET users/h f");
    }
}

/// A nearside in front of a script that does not say what commands it knows.
fn scripted() -> (Scripted, Nearside) {
    let upstream = Scripted::start();
    let nearside = Nearside::start(upstream.address);
    (upstream, nearside)
}

#[test]
fn what_is_asked_behind_a_read_decides() {
    let (upstream, nearside) = scripted();
    let mut client = nearside.connect();
    for (read, asked, said, kept) in [
        ("HGET users/1 f", "HPTTL users/1 FIELDS 1 f", "*1\r\n:-1\r\n", true),
        ("HGET users/2 f", "HPTTL users/2 FIELDS 1 f", "*1\r\n:60000\r\n", true),
        ("HGET users/3 f", "HPTTL users/3 FIELDS 1 f", "*1\r\n:-2\r\n", false),
        ("HMGET users/4 f g", "HPTTL users/4 FIELDS 2 f g", "*2\r\n:-1\r\n:5000\r\n", false),
        ("HGET users/5 f", "HPTTL users/5 FIELDS 1 f", "-ERR unknown command\r\n", false),
        ("HLEN users/6", "OBJECT ENCODING users/6", "$8\r\nlistpack\r\n", true),
        ("HLEN users/7", "OBJECT ENCODING users/7", "$9\r\nhashtable\r\n", false),
    ] {
        let key = read.split(' ').nth(1).unwrap();
        client.send(&support::line(read));
        upstream.expect(read).reply("$1\r\nv\r\n");
        upstream.expect(asked).reply(said);
        upstream.expect(&format!("PTTL {key}")).reply(":-1\r\n");
        assert_eq!(client.reply(), b"$1\r\nv\r\n");
        assert_eq!(nearside.is_cached(key), kept, "{read}, {said:?}: {}", nearside.why(key));
    }
}

#[test]
fn who_waits_for_a_reply_that_is_not_kept_gets_it_too() {
    let (upstream, nearside) = scripted();
    let mut clients: Vec<_> = (0..20).map(|_| nearside.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(&support::line("HLEN users/1")));
    eventually("all wait", || nearside.stat("shared_flights") == 19);
    upstream.expect("HLEN users/1").reply(":7\r\n");
    upstream.expect("OBJECT ENCODING users/1").reply("$9\r\nhashtable\r\n");
    upstream.expect("PTTL users/1").reply(":-1\r\n");
    for mut client in clients {
        assert_eq!(client.reply(), b":7\r\n");
    }
    assert_eq!((upstream.count("HLEN"), nearside.stat("reason_field_ttl")), (1, 1));
}
