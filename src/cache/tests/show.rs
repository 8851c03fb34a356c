//! What the cache tells about itself is true.

use super::*;

/// Two keys of one stripe whose histories are told apart.
fn neighbours(f: &Fixture) -> [[u8; 4]; 2] {
    let first = 0u32.to_le_bytes();
    let at = f.cache.place(&first);
    let beside = (1u32..).map(u32::to_le_bytes).find(|key| {
        let place = f.cache.place(key);
        (place.shard, place.stripe) == (at.shard, at.stripe) && place.tag != at.tag
    });
    [first, beside.unwrap()]
}

#[test]
fn a_key_does_not_tell_its_neighbour_s_history() {
    let f = Fixture::new(1 << 20);
    let [one, other] = neighbours(&f);
    f.fill(&one, b"v");
    assert!(f.cache.describe(&one, f.now).last_change.is_some());
    assert!(f.cache.describe(&other, f.now).last_change.is_none());
    // What is not there and not known leaves the neighbour's history alone.
    f.cache.invalidate(&other, Reason::Update, f.now);
    assert_eq!(f.cache.describe(&one, f.now).last_change, Some((Reason::Filled, 0)));
    f.cache.invalidate(&one, Reason::Update, f.now);
    f.cache.invalidate(&one, Reason::Delete, f.now);
    assert_eq!(f.cache.describe(&one, f.now).last_change, Some((Reason::Delete, 0)), "the later one");
}

#[test]
fn the_keys_of_a_shard_have_many_stripes() {
    let f = Fixture::new(1 << 20);
    let places = (0u32..20_000).map(|key| f.cache.place(&key.to_le_bytes())).filter(|place| place.shard == 7);
    assert!(places.map(|place| place.stripe).collect::<std::collections::HashSet<_>>().len() > 100);
}

#[test]
fn a_key_tells_whether_a_write_is_under_way() {
    let f = Fixture::new(1 << 20);
    let fenced = || f.cache.describe(b"k", f.now).fenced;
    assert!(!fenced());
    let one = f.cache.fence([&b"k"[..]], Reason::Write, f.now);
    assert!(fenced());
    drop(one);
    let all = f.cache.fence_all(Reason::Write);
    assert!(fenced());
    drop(all);
    assert!(!fenced());
}

#[test]
fn an_entry_tells_its_size_its_end_and_why_it_went() {
    let mut f = Fixture::new(1 << 20);
    let expires = f.now + 500;
    f.lease(b"k").fill(b"reply", Expiry { expires, aged: true }, f.now, SECOND).unwrap();
    let shown = f.cache.describe(b"k", f.now + 100).replies.remove(0);
    assert_eq!((shown.bytes, shown.left, shown.proven), (5, Some(400), 100));
    assert!(shown.tracked && !shown.read);
    f.now = expires;
    assert!(f.hit(b"k").is_none());
    let reasons = f.cache.stats().reasons;
    assert_eq!((reasons[Reason::Aged as usize], reasons[Reason::Expired as usize]), (1, 0));
}

#[test]
fn keys_are_listed_once_up_to_the_limit_and_as_wanted() {
    let f = Fixture::new(1 << 20);
    for (command, key) in [(1, b"a"), (2, b"a"), (1, b"b"), (1, b"c")] {
        let name = EntryKey { key, ident: IdentId(7), command, args: b"", by: By::ITSELF };
        let bounds = Bounds { max_staleness: SECOND, unreachable: false, group: 0 };
        match f.cache.lookup(&name, f.now, bounds, || f.cover(), |_| None, |_| ()) {
            Lookup::Miss(lease) => lease.fill(b"v", FOREVER, f.now, SECOND).unwrap(),
            other => panic!("{}", kind(&other)),
        }
    }
    let listed = |limit, wanted: &dyn Fn(&[u8]) -> bool| {
        let mut keys = f.cache.keys(limit, f.now, |key, ident| ident == IdentId(7) && wanted(key));
        keys.sort();
        keys.concat()
    };
    assert_eq!(listed(9, &|_| true), b"abc");
    assert_eq!(listed(2, &|_| true).len(), 2);
    assert_eq!(listed(9, &|key| key != b"b"), b"ac");
}

