//! Write-back namespaces: acknowledged here, read here at once, brought upstream once, and never over another's newer write.

use crate::support;

use std::time::{Duration, Instant};

use nearside::config::{Config, Tracking};
use nearside::namespace::{Ack, OnConflict, Writing};
use nearside::resp::key_slot;
use nearside::server::Stop;
use support::cluster::Cluster;
use support::filter::Filter;
use support::program::Program;
use support::{Conn, Nearside, Redis, eventually, line};

/// So long that no test sees it pass.
const NEVER: Duration = Duration::from_secs(3600);

fn writing(config: &mut Config, change: impl FnOnce(&mut Writing)) {
    let mut writing = Writing {
        flush_after: NEVER,
        flush_bytes: 8 << 20,
        journal: None,
        ack: Ack::Memory,
        on_conflict: OnConflict::KeepRemote,
        journal_max: 256 << 20,
    };
    change(&mut writing);
    config.namespaces[0].writing = Some(writing);
}

/// Whose writes to `users/…` are flushed only when that is asked for, or something else makes it necessary.
fn slow(redis: &Redis) -> Nearside {
    with(redis, |_| ())
}

fn with(redis: &Redis, change: impl FnOnce(&mut Writing)) -> Nearside {
    Nearside::with(redis.address(), |config| writing(config, change))
}

/// One number of the line of `NEARSIDE STATS` about the namespace.
fn figure(nearside: &Nearside, name: &str) -> i64 {
    let stats = nearside.stats();
    let line =
        stats.lines().find_map(|line| line.strip_prefix("nearside_writeback_users:")).expect("the line");
    let figure =
        line.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('=')).expect("the figure");
    figure.trim().parse().unwrap()
}

fn dirty(nearside: &Nearside) -> i64 {
    figure(nearside, "dirty_keys")
}

#[test]
fn a_write_is_acknowledged_and_read_here_before_it_is_upstream() {
    let redis = Redis::start();
    let nearside = slow(&redis);
    let (mut client, mut other, mut direct) = (nearside.connect(), nearside.connect_resp3(), redis.connect());
    assert_eq!(client.text("SET users/1 ada"), "+OK\r\n");
    for conn in [&mut client, &mut other] {
        assert_eq!(conn.value("users/1").as_deref(), Some("ada"));
        assert_eq!(conn.text("MGET users/1 users/none").matches("ada").count(), 1);
    }
    assert_eq!((direct.value("users/1"), dirty(&nearside)), (None, 1));
    assert!(nearside.why("users/1").contains("dirty: since"), "{}", nearside.why("users/1"));
    assert_eq!(client.text("NEARSIDE SYNC users/1"), "+OK\r\n");
    assert_eq!((direct.value("users/1").as_deref(), dirty(&nearside)), (Some("ada"), 0));
    assert_eq!(client.value("users/1").as_deref(), Some("ada"));
}

