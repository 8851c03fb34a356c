//! When a write's reply has reached its client, no session of the same nearside reads an older value.

use crate::support;

use nearside::config::{Config, Tracking};
use support::{Conn, Nearside, Redis};

/// What reads are cached and must follow the writes: `{k}` is a key of the case.
const STRING: &[&str] =
    &["GET {k}", "STRLEN {k}", "EXISTS {k}", "MGET {k} {k}2", "GETRANGE {k} 0 1", "TYPE {k}", "GET {k}2"];
const LIST: &[&str] = &["LRANGE {k} 0 -1", "LLEN {k}", "LINDEX {k} 0", "LRANGE {k}2 0 -1", "EXISTS {k}"];
const SET: &[&str] =
    &["SCARD {k}", "SISMEMBER {k} a", "SMISMEMBER {k} a b", "SCARD {k}2", "SISMEMBER {k}2 a"];
const SORTED: &[&str] = &["ZRANGE {k} 0 -1 WITHSCORES", "ZSCORE {k} a", "ZCARD {k}", "ZRANGE {k}2 0 -1"];
const HASH: &[&str] = &["HGET {k} f", "HMGET {k} f g", "HLEN {k}", "HEXISTS {k} f", "EXISTS {k}"];
const BITS: &[&str] = &["GETBIT {k} 7", "BITCOUNT {k}", "GET {k}"];

/// What is there before, what is read, and the writes, each in a case of its own.
const CASES: &[(&str, &[&str], &[&str])] = &[
    (
        "SET {k} 10",
        STRING,
        &[
            "SET {k} v",
            "SETEX {k} 100 v",
            "PSETEX {k} 100000 v",
            "SET {k} v XX GET",
            "GETSET {k} v",
            "SETRANGE {k} 1 xyz",
            "INCR {k}",
            "INCRBY {k} 5",
            "DECR {k}",
            "DECRBY {k} 3",
            "INCRBYFLOAT {k} 0.5",
            "APPEND {k} tail",
            "DEL {k}",
            "UNLINK {k}",
            "GETDEL {k}",
            "GETEX {k} PXAT 1",
            "EXPIRE {k} -1",
            "PEXPIREAT {k} 1",
            "EXPIRE {k} 100",
            "RENAME {k} {k}2",
            "RENAMENX {k} {k}2",
            "COPY {k} {k}2",
            "MOVE {k} 5",
            "MSET {k} 1 {k}2 2",
            "MSETNX {k}2 2 {k}3 3",
            "SETNX {k}2 w",
            "BITOP NOT {k} {k}",
            "EVAL redis.call('SET',KEYS[1],ARGV[1]..KEYS[2]) 2 {k} {k}2 9",
            "EVAL redis.call('DEL',KEYS[1]) 1 {k}",
            "FLUSHDB",
            "FLUSHALL",
            "SWAPDB 0 7",
            "SORT absent STORE {k}",
            "set {k} lower-case",
        ],
    ),
    (
        "PING",
        STRING,
        &["SET {k} v", "SET {k} v NX", "SETNX {k} v", "INCR {k}", "APPEND {k} v", "MSETNX {k} a {k}2 b"],
    ),
    (
        "RPUSH {k} c a b",
        LIST,
        &[
            "LPUSH {k} x",
            "RPUSHX {k} x",
            "LPOP {k}",
            "RPOP {k} 9",
            "LSET {k} 0 x",
            "LREM {k} 0 a",
            "LTRIM {k} 1 1",
            "LINSERT {k} BEFORE a x",
            "RPOPLPUSH {k} {k}2",
            "LMOVE {k} {k}2 LEFT RIGHT",
            "LMPOP 2 {k}2 {k} LEFT COUNT 2",
            "BLPOP {k} 1",
            "BLMOVE {k} {k}2 LEFT LEFT 1",
            "SORT {k} ALPHA STORE {k}2",
            "SORT {k} ALPHA STORE {k}",
        ],
    ),
    (
        "SADD {k} a b",
        SET,
        &[
            "SADD {k} c",
            "SREM {k} a",
            "SPOP {k} 9",
            "SMOVE {k} {k}2 a",
            "SUNIONSTORE {k}2 {k}",
            "SDIFFSTORE {k} {k} {k}",
        ],
    ),
    (
        "ZADD {k} 1 a 2 b",
        SORTED,
        &[
            "ZADD {k} 7 a",
            "ZINCRBY {k} 1 a",
            "ZREM {k} a",
            "ZPOPMIN {k}",
            "ZREMRANGEBYRANK {k} 0 0",
            "ZRANGESTORE {k}2 {k} 0 0",
            "ZUNIONSTORE {k}2 1 {k}",
            "ZMPOP 1 {k} MAX",
            "BZPOPMAX {k} 1",
        ],
    ),
    (
        "HSET {k} f 1 g 2",
        HASH,
        &["HSET {k} f 9", "HINCRBY {k} f 1", "HDEL {k} f", "HSETNX {k} h 1", "DEL {k}"],
    ),
    (
        "SET {k} abc",
        BITS,
        &["SETBIT {k} 7 1", "BITFIELD {k} SET u8 0 255", "BITOP NOT {k}2 {k}", "SETBIT {k} 100 1"],
    ),
];