#[test]
fn a_sample_is_found_wherever_one_is_and_can_be_served() {
    let mut f = Fixture::new(1 << 20);
    assert!(f.cache.sample(0, f.now).is_none());
    f.fill(b"only", b"v");
    for seed in (0..64).chain([u64::MAX, 1 << 63, 7 << 32]) {
        let sample = f.cache.sample(seed, f.now).unwrap();
        assert_eq!(
            (sample.name.borrow().key, &*sample.reply, sample.opened),
            (&b"only"[..], &b"v"[..], f.now)
        );
    }
    // The upper half of the seed leads to each entry of a shard.
    let shard = f.cache.place(b"only").shard;
    let more = (0u32..).map(u32::to_le_bytes).filter(|key| f.cache.place(key).shard == shard).take(3);
    more.for_each(|key| f.fill(&key, b"v"));
    let seeds = (0..4).map(|i| (i << 32) | shard as u64);
    let found: std::collections::HashSet<_> =
        seeds.map(|seed| f.cache.sample(seed, f.now).unwrap().name.borrow().key.to_vec()).collect();
    assert_eq!(found.len(), 4);
    // And the lower half to each shard.
    (0..200u8).for_each(|key| f.fill(&[key], b"v"));
    let leads = |seed: u64| f.cache.place(f.cache.sample(seed, f.now).unwrap().name.borrow().key).shard;
    assert!((0..64).filter(|seed| leads(*seed) == *seed as usize).count() > 32);
    f.now += 2 * SECOND;
    assert!(f.cache.sample(0, f.now).is_some(), "it may be proven again");
    f.cache.flush(Reason::Flushed);
    assert!(f.cache.sample(0, f.now).is_none());
}

#[test]
fn an_entry_is_fresh_unproven_or_gone() {
    let mut f = Fixture::new(1 << 20);
    let name = EntryKey { key: b"k", ident: IdentId(0), command: 1, args: b"", by: By::ITSELF };
    f.fill(b"k", b"v");
    let opened = f.now;
    let fresh = |f: &Fixture, opened| f.cache.is_fresh(&name, opened, SECOND, f.now);
    assert_eq!((fresh(&f, opened), fresh(&f, opened - 1)), (Some(true), None), "another was filled since");
    let another = EntryKey { command: 2, ..name };
    assert_eq!(f.cache.is_fresh(&another, opened, SECOND, f.now), None);
    f.now += SECOND + 1;
    assert_eq!(fresh(&f, opened), Some(false));
    f.cache.coverages().end(&f.feed, f.now);
    assert_eq!(fresh(&f, opened), None);
}

#[test]
fn everything_is_counted() {
    let f = Fixture::new(1 << 20);
    for key in 0..20u8 {
        let lease = f.lease(&[key]);
        f.lookup(&[key]);
        f.lookup(&[key]);
        lease.fill(b"12345", FOREVER, f.now, SECOND).unwrap();
        f.hit(&[key]).unwrap();
        f.hit(&[key]).unwrap();
    }
    let stats = f.cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.joined), (40, 60, 40));
    assert_eq!((stats.fills, stats.entries), (20, 20));
    // A head and a slot of 64 bytes, a number in the index, and six bytes from the allocator's class of sixteen.
    assert_eq!(stats.bytes, 20 * (64 + 8 + 16));
}

#[test]
fn reads_are_noted_now_and_then() {
    let f = Fixture::new(1 << 20);
    for (now, noted) in [(1_000, 0), (1_001, 1_001), (2_001, 1_001), (2_002, 2_002), (500, 2_002)] {
        f.cache.touch(now);
        assert_eq!(f.cache.last_lookup(), noted, "{now}");
    }
}

#[test]
fn reasons_are_classed_and_explained() {
    for reason in Reason::ALL {
        let class = match reason as u8 {
            r if r <= Reason::Barrier as u8 => Class::Bypass,
            r if r <= Reason::GivenUp as u8 => Class::Unkept,
            _ => Class::Change,
        };
        assert_eq!(reason.class(), class, "{reason:?}");
    }
    let sentences = Reason::ALL.map(Reason::explain);
    assert_eq!(std::collections::HashSet::from(sentences).len(), Reason::COUNT);
}