#[test]
fn every_form_of_a_whole_value_is_acknowledged_here_and_leaves_upstream_what_it_says() {
    let redis = Redis::start();
    let nearside = slow(&redis);
    let (mut client, mut direct) = (nearside.connect(), redis.connect());
    direct.cmd("SET users/old x");
    let ends = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 500;
    for (said, reply) in [
        ("SET users/plain 1".to_owned(), "+OK\r\n"),
        ("SET users/ex 2 EX 500".to_owned(), "+OK\r\n"),
        ("SET users/px 3 PX 500000".to_owned(), "+OK\r\n"),
        (format!("SET users/exat 4 EXAT {ends}"), "+OK\r\n"),
        (format!("SET users/pxat 5 PXAT {ends}000"), "+OK\r\n"),
        ("SETEX users/setex 500 6".to_owned(), "+OK\r\n"),
        ("PSETEX users/psetex 500000 7".to_owned(), "+OK\r\n"),
        ("MSET users/m1 8 users/m2 9".to_owned(), "+OK\r\n"),
        ("SET users/brief 10 PXAT 1".to_owned(), "+OK\r\n"),
        ("GET users/brief".to_owned(), "$-1\r\n"),
        ("GET users/old".to_owned(), "$1\r\nx\r\n"),
    ] {
        assert_eq!(client.text(&said), reply, "{said}");
    }
    // What stands there is known since it was read.
    eventually("it is cached", || nearside.is_cached("users/old"));
    for (said, reply) in [
        ("DEL users/old", ":1\r\n"),
        ("DEL users/old", ":0\r\n"),
        ("UNLINK users/plain", ":1\r\n"),
        ("GET users/plain", "$-1\r\n"),
    ] {
        assert_eq!(client.text(said), reply, "{said}");
    }
    assert_eq!(direct.value("users/old").as_deref(), Some("x"), "nothing of it is upstream");
    assert_eq!(direct.text("DBSIZE"), ":1\r\n");
    assert_eq!(client.text("NEARSIDE SYNC"), "+OK\r\n");
    assert_eq!(direct.text("DBSIZE"), ":8\r\n");
    for (key, expected) in
        [("ex", "2"), ("px", "3"), ("exat", "4"), ("pxat", "5"), ("setex", "6"), ("psetex", "7")]
    {
        assert_eq!(direct.value(&format!("users/{key}")).as_deref(), Some(expected), "{key}");
        let left: i64 = direct.text(&format!("TTL users/{key}")).trim()[1..].parse().unwrap();
        assert!((400..=500).contains(&left), "{key}: {left}");
    }
    assert_eq!(direct.text("MGET users/m1 users/m2"), "*2\r\n$1\r\n8\r\n$1\r\n9\r\n");
    assert_eq!(direct.text("EXISTS users/brief users/old users/plain"), ":0\r\n");
}

#[test]
fn whatever_else_touches_a_dirty_key_finds_it_flushed() {
    let redis = Redis::start();
    let nearside = slow(&redis);
    let mut client = nearside.connect();
    let cases = [
        ("INCR users/@", ":8\r\n"),
        ("STRLEN users/@", ":1\r\n"),
        ("EXISTS users/@", ":1\r\n"),
        ("APPEND users/@ 0", ":2\r\n"),
        ("SET users/@ x NX", "$-1\r\n"),
        ("SET users/@ 8 GET", "$1\r\n7\r\n"),
        ("SET users/@ 8 KEEPTTL", "+OK\r\n"),
        ("TTL users/@", ":-1\r\n"),
        ("TYPE users/@", "+string\r\n"),
        ("DEL users/@ users/none", ":1\r\n"),
        ("RENAME users/@ other", "+OK\r\n"),
        ("COPY users/@ users/copy", ":1\r\n"),
        ("KEYS users/@", "*1\r\n$9\r\nusers/@\r\n"),
        ("DBSIZE", ":14\r\n"),
        ("SORT nolist BY nosort GET users/@", "*0\r\n"),
        ("OBJECT ENCODING users/@", "$3\r\nint\r\n"),
        ("FLUSHALL", "+OK\r\n"),
    ];
    for (i, (said, reply)) in cases.into_iter().enumerate() {
        // Each another key: of what was written before the upstream may still tell.
        let of = |text: &str| text.replace('@', &(i + 101).to_string());
        assert_eq!(client.text(&of("SET users/@ 7")), "+OK\r\n");
        assert_eq!(dirty(&nearside), 1, "{said}");
        assert_eq!(client.text(&of(said)), of(reply), "{said}");
    }
    let mut asks = nearside.connect();
    assert_eq!(asks.text("SET users/wait 1"), "+OK\r\n");
    assert_eq!((asks.text("WAIT 0 0").as_str(), dirty(&nearside)), (":0\r\n", 0));
    // One that is under way, for ever here, is in nobody's way.
    asks.send(b"WAIT 1 0\r\n");
    let mut direct = redis.connect();
    eventually("it waits", || direct.text("CLIENT LIST").contains("cmd=wait"));
    assert_eq!(client.text("SET users/list 2"), "+OK\r\n");
    assert_eq!(dirty(&nearside), 1);
    assert_eq!(client.text("SET users/list 1"), "+OK\r\n");
    assert!(client.text("BLPOP users/list 0.1").starts_with("-WRONGTYPE"));
    // Scripts that name it, and that do not.
    for (script, keys) in
        [("return redis.call('GET', KEYS[1])", 1), ("return redis.call('GET', 'users/2')", 0)]
    {
        client.cmd("SET users/2 7");
        let keys = format!("{keys}");
        let reply = client.args(&[b"EVAL", script.as_bytes(), keys.as_bytes(), b"users/2"]);
        assert_eq!(reply, b"$1\r\n7\r\n", "{script}");
        client.cmd("DEL users/2");
    }
    // Within a transaction, and behind a WATCH.
    client.cmd("SET users/1 7");
    let said = ["WATCH users/1", "MULTI", "GET users/1", "INCR users/1", "EXEC"];
    said.iter().for_each(|said| client.send(&line(said)));
    let replies: Vec<_> = said.iter().map(|_| client.reply()).collect();
    assert_eq!(replies[4], b"*2\r\n$1\r\n7\r\n:8\r\n", "{replies:?}");
}

