//! What is announced is true: `update` where the key is there afterwards, `delete` where it is not, nothing where nothing
//! was changed. Heard straight at the server.

use crate::support;

use nearside::config::Upstream;
use support::relay::Relay;
use support::{Conn, Listener, Nearside, Redis, eventually, request};

/// What is there, straight at the server; what is said through nearside; what is announced.
const TABLE: &[(&str, &str, &[&str])] = &[
    ("", "SET users/k v XX", &[]),
    ("SET users/k v", "SET users/k v XX", &["users/update k"]),
    ("SET users/k v", "SET users/k v NX", &[]),
    ("", "SET users/k v NX", &["users/update k"]),
    ("", "SET users/k v GET", &["users/update k"]),
    ("SET users/k v", "SET users/k v EX 100", &["users/update k"]),
    ("SET users/k v", "SET users/k v PXAT 1", &["users/delete k"]),
    ("SET users/k v", "SETNX users/k v", &[]),
    ("SET users/k v", "MSETNX users/k v users/l v", &[]),
    ("", "MSETNX users/k v users/l v", &["users/update k", "users/update l"]),
    ("SET users/k v", "LPUSH users/k v", &[]),
    ("SET users/k v", "EXPIRE users/k -1", &["users/delete k"]),
    ("SET users/k v", "EXPIRE users/k 100", &["users/update k"]),
    ("", "EXPIRE users/k 100", &[]),
    ("SET users/k v", "PEXPIREAT users/k 1", &["users/delete k"]),
    ("SET users/k v", "PERSIST users/k", &[]),
    ("SET users/k v EX 100", "PERSIST users/k", &["users/update k"]),
    ("SET users/k v", "GETEX users/k", &[]),
    ("SET users/k v", "GETEX users/k EX 100", &["users/update k"]),
    ("SET users/k v", "GETEX users/k PXAT 1", &["users/delete k"]),
    ("", "GETEX users/k EX 100", &[]),
    ("", "GETDEL users/k", &[]),
    ("SET users/k v", "GETDEL users/k", &["users/delete k"]),
    ("", "DEL users/k users/l", &[]),
    ("SET users/k v", "DEL users/k", &["users/delete k"]),
    ("", "UNLINK users/k", &[]),
    ("SET users/k v", "RENAME users/k users/l", &["users/delete k", "users/update l"]),
    ("SET users/k v", "RENAME users/k users/k", &["users/update k"]),
    ("", "RENAME users/k users/l", &[]),
    ("MSET users/k v users/l v", "RENAMENX users/k users/l", &[]),
    ("SET users/k v", "COPY users/k users/l", &["users/update l"]),
    ("MSET users/k v users/l v", "COPY users/k users/l", &[]),
    ("SET users/k v", "MOVE users/k 5", &["users/delete k"]),
    ("", "MOVE users/k 5", &[]),
    ("HSET users/k f v", "HDEL users/k f", &["users/delete k"]),
    ("HSET users/k f v g v", "HDEL users/k f", &["users/update k"]),
    ("HSET users/k f v", "HDEL users/k g", &[]),
    ("HSET users/k f v", "HSETNX users/k f w", &[]),
    ("HSET users/k f v", "HSET users/k f w", &["users/update k"]),
    ("RPUSH users/k v", "LPOP users/k", &["users/delete k"]),
    ("RPUSH users/k v w", "RPOP users/k", &["users/update k"]),
    ("", "LPOP users/k", &[]),
    ("", "LPOP users/k 3", &[]),
    ("", "LPUSHX users/k v", &[]),
    ("", "BLPOP users/k 0.01", &[]),
    ("RPUSH users/l v", "BLPOP users/k users/l 1", &["users/delete l"]),
    ("RPUSH users/l v w", "LMPOP 2 users/k users/l LEFT", &["users/update l"]),
    ("RPUSH users/k v", "LMOVE users/k users/l LEFT LEFT", &["users/delete k", "users/update l"]),
    ("RPUSH users/k v", "RPOPLPUSH users/k users/k", &["users/update k"]),
    ("", "RPOPLPUSH users/k users/l", &[]),
    ("RPUSH users/k v", "LREM users/k 0 v", &["users/delete k"]),
    ("RPUSH users/k v", "LREM users/k 0 w", &[]),
    ("RPUSH users/k v", "LTRIM users/k 5 9", &["users/delete k"]),
    ("RPUSH users/k v", "LINSERT users/k BEFORE x w", &[]),
    ("SADD users/k v", "SADD users/k v", &[]),
    ("SADD users/k v", "SREM users/k v", &["users/delete k"]),
    ("SADD users/k v", "SREM users/k w", &[]),
    ("SADD users/k v w", "SPOP users/k", &["users/update k"]),
    ("SADD users/k v", "SPOP users/k", &["users/delete k"]),
    ("", "SPOP users/k", &[]),
    ("SADD users/k v", "SMOVE users/k users/l v", &["users/delete k", "users/update l"]),
    ("SADD users/k v", "SMOVE users/k users/l w", &[]),
    ("SADD users/k v", "SINTERSTORE users/k users/k absent", &["users/delete k"]),
    ("SADD users/k v", "SUNIONSTORE users/l users/k", &["users/update l"]),
    ("ZADD users/k 1 v", "ZREM users/k v", &["users/delete k"]),
    ("ZADD users/k 1 v", "ZPOPMIN users/k", &["users/delete k"]),
    ("ZADD users/k 1 v", "ZADD users/k XX 2 w", &["users/update k"]),
    ("", "ZADD users/k XX 2 w", &["users/delete k"]),
    ("", "ZADD users/k XX INCR 2 w", &[]),
    ("ZADD users/k 1 v", "ZREMRANGEBYRANK users/k 0 -1", &["users/delete k"]),
    ("RPUSH users/k 1", "SORT users/k STORE users/l", &["users/update l"]),
    ("RPUSH users/l 1", "SORT users/k STORE users/l", &["users/delete l"]),
    ("SET users/k v", "BITOP NOT users/k absent", &["users/delete k"]),
    ("", "XADD users/k NOMKSTREAM * f v", &[]),
    ("", "EVAL return(1) 1 users/k", &["users/delete k"]),
    ("SET users/k v", "EVAL return(redis.call('DEL',KEYS[1])) 1 users/k", &["users/delete k"]),
    ("SET users/k v", "EVAL redis.call('DEL',KEYS[1]);error('late') 1 users/k", &["users/delete k"]),
    ("SET users/k v", "EVAL redis.call('SET',KEYS[1],'w');error('late') 1 users/k", &["users/update k"]),
    ("", "EVALSHA 0000000000000000000000000000000000000000 1 users/k", &[]),
];

