//! `refill-on-write`: after a write, the next read through the same nearside is a hit.

use crate::support;

use std::time::Duration;

use support::scripted::Scripted;
use support::{Conn, Nearside, Redis, eventually, line};

fn refilling(redis: &Redis) -> Nearside {
    Nearside::with(redis.address(), |config| config.namespaces[0].refill_on_write = true)
}

#[test]
fn a_read_after_a_write_is_a_hit_and_stays_one() {
    let redis = Redis::start();
    let nearside = refilling(&redis);
    let mut client = nearside.connect();
    for i in 0..50 {
        let before = nearside.stat("hits");
        client.cmd(&format!("SET users/1 v{i}"));
        eventually("the write's own read", || nearside.is_cached("users/1"));
        assert_eq!(client.value("users/1"), Some(format!("v{i}")));
        assert_eq!(nearside.stat("hits"), before + 1);
    }
    // All echoes have come when a later announcement has.
    let mut direct = redis.connect();
    client.value("users/other");
    eventually("an entry", || nearside.is_cached("users/other"));
    direct.cmd("PUBLISH users/update other");
    eventually("its end", || !nearside.is_cached("users/other"));
    assert!(nearside.is_cached("users/1"), "the write's own announcement has voided it");
}

#[test]
fn what_was_in_use_is_read_again_with_any_command() {
    let redis = Redis::start();
    let nearside = refilling(&redis);
    let mut client = nearside.connect();
    client.cmd("RPUSH users/list a b");
    client.cmd("LRANGE users/list 0 -1");
    eventually("a hit", || {
        let before = nearside.stat("hits");
        client.cmd("LRANGE users/list 0 -1");
        nearside.stat("hits") > before
    });
    client.cmd("RPUSH users/list c");
    eventually("the write's own read", || nearside.is_cached("users/list"));
    let before = nearside.stat("hits");
    assert_eq!(client.text("LRANGE users/list 0 -1").matches('$').count(), 3);
    assert_eq!(nearside.stat("hits"), before + 1);
}

#[test]
fn another_writer_is_heard_all_the_same() {
    let redis = Redis::start();
    let nearside = refilling(&redis);
    let (mut client, mut direct) = (nearside.connect(), redis.connect());
    for i in 0..200 {
        client.send(&line(&format!("SET users/1 own{i}")));
        direct.cmd(&format!("SET users/1 foreign{i}"));
        client.reply();
        let truth = direct.value("users/1");
        eventually("the last write", || client.value("users/1") == truth);
        assert_eq!(client.value("users/1"), truth, "an older value came back");
    }
}

#[test]
fn keys_outside_such_namespaces_are_not_read() {
    let redis = Redis::start();
    let nearside = refilling(&redis);
    let mut client = nearside.connect();
    let before = nearside.stat("upstream_requests");
    client.cmd("SET items/1 v");
    client.cmd("SET other v");
    assert_eq!(nearside.stat("upstream_requests"), before + 2);
}

#[test]
fn reads_of_others_wait_for_the_write_s_own_read() {
    let redis = Redis::start();
    let nearside = refilling(&redis);
    let (mut writer, mut direct) = (nearside.connect(), redis.connect());
    let mut readers: Vec<_> = (0..20).map(|_| nearside.connect()).collect();
    writer.cmd("SET users/1 old");
    eventually("the write's own read", || nearside.is_cached("users/1"));
    let (gets, joined) = (redis.calls("get"), nearside.stat("shared_flights"));
    // The write is held back, and what is sent behind it.
    direct.cmd("CLIENT PAUSE 60000 WRITE");
    writer.send(&line("SET users/1 new"));
    eventually("the fence", || !nearside.is_cached("users/1"));
    readers.iter_mut().for_each(|reader| reader.send(&line("GET users/1")));
    eventually("all wait", || nearside.stat("shared_flights") == joined + 20);
    direct.cmd("CLIENT UNPAUSE");
    assert_eq!(writer.reply(), b"+OK\r\n");
    for reader in &mut readers {
        assert_eq!(reader.reply(), b"$3\r\nnew\r\n");
    }
    assert_eq!(redis.calls("get"), gets + 1, "one read answers all");
    assert!(nearside.is_cached("users/1"));
}

#[test]
fn a_pipeline_does_not_wait_for_its_own_refills() {
    let redis = Redis::start();
    let nearside = refilling(&redis);
    let (mut client, mut direct) = (nearside.connect(), redis.connect());
    client.cmd("GET users/1");
    direct.cmd("CLIENT PAUSE 60000 WRITE");
    let sent = nearside.stat("upstream_requests");
    let rounds = (0..10).map(|i| [line(&format!("SET users/1 v{i}")), line("GET users/1")].concat());
    client.send(&rounds.collect::<Vec<_>>().concat());
    eventually("all is sent", || nearside.stat("upstream_requests") >= sent + 20);
    direct.cmd("CLIENT UNPAUSE");
    for i in 0..10 {
        assert_eq!(client.reply(), b"+OK\r\n");
        assert_eq!(client.reply(), format!("$2\r\nv{i}\r\n").into_bytes());
    }
}

/// The upstream connection over which the requests of a client go.
fn link_of(client: &mut Conn, upstream: &Scripted) -> usize {
    client.send(&line("ECHO a"));
    let asked = upstream.expect("ECHO a");
    asked.reply("$1\r\na\r\n");
    client.reply();
    asked.connection
}

/// Two reads in one packet: the first waits for the refill, and the second must not be answered by what was before.
#[test]
fn a_pipeline_never_goes_back_while_a_read_waits_for_a_refill() {
    let upstream = Scripted::start();
    let nearside = Nearside::with(upstream.address, |config| {
        (config.workers, config.max_staleness) = (2, Duration::from_secs(30));
        config.namespaces[0].max_staleness = config.max_staleness;
        config.namespaces[0].refill_on_write = true;
    });
    let mut writer = nearside.connect();
    let link = link_of(&mut writer, &upstream);
    // It is known from now on that MGET may be said as well as GET.
    writer.send(&line("MGET users/9"));
    upstream.expect("MGET users/9").reply("*1\r\n$-1\r\n");
    upstream.expect("PTTL users/9").reply(":-2\r\n");
    writer.reply();
    let mut others = Vec::new();
    let mut reader = loop {
        let mut reader = nearside.connect();
        if link_of(&mut reader, &upstream) != link {
            break reader;
        }
        others.push(reader);
    };
    writer.send(&line("SET users/1 new"));
    let set = upstream.expect("SET users/1 new");
    let joined = nearside.stat("shared_flights");
    reader.send(&[line("GET users/1"), line("GET users/1"), line("MGET users/1"), line("PING")].concat());
    eventually("the first waits", || nearside.stat("shared_flights") == joined + 1);
    let (get, ttl) = (upstream.expect("get users/1"), upstream.expect("PTTL users/1"));
    assert_eq!((get.connection, upstream.waiting()), (link, 0), "nothing of the reader's was sent");
    set.reply("+OK\r\n");
    assert_eq!(writer.reply(), b"+OK\r\n");
    get.reply("$3\r\nnew\r\n");
    ttl.reply(":-1\r\n");
    for expected in ["$3\r\nnew\r\n", "$3\r\nnew\r\n", "*1\r\n$3\r\nnew\r\n", "+PONG\r\n"] {
        assert_eq!(reader.reply(), expected.as_bytes());
    }
    assert_eq!(upstream.waiting(), 0);
}