#[test]
fn requests_for_one_key_keep_their_order_in_a_pipeline() {
    let redis = Redis::start();
    let nearside = slow(&redis);
    let mut client = nearside.connect();
    for round in 0..20 {
        let key = format!("users/{round}");
        let said = [
            format!("GET {key}"),
            format!("SET {key} 1"),
            format!("GET {key}"),
            format!("INCR {key}"),
            format!("SET {key} 5"),
            format!("STRLEN {key}"),
            format!("GET {key}"),
            format!("DEL {key}"),
            format!("GET {key}"),
            format!("SET {key} 9"),
            format!("MGET {key}"),
            format!("INCR {key}"),
        ];
        client.send(&said.iter().flat_map(|said| line(said)).collect::<Vec<_>>());
        let expected = [
            "$-1\r\n",
            "+OK\r\n",
            "$1\r\n1\r\n",
            ":2\r\n",
            "+OK\r\n",
            ":1\r\n",
            "$1\r\n5\r\n",
            ":1\r\n",
            "$-1\r\n",
            "+OK\r\n",
            "*1\r\n$1\r\n9\r\n",
            ":10\r\n",
        ];
        for (said, expected) in said.iter().zip(expected) {
            assert_eq!(String::from_utf8(client.reply()).unwrap(), expected, "{said}");
        }
    }
}

#[test]
fn many_writes_of_one_key_are_few_upstream_and_are_announced_as_one() {
    let redis = Redis::start();
    let nearside = with(&redis, |writing| writing.flush_after = Duration::from_millis(200));
    let (mut listener, mut direct) = (redis.listen(), redis.connect());
    let mut client = nearside.connect();
    let many: Vec<u8> = (0..1000).flat_map(|i| line(&format!("SET users/1 {i}"))).collect();
    client.send(&many);
    (0..1000).for_each(|_| assert_eq!(client.reply(), b"+OK\r\n"));
    let before = figure(&nearside, "flushes");
    eventually("it is flushed", || dirty(&nearside) == 0);
    assert_eq!(direct.value("users/1").as_deref(), Some("999"));
    let flushes = figure(&nearside, "flushes");
    assert!(before <= flushes && flushes <= 5, "{flushes}");
    assert!(redis.calls("set") <= 5, "{}", redis.calls("set"));
    let heard = listener.heard(&mut direct);
    assert!(!heard.is_empty() && heard.len() <= 5, "{heard:?}");
    assert!(heard.iter().all(|said| said == "users/update 1"), "{heard:?}");
    client.cmd("DEL users/1");
    client.cmd("NEARSIDE SYNC");
    assert_eq!(listener.heard(&mut direct), ["users/delete 1"]);
}