fn setup(direct: &mut Conn, before: &str) {
    for db in [5, 0] {
        direct.cmd(&format!("SELECT {db}"));
        direct.cmd("FLUSHDB");
    }
    if !before.is_empty() {
        assert!(!direct.text(before).starts_with('-'), "{before}");
    }
}

#[track_caller]
fn check(redis: &Redis, client: &mut Conn, listener: &mut Listener) {
    let mut direct = redis.connect();
    for (before, write, expected) in TABLE {
        setup(&mut direct, before);
        client.text(write);
        assert_eq!(listener.heard(client), *expected, "{before:?}, then {write}");
        if write.starts_with('B') && write.contains("0.01") {
            continue;
        }
        // In a transaction likewise.
        setup(&mut direct, before);
        client.pipeline(&["MULTI", write, "EXEC"]);
        assert_eq!(listener.heard(client), *expected, "{before:?}, then {write} in a transaction");
    }
}

#[test]
fn each_write_is_announced_as_it_came_out() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut listener = redis.listen();
    check(&redis, &mut nearside.connect(), &mut listener);
    check(&redis, &mut nearside.connect_resp3(), &mut listener);
}

#[test]
fn what_a_transaction_comes_to_counts() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let (mut listener, mut client) = (redis.listen(), nearside.connect());
    let mut direct = redis.connect();
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("", &["MULTI", "SET users/k v", "DEL users/k", "EXEC"], &["users/delete k"]),
        ("SET users/k v", &["MULTI", "DEL users/k", "SET users/k v", "EXEC"], &["users/update k"]),
        (
            "SET users/k v",
            &["MULTI", "GET users/k", "DEL users/k", "SET users/k v NX", "EXEC"],
            &["users/update k"],
        ),
        ("SET users/k v", &["MULTI", "SET users/k w", "SET users/k v NX", "EXEC"], &["users/update k"]),
        ("SET users/k v", &["MULTI", "LPUSH users/k v", "INCR users/l", "EXEC"], &["users/update l"]),
        ("", &["MULTI", "SET users/k v", "FOO", "EXEC"], &[]),
        ("", &["MULTI", "SET users/k v", "DISCARD"], &[]),
        ("HSET users/k f v", &["MULTI", "HDEL users/k f", "EXEC"], &["users/delete k"]),
    ];
    for (before, lines, expected) in cases {
        setup(&mut direct, before);
        client.pipeline(lines);
        assert_eq!(listener.heard(&mut client), *expected, "{lines:?}");
    }
    // One that was watched in vain.
    setup(&mut direct, "SET users/w 1");
    client.cmd("WATCH users/w");
    direct.cmd("SET users/w 2");
    assert_eq!(client.pipeline(&["MULTI", "SET users/k v", "EXEC"])[2], "*-1\r\n");
    assert_eq!(listener.heard(&mut client), [""; 0]);
}

