//! What one user, or one command, has got is not another's.

use super::*;

impl Fixture {
    fn name<'a>(key: &'a [u8], ident: u32, by: By) -> EntryKey<'a> {
        EntryKey { key, ident: IdentId(ident), command: 1, args: b"", by }
    }

    fn ask(&self, name: &EntryKey<'_>) -> Lookup<Told> {
        let bounds = Bounds { max_staleness: SECOND, unreachable: false, group: 0 };
        let join = |_| Some(self.told.clone());
        self.cache.lookup(name, self.now, bounds, || self.cover(), join, |_| ())
    }

    fn found(&self, name: &EntryKey<'_>) -> String {
        kind(&self.ask(name))
    }

    fn fill_as(&self, name: &EntryKey<'_>, also: By) {
        let Lookup::Miss(mut lease) = self.ask(name) else { panic!("no lease") };
        lease.share(also);
        lease.fill(b"v", FOREVER, self.now, SECOND).unwrap();
    }
}

#[test]
fn what_was_got_by_one_command_is_given_by_that_one_alone() {
    let f = Fixture::new(1 << 20);
    let [get, mget] = [By::GET, By::MGET].map(|by| Fixture::name(b"k", 0, by));
    let both = Fixture::name(b"k", 0, By::GET.and(By::MGET));
    f.fill_as(&get, By::ITSELF);
    assert_eq!([f.found(&get), f.found(&mget), f.found(&both)], ["hit", "miss", "miss"]);
    assert!(f.cache.stale(&mget, f.now + SECOND).is_none());
    // MGET goes there once; GET's knowledge is kept while its coverage stands.
    f.fill_as(&mget, By::MGET);
    assert_eq!([f.found(&get), f.found(&mget), f.found(&both)], ["hit", "hit", "hit"]);
    f.cache.flush(Reason::Users);
    f.fill_as(&mget, By::ITSELF);
    assert_eq!([f.found(&mget), f.found(&get)], ["hit", "miss"], "users were changed since");
    // Said by the one, and seen to be allowed to the other as well.
    f.fill_as(&Fixture::name(b"both", 0, By::MGET), By::GET);
    assert_eq!(f.found(&Fixture::name(b"both", 0, By::GET)), "hit");
}

#[test]
fn a_flight_of_another_command_is_neither_joined_nor_doubled() {
    let f = Fixture::new(1 << 20);
    let [get, mget] = [By::GET, By::MGET].map(|by| Fixture::name(b"k", 0, by));
    let lease = f.ask(&get);
    assert_eq!([f.found(&mget), f.found(&get)], ["in_flight", "joined"]);
    drop(lease);
    assert_eq!(f.found(&mget), "miss");
}

#[test]
fn a_reply_that_may_not_be_had_by_its_name_is_neither_refreshed_nor_audited() {
    let f = Fixture::new(1 << 20);
    let mget = Fixture::name(b"k", 0, By::MGET);
    f.fill_as(&mget, By::ITSELF);
    assert_eq!(f.found(&mget), "hit");
    assert!(f.cache.sample(0, f.now).is_none());
    assert!(f.cache.heard_for_refresh(b"k", Reason::Update, f.now).is_empty());
    assert!(By::ITSELF.is_by_name() && By::GET.is_by_name() && By::GET.and(By::MGET).is_by_name());
}

#[test]
fn nothing_is_kept_under_a_name_that_is_too_long_or_of_nobody() {
    let f = Fixture::new(8 << 20);
    let long = vec![b'k'; MAX_KEY + 1];
    for (key, args, ident, expected) in [
        (&long[..MAX_KEY], &long[..MAX_ARGS], 0, "miss"),
        (&long, b"", 0, "too_long"),
        (b"k", &long[..MAX_ARGS + 1], 0, "too_long"),
        (b"k", b"", NO_IDENT.0, "too_long"),
    ] {
        let name = EntryKey { args, ..Fixture::name(key, ident, By::ITSELF) };
        assert_eq!(f.found(&name), expected, "{} {} {ident}", key.len(), args.len());
        let fence = f.cache.fence([key], Reason::Write, f.now);
        let behind = f.cache.lease_behind_write(&name, f.now, || f.cover());
        assert_eq!(behind.is_some(), expected == "miss");
        drop((fence, behind));
        if expected == "miss" {
            f.fill_as(&name, By::ITSELF);
            assert_eq!(f.found(&name), "hit");
        }
    }
}

#[test]
fn what_one_user_has_and_fetches_is_forgotten_and_no_other_s() {
    let f = Fixture::new(1 << 20);
    let names = |key, ident| Fixture::name(key, ident, By::ITSELF);
    for forget in [
        &|cache: &Cache<Told>| cache.forget_of(b"kept", Reason::Users, 1, |ident| ident == IdentId(1)),
        &|cache: &Cache<Told>| cache.forget_all_of(Reason::Users, 1, |ident| ident == IdentId(1)),
    ] as [&dyn Fn(&Cache<Told>); 2]
    {
        f.fill_as(&names(b"kept", 1), By::ITSELF);
        f.fill_as(&names(b"kept", 2), By::ITSELF);
        let [mine, other] = [1, 2].map(|ident| EntryKey { command: 2, ..names(b"kept", ident) });
        let [Lookup::Miss(mine_lease), Lookup::Miss(other_lease)] = [&mine, &other].map(|name| f.ask(name))
        else {
            panic!("no leases")
        };
        assert_eq!([f.found(&mine), f.found(&other)], ["joined", "joined"]);
        let (bytes, counted) = (f.cache.stats().bytes, f.cache.stats().reasons[Reason::Users as usize]);
        forget(&f.cache);
        assert_eq!(*std::mem::take(&mut *f.told.0.lock()), [None], "its waiter looks up anew");
        assert_eq!(f.cache.stats().bytes * 2, bytes);
        assert_eq!(f.cache.stats().reasons[Reason::Users as usize], counted + 1);
        assert_eq!([f.found(&names(b"kept", 2)), f.found(&other)], ["hit", "joined"]);
        assert_eq!(f.cache.describe(b"kept", 1).last_change.map(|(reason, _)| reason), Some(Reason::Users));
        assert_eq!(mine_lease.fill(b"old", FOREVER, f.now, SECOND), Err(Reason::Voided));
        other_lease.fill(b"v", FOREVER, f.now, SECOND).unwrap();
        f.told.0.lock().clear();
        f.cache.invalidate(b"kept", Reason::Update, f.now);
        forget(&f.cache);
        let counts = f.cache.stats().reasons[Reason::Users as usize];
        assert_eq!(counts, counted + 1, "there was nothing to forget");
    }
}