#[test]
fn anothers_newer_write_stays_and_ours_is_in_the_conflict_log() {
    let redis = Redis::start();
    let nearside = slow(&redis);
    let (mut client, mut direct) = (nearside.connect(), redis.connect());
    for (key, before) in [("users/new", None), ("users/cached", Some("before"))] {
        if let Some(before) = before {
            direct.cmd(&format!("SET {key} {before}"));
            client.value(key);
            eventually("it is cached", || nearside.is_cached(key));
        }
        assert_eq!(client.text(&format!("SET {key} ours")), "+OK\r\n");
        // The upstream's tracking tells of it.
        direct.cmd(&format!("SET {key} theirs"));
        eventually("it is settled", || dirty(&nearside) == 0);
        assert_eq!(direct.value(key).as_deref(), Some("theirs"), "{key}");
        assert_eq!(client.value(key).as_deref(), Some("theirs"), "{key}");
    }
    let log = client.text("NEARSIDE CONFLICTS");
    assert!(log.starts_with("*2\r\n"), "{log}");
    for (word, times) in
        [("users/new", 1), ("users/cached", 1), ("$4\r\nours\r\n$4\r\nours\r\n", 2), ("tracking", 2)]
    {
        assert_eq!(log.matches(word).count(), times, "{word} in {log}");
    }
    let newest = client.text("NEARSIDE CONFLICTS COUNT 1");
    assert!(newest.starts_with("*1\r\n") && newest.contains("users/cached"), "{newest}");
    assert_eq!(
        (client.text("NEARSIDE CONFLICTS CLEAR"), client.text("NEARSIDE CONFLICTS")),
        ("+OK\r\n".into(), "*0\r\n".into())
    );
}

#[test]
fn without_tracking_an_announcement_tells_or_the_flush_finds_it() {
    let redis = Redis::start();
    let nearside = Nearside::with(redis.address(), |config| {
        writing(config, |_| ());
        config.tracking = Tracking::Off;
    });
    let (mut client, mut direct) = (nearside.connect(), redis.connect());
    for (key, announced) in [("users/told", true), ("users/found", false)] {
        assert_eq!(client.text(&format!("SET {key} ours")), "+OK\r\n");
        direct.cmd(&format!("SET {key} theirs"));
        if announced {
            direct.cmd("PUBLISH users/update told");
        } else {
            assert_eq!(client.value(key).as_deref(), Some("ours"), "nobody has told");
            assert_eq!(client.text(&format!("NEARSIDE SYNC {key}")), "+OK\r\n");
        }
        eventually("it is settled", || dirty(&nearside) == 0);
        assert_eq!(direct.value(key).as_deref(), Some("theirs"), "{key}");
        assert_eq!(client.value(key).as_deref(), Some("theirs"), "{key}");
    }
    let log = client.text("NEARSIDE CONFLICTS");
    assert!(log.contains("announcement") && log.contains("$5\r\nflush\r\n"), "{log}");
}

#[test]
fn the_policy_says_who_wins() {
    for (policy, told_first, expected) in [
        (OnConflict::KeepLocal, false, "ours2"),
        (OnConflict::KeepRemote, true, "theirs"),
        (OnConflict::Newest, false, "theirs"),
    ] {
        let redis = Redis::start();
        let nearside = with(&redis, |writing| writing.on_conflict = policy);
        let (mut client, mut direct) = (nearside.connect(), redis.connect());
        client.cmd("SET users/1 ours");
        if !told_first {
            client.cmd("SET users/1 ours2");
        }
        direct.cmd("SET users/1 theirs");
        client.cmd("NEARSIDE SYNC");
        assert_eq!(direct.value("users/1").as_deref(), Some(expected), "{policy:?}");
        assert_eq!(client.value("users/1").as_deref(), Some(expected), "{policy:?}");
        let logged = client.text("NEARSIDE CONFLICTS");
        assert_eq!(logged == "*0\r\n", policy == OnConflict::KeepLocal, "{policy:?}: {logged}");
    }
}