/// Both ways in which nearside can hear of changes.
fn both(test: impl Fn(&Redis, &Nearside)) {
    for tracking in [Tracking::Keys, Tracking::Off] {
        let redis = Redis::start();
        let change = |config: &mut Config| (config.tracking, config.workers) = (tracking, 2);
        test(&redis, &Nearside::with(redis.address(), change));
    }
}

/// The cases with keys of their own.
fn each(round: &str, mut test: impl FnMut(&str, &[String], &str)) {
    for (i, (setup, reads, writes)) in CASES.iter().enumerate() {
        for (j, write) in writes.iter().enumerate() {
            let fill = |line: &str| line.replace("{k}", &format!("users/{round}-{i}-{j}-"));
            let reads: Vec<_> = reads.iter().map(|read| fill(read)).collect();
            test(&fill(setup), &reads, &fill(write));
        }
    }
}

#[test]
fn after_the_reply() {
    both(|redis, nearside| {
        let (mut direct, mut client, mut other) = (redis.connect(), nearside.connect(), nearside.connect());
        each("plain", |setup, reads, write| {
            direct.cmd(setup);
            let before = client.pipeline(reads);
            assert_eq!(other.pipeline(reads), before);
            client.cmd(write);
            let mut seen = (client.pipeline(reads), other.pipeline(reads));
            let after = direct.pipeline(reads);
            assert_eq!(seen.0, after, "{write}");
            assert_eq!(seen.1, after, "{write}, by another");
            seen = (client.pipeline(reads), other.pipeline(reads));
            assert_eq!(seen, (after.clone(), after), "{write}, again");
        });
        assert!(nearside.stat("hits") > 500, "the reads before were cached");
    });
}

#[test]
fn in_one_packet() {
    both(|redis, nearside| {
        let (mut direct, mut client) = (redis.connect(), nearside.connect());
        each("packet", |setup, reads, write| {
            direct.cmd(setup);
            let before = client.pipeline(reads);
            let write = write.to_string();
            let all = [reads, std::slice::from_ref(&write), reads].concat();
            let replies = client.pipeline(&all);
            assert_eq!(replies[..reads.len()], before, "before {write}");
            assert_eq!(replies[reads.len() + 1..], direct.pipeline(reads), "after {write}");
        });
    });
}

#[test]
fn in_a_transaction() {
    both(|redis, nearside| {
        let (mut direct, mut client, mut other) = (redis.connect(), nearside.connect(), nearside.connect());
        each("transaction", |setup, reads, write| {
            direct.cmd(setup);
            client.pipeline(reads);
            other.pipeline(reads);
            let write = write.to_string();
            if reads.len() % 2 == 0 {
                client.pipeline(&["MULTI", &write, "EXEC"]);
                assert_eq!(other.pipeline(reads), direct.pipeline(reads), "{write}, by another");
                assert_eq!(client.pipeline(reads), direct.pipeline(reads), "{write}");
            } else {
                let start = ["MULTI".to_string(), write.clone(), "EXEC".into()];
                let replies = client.pipeline(&[&start, reads].concat());
                assert_eq!(replies[3..], direct.pipeline(reads), "{write}, in one packet");
                assert_eq!(other.pipeline(reads), direct.pipeline(reads), "{write}, by another");
            }
        });
    });
}

