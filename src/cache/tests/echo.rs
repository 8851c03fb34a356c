//! Echoes: each is counted once, and on the safe side.

use super::*;

#[test]
fn each_announcement_is_awaited_once() {
    let f = Fixture::new(1 << 20);
    f.cache.expect_echo(b"k", LinkId(2));
    f.cache.expect_echo(b"k", LINK);
    f.cache.expect_echo(b"k", LINK);
    f.cache.heard(b"k", Reason::Update, f.now);
    f.fill(b"k", b"v");
    f.cache.heard(b"k", Reason::Update, f.now);
    assert!(f.hit(b"k").is_some(), "the second of two was sent before the read");
    f.cache.heard(b"k", Reason::Update, f.now);
    assert!(f.hit(b"k").is_none());
}

#[test]
fn an_echo_that_came_before_the_read_is_not_awaited() {
    let f = Fixture::new(1 << 20);
    f.cache.expect_echo(b"k", LINK);
    f.cache.heard(b"k", Reason::Update, f.now);
    f.fill(b"k", b"v");
    f.cache.heard(b"k", Reason::Update, f.now);
    assert!(f.hit(b"k").is_none(), "that is somebody else's write");
}

#[test]
fn what_the_upstream_tells_is_no_echo() {
    let f = Fixture::new(1 << 20);
    f.cache.expect_echo(b"k", LINK);
    f.cache.heard(b"k", Reason::Tracking, f.now);
    f.fill(b"k", b"v");
    f.cache.heard(b"k", Reason::Update, f.now);
    assert!(f.hit(b"k").is_some());
}

#[test]
fn a_flight_that_was_void_before_its_echo_stays_void() {
    let f = Fixture::new(1 << 20);
    f.cache.expect_echo(b"k", LINK);
    let lease = f.lease(b"k");
    f.lookup(b"k");
    f.cache.heard(b"k", Reason::Update, f.now);
    assert!(f.told.0.lock().is_empty(), "its waiters go on waiting");
    f.cache.expect_echo(b"k", LINK);
    f.cache.invalidate(b"k", Reason::Write, f.now);
    f.cache.heard(b"k", Reason::Update, f.now);
    assert_eq!(*f.told.0.lock(), [None]);
    assert!(lease.fill(b"old", FOREVER, f.now, SECOND).is_err());
}

#[test]
fn the_echoes_of_other_keys_are_left_alone() {
    let f = Fixture::new(1 << 20);
    f.cache.expect_echo(b"a", LINK);
    f.cache.expect_echo(b"b", LINK);
    f.cache.no_echo(b"a", f.now);
    f.fill(b"b", b"v");
    f.cache.heard(b"b", Reason::Update, f.now);
    assert!(f.hit(b"b").is_some());
}

#[test]
fn only_so_many_announcements_are_awaited() {
    let f = Fixture::new(1 << 20);
    let of_one_shard = (0u32..).map(u32::to_le_bytes).filter(|key| f.cache.place(key).shard == 0);
    let keys: Vec<_> = of_one_shard.take(1025).collect();
    keys.iter().for_each(|key| f.cache.expect_echo(key, LINK));
    let deaf = keys.iter().filter(|key| {
        f.fill(&key[..], b"v");
        f.cache.heard(&key[..], Reason::Update, f.now);
        f.hit(&key[..]).is_some()
    });
    assert_eq!(deaf.count(), 1024);
}

#[test]
fn what_is_heard_counts_where_something_went() {
    let f = Fixture::new(1 << 20);
    f.cache.heard(b"k", Reason::Update, f.now);
    assert!(f.cache.describe(b"k", f.now).last_change.is_none());
    f.fill(b"k", b"v");
    f.cache.heard(b"k", Reason::Update, f.now);
    assert_eq!(f.cache.describe(b"k", f.now).last_change, Some((Reason::Update, 0)));
    assert_eq!(f.cache.stats().reasons[Reason::Update as usize], 1);
    f.cache.heard(b"k", Reason::Delete, f.now);
    assert_eq!(f.cache.stats().reasons[Reason::Delete as usize], 0);
}