#[test]
fn what_is_acknowledged_while_the_upstream_is_away_is_there_when_it_is() {
    let mut redis = Redis::start();
    let nearside = with(&redis, |writing| writing.flush_after = Duration::from_millis(10));
    let mut client = nearside.connect_resp3();
    redis.kill();
    for i in 0..100 {
        if i == 50 {
            // One that comes now, with what real clients say first.
            client = nearside.connect_resp3();
        }
        assert_eq!(client.text(&format!("SET users/{i} v{i}")), "+OK\r\n");
        assert_eq!(client.value(&format!("users/{i}")), Some(format!("v{i}")));
    }
    let said = client.text("NEARSIDE SYNC users/1");
    assert!(said.starts_with("-ERR nearside: writes of namespace users"), "{said}");
    let said = client.text("INCR users/1");
    assert!(said.starts_with("-ERR nearside: writes of namespace users"), "{said}");
    redis.restart();
    let mut direct = redis.connect();
    eventually("all is flushed", || dirty(&nearside) == 0);
    for i in 0..100 {
        assert_eq!(direct.value(&format!("users/{i}")), Some(format!("v{i}")));
    }
    assert_eq!(client.text("NEARSIDE SYNC"), "+OK\r\n");
}

#[test]
fn once_the_upstream_is_there_again_it_is_asked_what_stands_there() {
    let mut redis = Redis::start();
    let nearside = slow(&redis);
    let mut client = nearside.connect();
    redis.kill();
    assert_eq!(client.text("SET users/1 ours"), "+OK\r\n");
    assert!(nearside.why("users/1").contains("its base is unknown"), "{}", nearside.why("users/1"));
    redis.restart();
    let mut direct = redis.connect();
    eventually("it is noticed, though nothing is to be flushed", || {
        assert_eq!(client.text("SET users/2 ours"), "+OK\r\n");
        let known = nearside.why("users/2").contains("its base is absent");
        client.cmd("NEARSIDE SYNC");
        client.cmd("DEL users/2");
        client.cmd("NEARSIDE SYNC");
        known
    });
    assert_eq!(client.text("SET users/3 ours"), "+OK\r\n");
    direct.cmd("SET users/3 theirs");
    eventually("it is settled", || client.text("NEARSIDE SYNC") == "+OK\r\n");
    assert_eq!(direct.value("users/3").as_deref(), Some("theirs"));
}

#[test]
fn while_the_upstream_refuses_nothing_waits_long_and_what_is_dirty_is_written_on() {
    let redis = Redis::start();
    let nearside = slow(&redis);
    let (mut client, mut other, mut direct) = (nearside.connect(), nearside.connect(), redis.connect());
    assert_eq!(client.text("SET users/1 a"), "+OK\r\n");
    direct.cmd("CONFIG SET maxmemory 1");
    let begun = Instant::now();
    for waits in ["INCR users/1", "DBSIZE"] {
        let said = client.text(waits);
        assert!(
            said.starts_with("-ERR nearside: writes of namespace users") && said.contains("OOM"),
            "{said}"
        );
    }
    // Far below upstream-timeout.
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    client.send(b"NEARSIDE SYNC\r\n");
    assert_eq!(other.text("SET users/1 b"), "+OK\r\n");
    assert_eq!(other.value("users/1").as_deref(), Some("b"));
    direct.cmd("CONFIG SET maxmemory 0");
    let _ = client.reply();
    assert_eq!(client.text("NEARSIDE SYNC"), "+OK\r\n");
    assert_eq!(direct.value("users/1").as_deref(), Some("b"));
}