/// A server that refuses writes: what was said already is put right, and from then on it is waited for the reply.
#[test]
fn a_write_that_is_refused_is_put_right() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let (mut listener, mut client) = (redis.listen(), nearside.connect());
    redis.connect().cmd("CONFIG SET maxmemory 1");
    assert!(client.text("SET users/k v").starts_with("-OOM"));
    assert_eq!(listener.heard(&mut client), ["users/update k", "users/delete k"]);
    assert!(client.text("SET users/k v").starts_with("-OOM"));
    assert_eq!(listener.heard(&mut client), [""; 0], "it is known by now");
    redis.connect().cmd("CONFIG SET maxmemory 0");
    for _ in 0..2 {
        assert_eq!(client.text("SET users/k v"), "+OK\r\n");
        assert_eq!(listener.heard(&mut client), ["users/update k"]);
    }
    let (_, metrics) = nearside.get("/metrics");
    assert!(metrics.contains("\nnearside_corrected_announcements_total 1\n"), "{metrics}");
}

#[test]
fn where_nearside_may_not_look_it_says_delete() {
    let redis = Redis::start();
    redis.connect().cmd("ACL SETUSER sidecar on >pw ~* &* +@all -eval");
    let upstream = format!("redis://sidecar:pw@{}", redis.address());
    let nearside =
        Nearside::with(redis.address(), |config| config.upstream = Upstream::parse(&upstream).unwrap());
    let (mut listener, mut client) = (redis.listen(), nearside.connect());
    redis.connect().cmd("HSET users/h f 1 g 2 h 3");
    for field in ["f", "g", "h"] {
        assert_eq!(client.text(&format!("HDEL users/h {field}")), ":1\r\n");
        assert_eq!(listener.next(), (b"users/delete".to_vec(), b"h".to_vec()));
    }
    let (_, metrics) = nearside.get("/metrics");
    assert!(metrics.contains("\nnearside_refused_looks_total 1\n"), "asked once: {metrics}");
    assert_eq!(nearside.stat("announcements_failed"), 0);
}

#[test]
fn another_users_writes_are_told_as_they_came_out() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut listener = redis.listen();
    redis.connect().cmd("ACL SETUSER writer on >pw ~* +@all -publish -eval resetchannels");
    let mut client = nearside.connect();
    assert_eq!(client.text("AUTH writer pw"), "+OK\r\n");
    assert_eq!(client.text("SELECT 3"), "+OK\r\n");
    client.pipeline(&[
        "SET users/a v XX",
        "HSET users/h f v",
        "HDEL users/h f",
        "SET users/a v",
        "EXPIRE users/a 100",
    ]);
    for (channel, bare) in [("update", "h"), ("delete", "h"), ("update", "a"), ("update", "a")] {
        let expected = (format!("users/{channel}").into_bytes(), bare.as_bytes().to_vec());
        assert_eq!(listener.next(), expected, "it is looked in the client's database");
    }
}

/// A write whose reply was lost may have been carried out: everybody is told to read anew.
#[test]
fn a_write_that_was_lost_is_made_up_for() {
    let redis = Redis::start();
    let relay = Relay::to(redis.address());
    let nearside = Nearside::start(relay.address);
    let (mut listener, mut direct) = (redis.listen(), redis.connect());
    for (write, done) in [
        ("SET users/1 v", "GET users/1"),
        ("INCR users/2", "GET users/2"),
        ("BRPOPLPUSH users/3 users/4 0", "LINDEX users/4 0"),
    ] {
        let mut client = nearside.connect();
        // So that a connection for what waits is there.
        assert_eq!(client.text("BLPOP elsewhere 0.01"), "*-1\r\n");
        direct.cmd("RPUSH users/3 x");
        relay.swallow_replies(true);
        client.send(&request(&write.split(' ').map(str::as_bytes).collect::<Vec<_>>()));
        eventually("it is carried out", || direct.text(done).starts_with("$1"));
        relay.cut_swallowed();
        assert!(client.reply().starts_with(b"-"), "{write}");
        let bare = write.split(['/', ' ']).nth(2).unwrap();
        let wanted = (b"users/delete".to_vec(), bare.as_bytes().to_vec());
        eventually(&format!("word of {write}"), || listener.next() == wanted);
        nearside.wait_ready();
    }
}
