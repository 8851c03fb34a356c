//! How a lease ends, and who is told what.

use super::*;

#[test]
fn what_is_in_flight_on_a_link_is_let_go_but_for_what_is_spared() {
    let f = Fixture::new(1 << 20);
    let [stuck, spared] = [f.lease(b"stuck"), f.lease(b"spared")];
    f.lookup(b"stuck");
    f.lookup(b"spared");
    f.cache.let_go(LinkId(2), |_| false);
    assert!(f.told.0.lock().is_empty(), "another link's");
    f.cache.let_go(LINK, |name| name.key == b"spared");
    assert_eq!(*f.told.0.lock(), [None]);
    let again = f.lease(b"stuck");
    assert_eq!(stuck.fill(b"late", FOREVER, f.now, SECOND), Err(Reason::Voided));
    spared.fill(b"v", FOREVER, f.now, SECOND).unwrap();
    assert_eq!(f.told.0.lock()[1], Some(Bytes::from("v")));
    // Nor does it come to stand again when the key changes.
    f.cache.let_go(LINK, |_| false);
    f.cache.invalidate(b"stuck", Reason::Update, f.now);
    assert!(again.fill(b"late", FOREVER, f.now, SECOND).is_err());
}

#[test]
fn a_reply_that_is_not_kept_is_passed_on_to_those_who_wait_if_it_is_in_time() {
    let mut f = Fixture::new(1 << 20);
    let served = || Some(Bytes::from("v"));
    for (late, void, expected) in [(0, false, served()), (1, false, None), (0, true, None)] {
        f.told.0.lock().clear();
        let lease = f.lease(b"k");
        assert!(lease.stands());
        f.lookup(b"k");
        let opened = f.now;
        assert_eq!(lease.opened(), opened);
        f.now += SECOND + late;
        f.cache.coverages().advance(&f.feed, f.now);
        if void {
            f.cache.flush(Reason::Flushed);
            assert!(!lease.stands());
        }
        assert_eq!(lease.pass_on(b"v", Reason::TtlUnknown, f.now, SECOND), Reason::TtlUnknown);
        assert_eq!(*f.told.0.lock(), [expected]);
        assert!(f.hit(b"k").is_none());
    }
    assert_eq!(f.cache.stats().reasons[Reason::TtlUnknown as usize], 3);
}

#[test]
fn a_reply_of_the_largest_and_of_the_smallest_size_is_kept() {
    let f = Fixture::new(1 << 20);
    assert_eq!((f.cache.max_bytes(), f.cache.max_value()), (1 << 20, 1 << 18));
    f.fill(b"k", &vec![0; 1 << 18]);
    assert_eq!(f.hit(b"k").map(|reply| reply.len()), Some(1 << 18));
    f.fill(b"", b"");
    assert_eq!(f.hit(b"").as_deref(), Some(&b""[..]), "the smallest one too");
}

#[test]
fn the_earlier_of_two_ends_counts() {
    let life = Expiry { expires: 10, aged: true };
    for (end, expires, aged) in [(9, 9, false), (10, 10, true), (11, 10, true)] {
        let Expiry { expires: found, aged: by_age } = life.at_most(end);
        assert_eq!((found, by_age), (expires, aged));
    }
}

#[test]
fn a_write_s_own_read_is_not_leased_while_everything_is_fenced() {
    let f = Fixture::new(1 << 20);
    let name = EntryKey { key: b"k", ident: IdentId(0), command: 1, args: b"", by: By::ITSELF };
    let behind = || f.cache.lease_behind_write(&name, f.now, || f.cover()).is_some();
    assert!(!behind(), "no write is under way");
    let _write = f.cache.fence([&b"k"[..]], Reason::Write, f.now);
    let all = f.cache.fence_all(Reason::Write);
    assert!(!behind());
    drop(all);
    assert!(behind());
}

#[test]
fn what_an_unreachable_upstream_has_left_is_there_until_the_grace_is_over() {
    let mut f = Fixture::new(1 << 20);
    let name = EntryKey { key: b"k", ident: IdentId(0), command: 1, args: b"", by: By::ITSELF };
    f.fill(b"k", b"v");
    assert_eq!(f.cache.stale(&name, f.now + 1).as_deref(), Some(&b"v"[..]), "unproven");
    f.cache.coverages().end(&f.feed, f.now);
    f.now += 10 * SECOND;
    assert_eq!(f.cache.stale(&name, f.now).as_deref(), Some(&b"v"[..]), "ended");
    assert!(f.cache.stale(&name, f.now + 1).is_none());
    assert_eq!(f.cache.stats().stale_hits, 2);
}

#[test]
fn without_a_grace_nothing_outlives_its_coverage() {
    let mut f = Fixture::new(1 << 20);
    f.cache = Arc::new(Cache::new(1 << 20, 1 << 10, 0));
    f.feed = f.cache.coverages().take().unwrap();
    f.cache.coverages().arm(&f.feed, None, f.now).unwrap();
    f.fill(b"k", b"v");
    f.cache.coverages().end(&f.feed, f.now);
    assert!(f.lookup_in(b"k", Bounds { max_staleness: SECOND, unreachable: true, group: 0 }).1.is_none());
}