#[test]
fn many_keys_in_one_packet() {
    both(|_, nearside| {
        let mut client = nearside.connect();
        for round in 0..4 {
            let (mut lines, mut expected) = (Vec::new(), Vec::new());
            for i in 0..500 {
                let value = format!("{round}-{i}");
                let bulk = format!("${}\r\n{value}\r\n", value.len());
                lines.push(format!("SET users/{i} {value}"));
                lines.push(format!("GET users/{i}"));
                lines.push(format!("MGET users/{i} users/absent"));
                expected.extend(["+OK\r\n".into(), bulk.clone(), format!("*2\r\n{bulk}$-1\r\n")]);
            }
            assert_eq!(client.pipeline(&lines), expected);
        }
    });
}

#[test]
fn a_script_that_is_known_by_its_digest_and_a_function() {
    both(|redis, nearside| {
        let (mut direct, mut client) = (redis.connect(), nearside.connect());
        let sha = client.args(&[b"SCRIPT", b"LOAD", b"return redis.call('APPEND', KEYS[1], 'x')"]);
        let sha = String::from_utf8(sha).unwrap().lines().nth(1).unwrap().to_string();
        let library = "#!lua name=lib\nredis.register_function('add', function(keys) return redis.call('APPEND', keys[1], 'y') end)";
        assert_eq!(client.args(&[b"FUNCTION", b"LOAD", library.as_bytes()]), b"$3\r\nlib\r\n");
        for i in 0..20 {
            let write =
                if i % 2 == 0 { format!("EVALSHA {sha} 1 users/s") } else { "FCALL add 1 users/s".into() };
            let replies = client.pipeline(&["GET users/s", &write, "GET users/s"]);
            assert_eq!(replies[2], direct.text("GET users/s"), "{write}");
        }
    });
}

#[test]
fn in_another_database() {
    both(|_, nearside| {
        let (mut here, mut there) = (nearside.connect(), nearside.connect());
        assert_eq!((here.text("SELECT 2"), there.text("SELECT 2")), ("+OK\r\n".into(), "+OK\r\n".into()));
        for i in 0..50 {
            let (write, expected) = (format!("SET users/1 {i}"), Some(i.to_string()));
            assert_eq!(here.text(&write), "+OK\r\n");
            assert_eq!((there.value("users/1"), here.value("users/1")), (expected.clone(), expected));
        }
        let replies = here.pipeline(&[
            "SET users/1 two",
            "SELECT 0",
            "SET users/1 zero",
            "GET users/1",
            "SELECT 2",
            "GET users/1",
        ]);
        assert_eq!((&*replies[3], &*replies[5]), ("$4\r\nzero\r\n", "$3\r\ntwo\r\n"));
    });
}

/// A counter as a client reads it.
fn number(client: &mut Conn, key: &str) -> u64 {
    client.value(key).map_or(0, |value| value.parse().unwrap())
}

#[test]
fn many_sessions_at_once() {
    both(|_, nearside| {
        let keys = ["users/1", "users/2", "items/3"];
        // What has been acknowledged of each counter.
        let done = keys.map(|_| std::sync::atomic::AtomicU64::new(0));
        std::thread::scope(|scope| {
            for writer in 0..3 {
                let (mut client, done) = (nearside.connect(), &done);
                scope.spawn(move || {
                    for i in 0..300 {
                        let k = (writer + i) % keys.len();
                        let reply = client.text(&format!("INCR {}", keys[k]));
                        let count: u64 = reply.trim_start_matches(':').trim_end().parse().unwrap();
                        done[k].fetch_max(count, std::sync::atomic::Ordering::SeqCst);
                        assert!(number(&mut client, keys[k]) >= count, "its own write");
                    }
                });
            }
            for _ in 0..3 {
                let (mut client, done) = (nearside.connect(), &done);
                scope.spawn(move || {
                    let mut seen = keys.map(|_| 0);
                    for i in 0..1500 {
                        let k = i % keys.len();
                        let known = done[k].load(std::sync::atomic::Ordering::SeqCst);
                        let now = number(&mut client, keys[k]);
                        assert!(now >= known, "{now} is older than {known}, which was acknowledged");
                        assert!(now >= seen[k], "{now} after {}", seen[k]);
                        seen[k] = now;
                    }
                });
            }
        });
        let mut client = nearside.connect();
        assert_eq!(keys.iter().map(|key| number(&mut client, key)).sum::<u64>(), 900);
    });
}
