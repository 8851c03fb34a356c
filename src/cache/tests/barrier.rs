//! What may have been changed by nobody knows what is not served until the upstream has told.

use super::*;

#[test]
fn what_was_opened_before_is_held_back_until_the_upstream_has_told() {
    let mut f = Fixture::new(1 << 20);
    f.fill(b"k", b"v");
    f.now += 10;
    f.cache.raise_barrier(f.now, false);
    assert_eq!(f.lookup(b"k").1, None);
    assert_eq!(f.cache.stats().reasons[Reason::Barrier as usize], 1);
    assert_eq!(f.cache.describe(b"k", f.now).last_bypass.map(|(reason, _)| reason), Some(Reason::GivenUp));
    // Up to the barrier is not behind it.
    f.cache.coverages().hear(&f.feed, f.now);
    assert!(f.hit(b"k").is_none());
    f.cache.coverages().hear(&f.feed, f.now + 1);
    assert!(f.hit(b"k").is_some());
}

#[test]
fn what_was_opened_behind_it_knows_of_it() {
    let mut f = Fixture::new(1 << 20);
    f.now += 10;
    f.cache.raise_barrier(f.now, false);
    f.fill(b"same", b"v");
    assert!(f.hit(b"same").is_none(), "it may have been read before");
    f.now += 1;
    f.fill(b"later", b"v");
    assert!(f.hit(b"later").is_some());
}

#[test]
fn a_flight_of_before_is_not_joined_and_does_not_replace_what_came_later() {
    let mut f = Fixture::new(1 << 20);
    let older = f.lease(b"k");
    assert_eq!(kind(&f.lookup(b"k").0), "joined");
    f.now += 10;
    f.cache.raise_barrier(f.now, false);
    f.now += 1;
    let newer = f.lease(b"k");
    assert_eq!(kind(&f.lookup(b"k").0), "joined", "the newer one");
    newer.fill(b"new", FOREVER, f.now, SECOND).unwrap();
    assert_eq!(older.fill(b"old", FOREVER, f.now, SECOND), Err(Reason::Voided));
    assert_eq!(*f.told.0.lock(), [Some(Bytes::from("new")), None]);
}

#[test]
fn the_later_of_two_flights_replaces_what_the_older_one_filled() {
    let mut f = Fixture::new(1 << 20);
    let older = f.lease(b"k");
    f.now += 10;
    f.cache.raise_barrier(f.now, false);
    f.now += 1;
    let newer = f.lease(b"k");
    older.fill(b"old", FOREVER, f.now, SECOND).unwrap();
    newer.fill(b"new", FOREVER, f.now, SECOND).unwrap();
    assert_eq!(f.hit(b"k").as_deref(), Some(&b"new"[..]));
}

#[test]
fn of_what_the_upstream_does_not_tell_nothing_of_before_is_served_again() {
    let mut f = Fixture::new(1 << 20);
    let coverages = f.cache.coverages();
    let (parent, untold) = (coverages.current(&f.feed).unwrap(), coverages.take().unwrap());
    coverages.arm_untold(&untold, parent).unwrap();
    let feed = std::mem::replace(&mut f.feed, untold);
    f.fill(b"k", b"v");
    f.now += 10;
    f.cache.raise_barrier(f.now, false);
    f.cache.coverages().advance(&feed, f.now + 5);
    assert!(f.hit(b"k").is_none());
    assert_eq!(f.cache.stats().entries, 0);
}

#[test]
fn the_newest_barrier_counts_and_is_told_once() {
    let f = Fixture::new(1 << 20);
    let mut told = f.cache.barriers();
    assert_eq!((f.cache.barrier(), f.cache.barrier_to_look_behind()), (0, 0));
    f.cache.raise_barrier(20, false);
    assert_eq!(*told.borrow_and_update(), 20);
    for not_newer in [20, 10] {
        f.cache.raise_barrier(not_newer, true);
        assert!(!told.has_changed().unwrap(), "{not_newer}");
    }
    assert_eq!((f.cache.barrier(), f.cache.barrier_to_look_behind()), (20, 20));
    f.cache.raise_barrier(30, false);
    assert_eq!(*told.borrow_and_update(), 30);
    assert_eq!((f.cache.barrier(), f.cache.barrier_to_look_behind()), (30, 20));
}
