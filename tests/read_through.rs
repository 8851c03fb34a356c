//! A read is fetched once, and then served from memory until something happens to its key.

mod support;

use support::{Nearside, Redis, eventually};

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
