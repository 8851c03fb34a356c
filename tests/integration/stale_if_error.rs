//! `stale-if-error`: beyond the bound, but only while the upstream is unreachable, and no longer than asked.

use crate::support;

use std::time::{Duration, Instant};

use support::{Nearside, Redis, eventually};

#[test]
fn cached_reads_outlive_the_upstream_for_a_while() {
    let mut redis = Redis::start();
    let nearside = Nearside::with(redis.address(), |config| config.stale_if_error = Duration::from_secs(60));
    let mut client = nearside.connect();
    redis.connect().cmd("SET users/1 v");
    assert_eq!(client.value("users/1").as_deref(), Some("v"));
    redis.kill();
    for _ in 0..20 {
        assert_eq!(client.value("users/1").as_deref(), Some("v"));
    }
    assert!(client.text("GET users/2").starts_with("-ERR nearside: upstream"), "what is not cached fails");
    assert!(client.text("SET users/1 w").starts_with("-ERR nearside: upstream"), "so does a write");
    assert!(nearside.stat("stale_hits") > 0);
    redis.restart();
    eventually("the restarted upstream's nil", || client.text("GET users/1") == "$-1\r\n");
    nearside.wait_ready();
    assert_eq!(client.value("users/1"), None, "nothing of before is served once the upstream is back");
}

#[test]
fn without_it_reads_fail_with_the_upstream() {
    let mut redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut client = nearside.connect();
    redis.connect().cmd("SET users/1 v");
    assert_eq!(client.value("users/1").as_deref(), Some("v"));
    redis.kill();
    eventually("the cause", || client.text("GET users/1").starts_with("-ERR nearside: upstream"));
}

#[test]
fn the_time_is_bounded() {
    let mut redis = Redis::start();
    let nearside =
        Nearside::with(redis.address(), |config| config.stale_if_error = Duration::from_millis(300));
    let mut client = nearside.connect();
    redis.connect().cmd("SET users/1 v");
    assert_eq!(client.value("users/1").as_deref(), Some("v"));
    let killed = Instant::now();
    redis.kill();
    eventually("the end of the grace", || client.text("GET users/1").starts_with("-ERR"));
    assert!(killed.elapsed() >= Duration::from_millis(300), "served until then");
}
