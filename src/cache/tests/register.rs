//! Leases of keys that are registered with the feed before they are read.

use super::*;

impl Fixture {
    /// One lease whose key is still to be registered, asked for by `by`.
    fn unregistered(&self, by: By) -> Lease<Told> {
        let name = EntryKey { key: b"k", ident: IdentId(0), command: 1, args: b"", by };
        let bounds = Bounds { max_staleness: SECOND, unreachable: false, group: 0 };
        let cover = || self.cover().map(|cover| Cover { registers: true, ..cover });
        match self.cache.lookup(&name, self.now, bounds, cover, |_| None, |_| ()) {
            Lookup::Miss(lease) => lease,
            other => panic!("no lease but {}", kind(&other)),
        }
    }
}

#[test]
fn it_is_good_until_something_is_heard_of_its_key() {
    let f = Fixture::new(1 << 20);
    let mut lease = f.unregistered(By::ITSELF);
    assert!(!lease.is_registered() && lease.is_good());
    lease.note_registered();
    assert!(lease.is_registered() && lease.is_good());
    f.cache.heard(b"k", Reason::Tracking, f.now);
    assert!(!lease.is_good(), "the one report that there is has been heard");
    assert!(lease.fill(b"v", FOREVER, f.now, SECOND).is_err());
    let lease = f.unregistered(By::ITSELF);
    f.cache.coverages().end(&f.feed, f.now);
    assert!(!lease.is_good());
}

/// A report that comes before the echo may be of a change behind the registration, and has ended that.
#[test]
fn it_hears_while_echoes_of_its_key_are_awaited() {
    let f = Fixture::new(1 << 20);
    for reason in [Reason::Tracking, Reason::Update] {
        f.cache.expect_echo(b"k", LINK);
        f.cache.expect_echo(b"k", LINK);
        let deaf = f.lease(b"k");
        f.cache.heard(b"k", reason, f.now);
        assert!(deaf.is_good(), "what is read behind the announcement on a tracked link knows of it");
        drop(deaf);
        let lease = f.unregistered(By::ITSELF);
        f.cache.heard(b"k", reason, f.now);
        assert!(!lease.is_good());
        drop(lease);
        f.cache.forget_echoes();
    }
}

#[test]
fn one_that_came_to_nothing_is_renewed_twice_by_the_same_command() {
    let f = Fixture::new(1 << 20);
    let lease = f.unregistered(By::ITSELF);
    let wanted = lease.renew().expect("another in its place");
    drop(lease);
    let again = f.cache.lease_refresh(b"k", &wanted, f.now, SECOND, || f.cover()).expect("a lease");
    let wanted = again.renew().expect("as often as it may be followed");
    drop(again);
    let last = f.cache.lease_refresh(b"k", &wanted, f.now, SECOND, || f.cover()).expect("a lease");
    assert!(last.renew().is_none(), "not for ever");
    drop(last);
    assert!(f.unregistered(By::GET).renew().is_some());
    // Read anew it would be by `GET`, which this user may not be allowed to say.
    assert!(f.unregistered(By::MGET).renew().is_none());
}