#[test]
fn while_the_upstream_hangs_one_write_waits_for_it_and_no_other() {
    let redis = Redis::start();
    let nearside = slow(&redis);
    let (mut client, mut direct) = (nearside.connect(), redis.connect());
    let signal = |signal| {
        rustix::process::kill_process(rustix::process::Pid::from_raw(redis.pid() as i32).unwrap(), signal)
            .unwrap();
    };
    signal(rustix::process::Signal::STOP);
    let begun = Instant::now();
    for i in 0..40 {
        assert_eq!(client.text(&format!("SET users/{i} v")), "+OK\r\n");
    }
    signal(rustix::process::Signal::CONT);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    eventually("all is flushed", || client.text("NEARSIDE SYNC") == "+OK\r\n");
    assert_eq!(direct.text("DBSIZE"), ":40\r\n");
}

#[test]
fn when_there_is_no_room_it_says_so_while_the_upstream_is_away_and_else_writes_go_through() {
    let mut redis = Redis::start();
    let nearside = with(&redis, |writing| writing.journal_max = 1 << 20);
    let mut client = nearside.connect();
    let large = "x".repeat(200_000);
    redis.kill();
    let mut taken = 0;
    let refused = loop {
        let said = client.text(&format!("SET users/{taken} {large}"));
        if said != "+OK\r\n" {
            break said;
        }
        taken += 1;
        assert!(taken < 20);
    };
    assert!(refused.starts_with("-ERR nearside: the write was not taken: the journal"), "{refused}");
    assert!(taken >= 3, "{taken}");
    redis.restart();
    eventually("all is flushed", || client.text("NEARSIDE SYNC") == "+OK\r\n");
    let mut direct = redis.connect();
    assert_eq!(direct.text("DBSIZE"), format!(":{taken}\r\n"));
    let huge = "x".repeat(900_000);
    for i in 0..3 {
        assert_eq!(client.text(&format!("SET users/huge{i} {huge}")), "+OK\r\n");
    }
    assert!(figure(&nearside, "dirty_bytes") <= 1 << 20);
}

#[test]
fn at_the_end_all_is_brought_upstream() {
    let redis = Redis::start();
    let mut nearside = slow(&redis);
    let mut client = nearside.connect();
    for i in 0..500 {
        assert_eq!(client.text(&format!("SET users/{i} v{i}")), "+OK\r\n");
    }
    drop(client);
    nearside.begin_stop(Stop::Drain);
    nearside.wait_stopped().unwrap();
    assert_eq!(redis.connect().text("DBSIZE"), ":500\r\n");
}

#[test]
fn a_second_signal_says_what_is_lost() {
    let mut redis = Redis::start();
    let mut program =
        Program::start(redis.port, &["--write", "back", "--ack", "memory", "--flush-after", "1h"]);
    assert_eq!(program.connect().text("SET users/1 x"), "+OK\r\n");
    redis.kill();
    program.terminate();
    program.wait_for("stopping");
    program.terminate();
    assert_eq!(program.ended().code(), Some(1), "{}", program.seen);
    assert!(program.seen.contains("these writes are lost"), "{}", program.seen);
}

