//! A read is fetched once, and then served from memory until something happens to its key.

use crate::support;

use support::{Conn, Nearside, Redis, eventually, request};

#[test]
fn the_second_read_is_a_hit() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    direct.cmd("SET users/1 v");
    assert_eq!(client.value("users/1").as_deref(), Some("v"));
    assert_eq!(nearside.stat("hits"), 0);
    assert_eq!(client.value("users/1").as_deref(), Some("v"));
    assert_eq!(nearside.stat("hits"), 1);
    assert!(nearside.is_cached("users/1"));
    assert_eq!(redis.calls("get"), 1);
}

#[test]
fn a_foreign_write_is_seen() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    assert_eq!(client.value("anything"), None);
    assert_eq!(client.value("anything"), None);
    assert_eq!(nearside.stat("hits"), 1, "nil is a reply like any other");
    direct.cmd("SET anything v");
    eventually("the upstream's invalidation", || client.value("anything").as_deref() == Some("v"));
}

/// Sends `line` upstream and to nearside twice, expects the same bytes, and gives how many of the two were
/// hits.
#[track_caller]
fn twice(nearside: &Nearside, direct: &mut Conn, client: &mut Conn, line: &str) -> i64 {
    let (expected, before) = (direct.text(line), nearside.stat("hits"));
    assert_eq!(client.text(line), expected, "{line}");
    assert_eq!(client.text(line), expected, "{line}, again");
    nearside.stat("hits") - before
}

#[test]
fn reads_of_one_key_are_cached_under_the_exact_request() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    let setup = [
        "SET s 0123456789abcdefghijklmnopqrstuvwxyz",
        "RPUSH l a b c b",
        "SADD set x",
        "ZADD z 1 a 2.5 b 3 c",
        "GEOADD geo 13.361389 38.115556 Palermo",
        "XADD x 1-1 f v",
        "HSET h f v",
    ];
    direct.pipeline(&setup);
    let cached = [
        "GET s",
        "STRLEN s",
        "EXISTS s",
        "EXISTS absent",
        "TYPE s",
        "TYPE absent",
        "GETRANGE s 1 23",
        "GETRANGE s 12 3",
        "GETRANGE s 0 -1",
        "SUBSTR s 1 2",
        "GETBIT s 3",
        "BITCOUNT s",
        "BITCOUNT s 0 5",
        "BITPOS s 1",
        "LLEN l",
        "LRANGE l 0 -1",
        "LRANGE l 0 1",
        "LRANGE absent 0 1",
        "LINDEX l 1",
        "LPOS l b",
        "LPOS l b RANK 2",
        "SMEMBERS set",
        "SCARD set",
        "SISMEMBER set x",
        "SMISMEMBER set x y",
        "ZRANGE z 0 -1",
        "ZRANGE z 0 -1 WITHSCORES",
        "ZRANGEBYSCORE z 1 (3",
        "ZSCORE z b",
        "ZSCORE z absent",
        "ZRANK z c",
        "ZCARD z",
        "ZCOUNT z 1 2",
        "GEOPOS geo Palermo",
    ];
    for line in cached {
        assert_eq!(twice(&nearside, &mut direct, &mut client, line), 1, "{line}");
    }
    // All at once: none has taken another's place.
    let before = nearside.stat("hits");
    let expected = direct.pipeline(&cached);
    assert_eq!(client.pipeline(&cached), expected);
    assert_eq!(nearside.stat("hits") - before, cached.len() as i64);
    // Whatever the command, one write to the key drops them all.
    direct.pipeline(&["SET s x", "LPOP l", "SADD set y", "ZADD z 9 a", "DEL geo"]);
    let expected = direct.pipeline(&cached);
    eventually("all are seen to have changed", || client.pipeline(&cached) == expected);
}

#[test]
fn what_depends_on_more_than_the_key_is_not_cached() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    direct.pipeline(&["SET a v EX 1000", "SET b v", "SADD set x y"]);
    let lines = [
        "EXISTS a b",
        "EXISTS a a",
        "OBJECT ENCODING a",
        "DUMP a",
        "TOUCH a",
        "SCAN 0",
        "DBSIZE",
        "SINTER set set",
        "RANDOMKEY",
        "TTL a",
        "SRANDMEMBER set",
    ];
    for line in lines {
        let mut monitor = redis.monitor();
        client.pipeline(&[line, line]);
        let word = format!("\"{}\"", line.split(' ').next().unwrap());
        let asked = monitor.seen().iter().filter(|seen| seen.starts_with(&word)).count();
        assert_eq!(asked, 2, "{line}");
    }
    assert_eq!(nearside.stat("entries"), 0);
}

