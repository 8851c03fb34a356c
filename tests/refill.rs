//! `refill-on-write`: after a write, the next read through the same nearside is a hit.

mod support;

use support::{Nearside, Redis, eventually, line};

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