#[test]
fn without_the_right_to_run_scripts_it_is_flushed_under_a_watch() {
    let redis = Redis::start();
    let filter = Filter::to(redis.address(), |request| {
        let name = request[0].to_ascii_lowercase();
        name.starts_with(b"eval")
            .then_some("NOPERM this user has no permissions to run the 'evalsha' command")
    });
    let nearside = Nearside::with(filter.address, |config| writing(config, |_| ()));
    let (mut client, mut direct) = (nearside.connect(), redis.connect());
    client.cmd("SET users/1 ours");
    client.cmd("SET users/2 ours EX 500");
    client.cmd("SET users/3 ours");
    direct.cmd("SET users/3 theirs");
    // More than are flushed at a time.
    let many: String = (0..300).map(|i| format!(" users/many{i} x")).collect();
    assert_eq!(client.text(&format!("MSET{many}")), "+OK\r\n");
    assert_eq!(client.text("NEARSIDE SYNC"), "+OK\r\n");
    assert_eq!(direct.text("DBSIZE"), ":303\r\n");
    assert_eq!(
        direct.text("MGET users/1 users/2 users/3"),
        "*3\r\n$4\r\nours\r\n$4\r\nours\r\n$6\r\ntheirs\r\n"
    );
    assert!(direct.text("TTL users/2").trim()[1..].parse::<i64>().unwrap() > 400);
    assert!(client.text("NEARSIDE CONFLICTS").contains("users/3"));
}

#[test]
fn another_database_and_another_user_find_what_is_dirty_flushed() {
    let redis = Redis::start();
    redis.connect().cmd("ACL SETUSER bob on >secret ~* &* +@all");
    let nearside = slow(&redis);
    let (mut client, mut direct) = (nearside.connect(), redis.connect());
    let (mut elsewhere, mut bob) = (nearside.connect(), nearside.connect());
    assert_eq!(elsewhere.text("SELECT 3"), "+OK\r\n");
    assert_eq!(bob.text("AUTH bob secret"), "+OK\r\n");
    client.cmd("SET users/1 ours");
    assert_eq!(elsewhere.value("users/1"), None);
    elsewhere.cmd("SET users/1 three");
    direct.cmd("SELECT 3");
    assert_eq!(direct.value("users/1").as_deref(), Some("three"), "it goes through");
    assert_eq!(bob.value("users/1").as_deref(), Some("ours"));
    assert_eq!(dirty(&nearside), 0);
    client.cmd("SET users/1 again");
    assert_eq!(elsewhere.text("MOVE users/1 0"), ":0\r\n");
    assert_eq!(dirty(&nearside), 0, "it may reach into the other database");
}

#[test]
fn who_comes_back_from_another_database_finds_what_is_dirty_flushed() {
    let redis = Redis::start();
    let nearside = slow(&redis);
    let (mut writer, mut client) = (nearside.connect(), nearside.connect());
    for said in [
        &["WATCH x", "SELECT 0", "GET users/1"][..],
        &["WATCH x", "MULTI", "SELECT 0", "GET users/1", "EXEC"],
    ] {
        assert_eq!(client.text("SELECT 3"), "+OK\r\n");
        assert_eq!(writer.text("SET users/1 old"), "+OK\r\n");
        assert_eq!(writer.text("NEARSIDE SYNC"), "+OK\r\n");
        // On a connection of its own by then.
        assert_eq!(client.text(said[0]), "+OK\r\n");
        assert_eq!(writer.text("SET users/1 new"), "+OK\r\n");
        client.send(&said[1..].iter().flat_map(|words| line(words)).collect::<Vec<_>>());
        let replies: Vec<_> = said[1..].iter().map(|_| client.reply()).collect();
        assert!(replies.last().unwrap().ends_with(b"$3\r\nnew\r\n"), "{said:?}: {replies:?}");
        client.cmd("UNWATCH");
    }
}

#[test]
fn in_front_of_a_cluster_what_is_dirty_goes_to_who_has_the_slot_by_then() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster_with(&cluster, |config| writing(config, |_| ()));
    let mut client = nearside.connect();
    let keys: Vec<_> = (0..60).map(|i| format!("users/{i}")).collect();
    for key in &keys {
        assert_eq!(client.text(&format!("SET {key} v{key}")), "+OK\r\n");
    }
    // Its slot moves while it is dirty, and while others of the slot are.
    let slot = key_slot(keys[0].as_bytes());
    let from = cluster.place_of(&keys[0]).unwrap();
    let to = (from + 1) % 3;
    cluster.migrate(slot, from, to);
    assert_eq!(client.text("NEARSIDE SYNC"), "+OK\r\n");
    for key in &keys {
        assert_eq!(cluster.owner_of(key).connect().value(key), Some(format!("v{key}")), "{key}");
        assert_eq!(client.value(key), Some(format!("v{key}")), "{key}");
    }
    assert_eq!(client.text(&format!("INCR {}", keys[1])).get(..4), Some("-ERR"));
    assert_eq!((dirty(&nearside), client.text("NEARSIDE CONFLICTS")), (0, "*0\r\n".into()));
}