#[test]
fn names_of_commands_have_no_case_and_may_come_inline() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut client = nearside.connect();
    redis.connect().cmd("SET users/1 v");
    for line in ["GET users/1", "get users/1", "GeT users/1"] {
        assert_eq!(client.text(line), "$1\r\nv\r\n");
    }
    client.send(b"GET users/1\r\n  get   users/1 \r\n");
    assert_eq!((client.reply(), client.reply()), (b"$1\r\nv\r\n".to_vec(), b"$1\r\nv\r\n".to_vec()));
    assert_eq!((nearside.stat("hits"), redis.calls("get")), (4, 1));
}

#[test]
fn errors_are_not_cached() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    direct.pipeline(&["RPUSH l a", "SET s v"]);
    for line in ["GET l", "STRLEN l", "LRANGE s 0 -1", "GETRANGE s x y", "GET", "GET a b", "GETRANGE s 1"] {
        assert_eq!(twice(&nearside, &mut direct, &mut client, line), 0, "{line}");
        assert!(client.text(line).starts_with('-'), "{line}");
    }
    assert_eq!(nearside.stat("entries"), 0);
    // And one does not hide what comes next.
    direct.pipeline(&["DEL l", "SET l v"]);
    assert_eq!(client.value("l").as_deref(), Some("v"));
}

#[test]
fn each_database_protocol_and_user_has_its_own_replies() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut direct = redis.connect();
    direct.pipeline(&["SET k zero", "ZADD z 1.5 m", "SELECT 3", "SET k three"]);
    direct.cmd("ACL SETUSER alice on >pw ~* +@all");
    direct.cmd("ACL SETUSER bob on >pw ~bob* +@all");
    let mut two = nearside.connect();
    let mut three = nearside.connect_resp3();
    for _ in 0..2 {
        assert_eq!(two.pipeline(&["ZSCORE z m", "GET absent"]), ["$3\r\n1.5\r\n", "$-1\r\n"]);
        assert_eq!(three.pipeline(&["ZSCORE z m", "GET absent"]), [",1.5\r\n", "_\r\n"]);
    }
    let mut other = nearside.connect();
    other.cmd("SELECT 3");
    for _ in 0..2 {
        assert_eq!(two.value("k").as_deref(), Some("zero"));
        assert_eq!(other.value("k").as_deref(), Some("three"));
    }
    let (mut alice, mut bob) = (nearside.connect(), nearside.connect());
    assert_eq!((alice.text("AUTH alice pw"), bob.text("AUTH bob pw")), ("+OK\r\n".into(), "+OK\r\n".into()));
    for _ in 0..2 {
        assert_eq!(alice.value("k").as_deref(), Some("zero"));
        assert!(bob.text("GET k").starts_with("-NOPERM"));
        assert!(bob.text("MGET k bob").starts_with("-NOPERM"));
    }
}

#[test]
fn mget_is_put_together_from_the_entries_of_get() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut client = nearside.connect();
    redis.connect().cmd("MSET users/a 1 users/b 2 other 3");
    // From now on it is known that nearside's own login may say MGET as well.
    client.pipeline(&["GET none", "MGET nothing"]);
    assert_eq!(client.value("users/a").as_deref(), Some("1"));
    let mut monitor = redis.monitor();
    let all = "MGET users/a users/b absent other";
    let expected = redis.connect().text(all);
    monitor.seen();
    assert_eq!(client.text(all), expected);
    let ttls = ["users/b", "absent", "other"].map(|key| format!("\"PTTL\" \"{key}\""));
    assert_eq!(
        monitor.seen(),
        [&["\"MGET\" \"users/b\" \"absent\" \"other\"".to_string()][..], &ttls].concat()
    );
    assert_eq!(client.text(all), expected);
    assert_eq!(client.text("MGET other users/a"), "*2\r\n$1\r\n3\r\n$1\r\n1\r\n");
    assert_eq!((client.value("users/b").as_deref(), client.value("absent")), (Some("2"), None));
    assert_eq!(monitor.seen(), [""; 0], "all of it was in memory");
}

#[test]
fn mget_of_a_key_named_twice() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    direct.cmd("MSET a 1 b 2");
    let line = "MGET a b a a absent b absent";
    assert_eq!(twice(&nearside, &mut direct, &mut client, line), 7);
    let before = nearside.stat("hits");
    assert_eq!(client.text(line), direct.text(line));
    assert_eq!(nearside.stat("hits") - before, 7);
}

#[test]
fn mget_of_another_type_is_nil_and_not_kept() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    direct.pipeline(&["RPUSH l x", "SET s v"]);
    for _ in 0..3 {
        assert_eq!(client.text("MGET l s"), "*2\r\n$-1\r\n$1\r\nv\r\n");
        assert!(client.text("GET l").starts_with("-WRONGTYPE"));
        assert!(!nearside.is_cached("l"));
    }
    assert!(nearside.is_cached("s"));
}

