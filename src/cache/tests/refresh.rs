//! Refreshes: one at a time, overtaken ones are followed, and not for ever.

use super::*;

impl Fixture {
    /// One reply under `by` that was read, and is to be fetched anew.
    fn wanted(&self, by: By) -> Wanted {
        let name = EntryKey { key: b"k", ident: IdentId(0), command: 1, args: b"", by };
        let bounds = Bounds { max_staleness: SECOND, unreachable: false, group: 0 };
        let ask = || self.cache.lookup(&name, self.now, bounds, || self.cover(), |_| None, |_| ());
        let Lookup::Miss(lease) = ask() else { panic!("no lease") };
        lease.fill(b"v", FOREVER, self.now, SECOND).unwrap();
        assert!(matches!(ask(), Lookup::Hit));
        self.cache.heard_for_refresh(b"k", Reason::Update, self.now).pop().unwrap()
    }

    fn refresh(&self, wanted: &Wanted) -> Option<Lease<Told>> {
        self.cache.lease_refresh(b"k", wanted, self.now, SECOND, || self.cover())
    }
}

#[test]
fn an_overtaken_refresh_is_followed_and_not_for_ever() {
    let f = Fixture::new(1 << 20);
    let mut wanted = f.wanted(By::ITSELF);
    for _ in 0..3 {
        let lease = f.refresh(&wanted).unwrap();
        let overtaken = f.cache.heard_for_refresh(b"k", Reason::Update, f.now).pop().unwrap();
        assert!(overtaken.is(&wanted));
        wanted = overtaken;
        assert!(lease.fill(b"old", FOREVER, f.now, SECOND).is_err());
    }
    let _last = f.refresh(&wanted).unwrap();
    assert!(f.cache.heard_for_refresh(b"k", Reason::Update, f.now).is_empty());
}

#[test]
fn a_refresh_that_nothing_overtook_is_followed_by_none() {
    let f = Fixture::new(1 << 20);
    let wanted = f.wanted(By::ITSELF);
    let lease = f.refresh(&wanted).unwrap();
    assert!(lease.end_refresh().is_none());
    f.cache.expect_echo(b"k", LINK);
    drop(lease);
    let deaf = f.refresh(&wanted).unwrap();
    assert!(f.cache.heard_for_refresh(b"k", Reason::Update, f.now).is_empty(), "it knows of that update");
    deaf.fill(b"v", FOREVER, f.now, SECOND).unwrap();
}

#[test]
fn a_read_that_is_under_way_is_no_refresh_to_follow() {
    let f = Fixture::new(1 << 20);
    let wanted = f.wanted(By::ITSELF);
    let read = f.lease(b"k");
    assert!(f.refresh(&wanted).is_none(), "it is being fetched");
    assert!(read.end_refresh().is_none());
    assert!(f.cache.heard_for_refresh(b"k", Reason::Update, f.now).is_empty());
}

#[test]
fn a_refresh_is_by_what_is_known_to_be_allowed_still() {
    let f = Fixture::new(1 << 20);
    let by = |wanted: &Wanted| f.refresh(wanted).unwrap().name().by;
    let both = f.wanted(By::GET.and(By::MGET));
    assert_eq!(by(&both), By::GET.and(By::MGET));
    let itself = f.wanted(By::ITSELF);
    f.cache.flush(Reason::Users);
    assert_eq!(by(&both), By::GET, "users may have been changed");
    assert_eq!(by(&itself), By::ITSELF);
}

#[test]
fn one_reply_is_told_from_another() {
    let f = Fixture::new(1 << 20);
    let wanted = f.wanted(By::ITSELF);
    assert!(wanted.is(&wanted.clone()));
    let with = |change: fn(&mut Wanted)| {
        let mut other = wanted.clone();
        change(&mut other);
        other
    };
    assert!(!wanted.is(&with(|other| other.ident = IdentId(1))));
    assert!(!wanted.is(&with(|other| other.command = 2)));
    assert!(!wanted.is(&with(|other| other.args = b"x"[..].into())));
}