#[test]
fn of_two_sidecars_that_are_dirty_on_one_key_the_first_to_flush_wins_and_the_other_knows() {
    let redis = Redis::start();
    let (one, other) = (slow(&redis), slow(&redis));
    let (mut a, mut b) = (one.connect(), other.connect());
    assert_eq!((a.text("SET users/1 a"), b.text("SET users/1 b")), ("+OK\r\n".into(), "+OK\r\n".into()));
    assert_eq!((a.value("users/1").as_deref(), b.value("users/1").as_deref()), (Some("a"), Some("b")));
    assert_eq!(a.text("NEARSIDE SYNC"), "+OK\r\n");
    // The other is told, flushes at once, and finds it.
    eventually("it is settled", || dirty(&other) == 0);
    assert_eq!(b.value("users/1").as_deref(), Some("a"));
    assert!(b.text("NEARSIDE CONFLICTS").contains("$4\r\nours\r\n$1\r\nb\r\n"));
    assert_eq!(a.text("NEARSIDE CONFLICTS"), "*0\r\n");
}

#[test]
fn what_the_journal_has_survives_the_process() {
    let redis = Redis::start();
    let journal = tempfile::tempdir().unwrap();
    let at = journal.path().to_str().unwrap();
    let start = || {
        Program::start(
            redis.port,
            &["--write", "back", "--ack", "disk", "--journal", at, "--flush-after", "1h"],
        )
    };
    let mut program = start();
    let mut client = Conn::to(([127, 0, 0, 1], program.port).into());
    assert_eq!(client.text("SET users/theirs x"), "+OK\r\n");
    assert_eq!(client.text("SET users/gone x"), "+OK\r\n");
    assert_eq!(client.text("NEARSIDE SYNC users/gone"), "+OK\r\n");
    assert_eq!(client.text("DEL users/gone"), ":1\r\n");
    for i in 0..50 {
        assert_eq!(client.text(&format!("SET users/{i} a")), "+OK\r\n");
        assert_eq!(client.text(&format!("SET users/{i} v{i} EX 500")), "+OK\r\n");
    }
    let mut direct = redis.connect();
    assert_eq!(direct.value("users/0"), None);
    program.child.kill().unwrap();
    program.child.wait().unwrap();
    // The tracking of the one that was killed would have told of it.
    direct.cmd("SET users/theirs theirs");
    let mut program = start();
    let mut client = Conn::to(([127, 0, 0, 1], program.port).into());
    eventually("all is flushed", || client.text("NEARSIDE SYNC") == "+OK\r\n");
    for i in 0..50 {
        assert_eq!(direct.value(&format!("users/{i}")), Some(format!("v{i}")));
        assert!(direct.text(&format!("TTL users/{i}")).trim()[1..].parse::<i64>().unwrap() > 400);
    }
    assert_eq!(direct.text("EXISTS users/gone"), ":0\r\n");
    assert_eq!(direct.value("users/theirs").as_deref(), Some("theirs"));
    program.child.kill().unwrap();
    program.child.wait().unwrap();
    let program = start();
    let mut client = Conn::to(([127, 0, 0, 1], program.port).into());
    let log = client.text("NEARSIDE CONFLICTS");
    assert!(log.starts_with("*1\r\n") && log.contains("users/theirs"), "it survives, too: {log}");
}