#[test]
fn mget_speaks_both_protocols_and_hands_on_errors() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut direct = redis.connect();
    direct.cmd("SET a 1");
    let mut three = nearside.connect_resp3();
    let mut two = nearside.connect();
    for _ in 0..2 {
        assert_eq!(three.text("MGET a absent"), "*2\r\n$1\r\n1\r\n_\r\n");
        assert_eq!(two.text("MGET a absent"), "*2\r\n$1\r\n1\r\n$-1\r\n");
    }
    assert_eq!(two.text("MGET"), direct.text("MGET"));
    // An error in the place of the array, with a part of it in the cache.
    direct.cmd("ACL SETUSER alice on >pw ~users/* +@all");
    direct.cmd("SET users/1 v");
    let mut alice = nearside.connect();
    alice.cmd("AUTH alice pw");
    assert_eq!(alice.value("users/1").as_deref(), Some("v"));
    for _ in 0..2 {
        assert!(alice.text("MGET users/1 a users/2").starts_with("-NOPERM"));
        assert_eq!(alice.text("MGET users/1 users/2"), "*2\r\n$1\r\nv\r\n$-1\r\n");
    }
}

#[test]
fn mget_of_thousands() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    let keys: Vec<String> = (0..3000).map(|i| format!("users/{i}")).collect();
    // Every third is absent; some are large.
    for (i, key) in keys.iter().enumerate().filter(|(i, _)| i % 3 > 0) {
        direct.send(&request(&[b"SET", key.as_bytes(), &vec![b'x'; i % 700]]));
    }
    (0..2000).for_each(|_| assert_eq!(direct.reply(), b"+OK\r\n"));
    let words: Vec<&[u8]> = [&b"MGET"[..]].into_iter().chain(keys.iter().map(String::as_bytes)).collect();
    let expected = direct.args(&words);
    let before = redis.calls("mget");
    for _ in 0..4 {
        assert_eq!(client.args(&words), expected);
    }
    assert!(redis.calls("mget") - before < 4, "in the end all of them are cached");
    assert_eq!(nearside.stat("entries"), 3000);
}

#[test]
fn a_write_in_the_middle_of_a_pipeline_of_mgets() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut client = nearside.connect();
    redis.connect().cmd("MSET users/a 1 users/b 2");
    let lines = [
        "MGET users/a users/b",
        "SET users/a 9",
        "MGET users/b users/a",
        "MSET users/b 8",
        "MGET users/a users/b",
    ];
    let expected = [
        "*2\r\n$1\r\n1\r\n$1\r\n2\r\n",
        "+OK\r\n",
        "*2\r\n$1\r\n2\r\n$1\r\n9\r\n",
        "+OK\r\n",
        "*2\r\n$1\r\n9\r\n$1\r\n8\r\n",
    ];
    assert_eq!(client.pipeline(&lines), expected);
    assert_eq!(client.pipeline(&["MGET users/a users/b"]), expected[4..]);
}

/// The feed's coverage goes on through a flush, so a link that connects afterwards is tracked under it.
#[test]
fn a_link_that_connects_after_a_flush_is_tracked() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    redis.connect().cmd("FLUSHALL");
    eventually("the flush was heard", || nearside.stat("reason_tracking") > 0);
    let mut client = nearside.connect_resp3();
    eventually("a hit on the new link", || {
        client.value("anything");
        nearside.stat("hits") > 0
    });
}

#[test]
fn only_the_commands_that_are_wanted_are_cached() {
    let redis = Redis::start();
    let nearside = Nearside::with(redis.address(), |config| {
        config.cache_commands = Some(vec!["get".into(), "lrange".into()]);
    });
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    direct.pipeline(&["SET s v", "RPUSH l a b"]);
    for line in ["GET s", "LRANGE l 0 -1"] {
        assert_eq!(twice(&nearside, &mut direct, &mut client, line), 1, "{line}");
    }
    for (i, line) in ["STRLEN s", "MGET s none", "LLEN l", "EXISTS s"].iter().enumerate() {
        assert_eq!(twice(&nearside, &mut direct, &mut client, line), 0, "{line}");
        assert_eq!(nearside.stat("reason_unwanted"), 2 * (i as i64 + 1), "{}", nearside.stats());
    }
    // It reads past the cache, so nothing older is served after it.
    client.cmd("GET s");
    assert!(nearside.is_cached("s"));
    client.cmd("MGET s");
    assert!(!nearside.is_cached("s"), "{}", nearside.why("s"));
}
