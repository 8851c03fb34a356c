//! What is heard of a key: echoes and refreshes.

use super::*;

#[test]
fn only_replies_that_were_read_are_refreshed() {
    let f = Fixture::new(1 << 20);
    f.fill(b"k", b"v");
    assert!(f.cache.heard_for_refresh(b"k", Reason::Update, f.now).is_empty());
    f.fill(b"k", b"v");
    f.hit(b"k").unwrap();
    assert_eq!(f.cache.heard_for_refresh(b"k", Reason::Update, f.now).len(), 1);
    assert!(f.hit(b"k").is_none());
}

#[test]
fn an_echo_does_not_void_what_was_read_after_its_write() {
    let f = Fixture::new(1 << 20);
    f.cache.expect_echo(b"k", LINK);
    let lease = f.lease(b"k");
    f.cache.heard(b"k", Reason::Tracking, f.now);
    f.cache.heard(b"k", Reason::Update, f.now);
    lease.fill(b"v", FOREVER, f.now, SECOND).unwrap();
    assert!(f.hit(b"k").is_some());
    f.cache.heard(b"k", Reason::Update, f.now);
    assert!(f.hit(b"k").is_none(), "the second message is somebody else's");

    f.cache.expect_echo(b"k", LINK);
    f.fill(b"k", b"v");
    f.cache.heard(b"k", Reason::Update, f.now);
    assert!(f.hit(b"k").is_some(), "the echo came after the fill");
    f.cache.heard(b"k", Reason::Tracking, f.now);
    assert!(f.hit(b"k").is_none());
}

#[test]
fn an_echo_voids_what_another_link_reads_and_what_a_fence_overtook() {
    let f = Fixture::new(1 << 20);
    f.cache.expect_echo(b"k", LinkId(2));
    let lease = f.lease(b"k");
    f.cache.heard(b"k", Reason::Update, f.now);
    assert!(lease.fill(b"v", FOREVER, f.now, SECOND).is_err());

    f.cache.expect_echo(b"k", LINK);
    let lease = f.lease(b"k");
    drop(f.cache.fence([&b"k"[..]], Reason::Write, f.now));
    assert!(lease.fill(b"v", FOREVER, f.now, SECOND).is_err());
}

#[test]
fn nothing_stays_deaf_when_an_echo_will_not_come() {
    let f = Fixture::new(1 << 20);
    for lose in [&|cache: &Cache<Told>| cache.no_echo(b"k", 1) as _, &|cache: &Cache<Told>| {
        cache.no_echoes_of(LINK, 1) as _
    }] as [&dyn Fn(&Cache<Told>); 2]
    {
        f.cache.expect_echo(b"k", LINK);
        f.fill(b"k", b"v");
        lose(&f.cache);
        assert!(f.hit(b"k").is_none());
        f.fill(b"k", b"v");
        f.cache.heard(b"k", Reason::Update, f.now);
        assert!(f.hit(b"k").is_none());
    }
    f.cache.expect_echo(b"k", LINK);
    f.cache.forget_echoes();
    f.fill(b"k", b"v");
    f.cache.heard(b"k", Reason::Update, f.now);
    assert!(f.hit(b"k").is_none());
}

#[test]
fn a_refresh_of_what_is_there_again_is_no_read() {
    let f = Fixture::new(1 << 20);
    f.fill(b"k", b"v");
    f.hit(b"k").unwrap();
    let wanted = f.cache.heard_for_refresh(b"k", Reason::Update, f.now).pop().unwrap();
    let cover = || f.cover();
    let refresh = || f.cache.lease_refresh(b"k", &wanted, f.now, SECOND, cover);
    let lease = refresh().unwrap();
    assert!(refresh().is_none(), "one is under way");
    assert!(lease.end_refresh().is_some(), "and is followed by another");
    lease.fill(b"w", FOREVER, f.now, SECOND).unwrap();
    let hits = f.cache.stats().hits;
    assert!(refresh().is_none(), "it is there again");
    assert_eq!(f.cache.stats().hits, hits);
    assert!(f.cache.heard_for_refresh(b"k", Reason::Update, f.now).is_empty(), "nobody has read it since");
    assert!(f.cache.lease_refresh(b"k", &wanted, f.now, 0, cover).is_none(), "it would never be served");
}
