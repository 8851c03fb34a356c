use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::*;

mod barrier;
mod coverage;
mod echo;
mod evict;
mod group;
mod heard;
mod lease;
mod refresh;
mod register;
mod show;
mod users;
mod void;

const LINK: LinkId = LinkId(1);

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Option<Bytes>>>>);

impl Waiter for Told {
    fn served(self, reply: Bytes) {
        self.0.lock().push(Some(reply));
    }
    fn released(self) {
        self.0.lock().push(None);
    }
}

struct Fixture {
    cache: Arc<Cache<Told>>,
    feed: CoverageSlot,
    told: Told,
    now: Micros,
}

const SECOND: Micros = 1_000_000;
const FOREVER: Expiry = Expiry { expires: Micros::MAX, aged: false };

impl Fixture {
    fn new(max_bytes: usize) -> Self {
        Self::of(Cache::new(max_bytes, max_bytes / 4, 10 * SECOND))
    }

    fn of(cache: Cache<Told>) -> Self {
        let cache = Arc::new(cache);
        let feed = cache.coverages().take().unwrap();
        cache.coverages().arm(&feed, None, SECOND).unwrap();
        Self { cache, feed, told: Told::default(), now: SECOND }
    }

    fn cover(&self) -> Option<Cover> {
        let coverage = self.cache.coverages().current(&self.feed)?;
        Some(Cover { coverage, link: LINK, registers: false })
    }

    fn lookup(&self, key: &[u8]) -> (Lookup<Told>, Option<Vec<u8>>) {
        self.lookup_in(key, Bounds { max_staleness: SECOND, unreachable: false, group: 0 })
    }

    fn lookup_in(&self, key: &[u8], bounds: Bounds) -> (Lookup<Told>, Option<Vec<u8>>) {
        let name = EntryKey { key, ident: IdentId(0), command: 1, args: b"", by: By::ITSELF };
        let mut hit = None;
        let join = |_| Some(self.told.clone());
        let serve = |reply: &[u8]| hit = Some(reply.to_vec());
        (self.cache.lookup(&name, self.now, bounds, || self.cover(), join, serve), hit)
    }

    fn lease(&self, key: &[u8]) -> Lease<Told> {
        match self.lookup(key).0 {
            Lookup::Miss(lease) => lease,
            other => panic!("no lease but {}", kind(&other)),
        }
    }

    fn fill(&self, key: &[u8], value: &[u8]) {
        self.lease(key).fill(value, FOREVER, self.now, SECOND).unwrap();
    }

    fn hit(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.lookup(key).1
    }
}

fn kind(lookup: &Lookup<Told>) -> String {
    match lookup {
        Lookup::Hit => "hit".into(),
        Lookup::Miss(_) => "miss".into(),
        Lookup::Joined => "joined".into(),
        Lookup::Bypass(reason) => reason.name().into(),
    }
}

#[test]
fn a_filled_reply_is_served_until_it_is_invalidated() {
    let f = Fixture::new(1 << 20);
    f.fill(b"k", b"v1");
    assert_eq!(f.hit(b"k").as_deref(), Some(&b"v1"[..]));
    f.cache.invalidate(b"k", Reason::Update, f.now);
    assert_eq!(f.hit(b"k"), None);
    assert_eq!(f.cache.stats().bytes, 0);
}

#[test]
fn an_invalidation_between_request_and_reply_voids_the_fill() {
    let f = Fixture::new(1 << 20);
    let lease = f.lease(b"k");
    f.cache.invalidate(b"k", Reason::Update, f.now);
    assert_eq!(lease.fill(b"old", FOREVER, f.now, SECOND), Err(Reason::Voided));
    assert_eq!(f.hit(b"k"), None);
}

#[test]
fn the_end_of_the_coverage_between_request_and_reply_voids_the_fill() {
    let f = Fixture::new(1 << 20);
    let lease = f.lease(b"k");
    f.cache.coverages().end(&f.feed, f.now);
    assert_eq!(kind(&f.lookup(b"k").0), "no_coverage");
    f.cache.coverages().arm(&f.feed, None, f.now).unwrap();
    assert_eq!(lease.fill(b"old", FOREVER, f.now, SECOND), Err(Reason::Voided));
}

#[test]
fn a_fence_refuses_hits_leases_and_fills_until_it_is_dropped() {
    let f = Fixture::new(1 << 20);
    f.fill(b"k", b"old");
    let lease = f.lease(b"other");
    let fence = f.cache.fence([&b"k"[..], b"other", b"k"], Reason::Write, f.now);
    assert_eq!(kind(&f.lookup(b"k").0), "fenced");
    assert!(lease.fill(b"old", FOREVER, f.now, SECOND).is_err());
    drop(fence);
    assert_eq!(kind(&f.lookup(b"k").0), "miss");
}

#[test]
fn a_fence_over_all_keys_voids_everything_there_is_and_was_leased() {
    let f = Fixture::new(1 << 20);
    f.fill(b"k", b"old");
    let lease = f.lease(b"other");
    let fence = f.cache.fence_all(Reason::Write);
    assert_eq!(kind(&f.lookup(b"k").0), "fenced");
    assert!(lease.fill(b"old", FOREVER, f.now, SECOND).is_err());
    drop(fence);
    assert_eq!(kind(&f.lookup(b"k").0), "miss");
}

#[test]
fn a_flush_of_one_node_voids_what_was_read_from_it_alone() {
    let mut f = Fixture::new(1 << 20);
    let other = f.cache.coverages().take().unwrap();
    f.cache.coverages().arm(&other, None, SECOND).unwrap();
    f.fill(b"of one", b"v");
    let one = std::mem::replace(&mut f.feed, other);
    f.fill(b"of the other", b"v");
    let lease = f.lease(b"in flight");
    f.cache.flush_of(&one, Reason::Flushed);
    assert!(f.hit(b"of one").is_none());
    assert!(f.hit(b"of the other").is_some());
    lease.fill(b"v", FOREVER, f.now, SECOND).unwrap();
    f.cache.coverages().end(&one, f.now);
    assert!(f.hit(b"of the other").is_some(), "nor does the end of one");
    f.cache.flush_of(&f.feed, Reason::Flushed);
    assert!(f.hit(b"of the other").is_none() && f.hit(b"in flight").is_none());
}

#[test]
fn one_flight_serves_all_who_wait() {
    let f = Fixture::new(1 << 20);
    let lease = f.lease(b"k");
    for _ in 0..3 {
        assert_eq!(kind(&f.lookup(b"k").0), "joined");
    }
    lease.fill(b"v", FOREVER, f.now, SECOND).unwrap();
    assert_eq!(*f.told.0.lock(), vec![Some(Bytes::from_static(b"v")); 3]);
}

#[test]
fn waiters_are_released_when_the_flight_is_voided_dropped_or_too_old() {
    let mut f = Fixture::new(1 << 20);
    let dropped = f.lease(b"a");
    assert_eq!(kind(&f.lookup(b"a").0), "joined");
    drop(dropped);
    assert_eq!(f.told.0.lock().len(), 1);

    let voided = f.lease(b"b");
    assert_eq!(kind(&f.lookup(b"b").0), "joined");
    f.cache.invalidate(b"b", Reason::Update, f.now);
    assert_eq!(f.told.0.lock().len(), 2, "released at once, not when the stale reply comes");
    let newer = f.lease(b"b");
    assert!(voided.fill(b"old", FOREVER, f.now, SECOND).is_err());
    newer.fill(b"new", FOREVER, f.now, SECOND).unwrap();
    assert_eq!(f.hit(b"b").as_deref(), Some(&b"new"[..]));

    let slow = f.lease(b"c");
    assert_eq!(kind(&f.lookup(b"c").0), "joined");
    f.now += SECOND + 1;
    slow.fill(b"v", FOREVER, f.now, SECOND).unwrap();
    assert_eq!(*f.told.0.lock(), vec![None; 3]);
}

#[test]
fn nothing_is_served_beyond_the_proof() {
    let mut f = Fixture::new(1 << 20);
    f.fill(b"k", b"v");
    f.now += SECOND;
    assert!(f.hit(b"k").is_some(), "exactly the bound");
    f.now += 1;
    assert!(f.hit(b"k").is_none());
    f.cache.coverages().advance(&f.feed, f.now);
    assert!(f.hit(b"k").is_some(), "the entry is still good once it is proven again");
}

#[test]
fn an_unreachable_upstream_s_entries_are_served_for_the_grace_and_no_longer() {
    let mut f = Fixture::new(1 << 20);
    let away = Bounds { max_staleness: SECOND, unreachable: true, group: 0 };
    f.fill(b"k", b"v");
    f.fill(b"gone", b"v");
    f.cache.invalidate(b"gone", Reason::Update, f.now);
    f.cache.coverages().end(&f.feed, f.now);
    assert!(f.lookup_in(b"gone", away).1.is_none());
    f.now += 10 * SECOND;
    assert!(f.hit(b"k").is_none(), "not while the upstream can be asked");
    assert!(f.lookup_in(b"k", away).1.is_some());
    assert_eq!(f.cache.stats().stale_hits, 1);
    f.now += 1;
    assert!(f.lookup_in(b"k", away).1.is_none());
}

#[test]
fn nothing_of_before_is_served_once_the_coverage_is_armed_again() {
    let f = Fixture::new(1 << 20);
    f.fill(b"k", b"v");
    f.cache.coverages().end(&f.feed, f.now);
    f.cache.coverages().arm(&f.feed, None, f.now).unwrap();
    assert!(f.lookup_in(b"k", Bounds { max_staleness: SECOND, unreachable: true, group: 0 }).1.is_none());
}

#[test]
fn an_entry_ends_at_its_expiry() {
    let mut f = Fixture::new(1 << 20);
    let expires = f.now + 500;
    f.lease(b"k").fill(b"v", Expiry { expires, aged: false }, f.now, SECOND).unwrap();
    f.now = expires - 1;
    assert!(f.hit(b"k").is_some());
    f.now = expires;
    assert!(f.hit(b"k").is_none());
    assert_eq!(f.cache.stats().reasons[Reason::Expired as usize], 1);
}

#[test]
fn the_budget_is_kept_and_the_oldest_go_first() {
    let f = Fixture::new(200 << 10);
    for i in 0..1000 {
        f.fill(format!("key{i}").as_bytes(), &[b'x'; 1000]);
        assert!(f.cache.stats().bytes <= 200 << 10);
    }
    assert!(f.hit(b"key999").is_some());
    assert!(f.hit(b"key0").is_none());
    let stats = f.cache.stats();
    assert_eq!(stats.entries + stats.reasons[Reason::Evicted as usize], 1000);
}

#[test]
fn a_reply_larger_than_the_limit_is_not_kept() {
    let f = Fixture::new(1 << 20);
    let lease = f.lease(b"k");
    assert_eq!(lease.fill(&vec![0; (1 << 18) + 1], FOREVER, f.now, SECOND), Err(Reason::TooLarge));
}

#[test]
fn a_read_past_the_cache_drops_what_may_be_older() {
    let f = Fixture::new(1 << 20);
    f.fill(b"k", b"v");
    f.cache.note_bypass(b"k", LINK, f.now);
    assert!(f.hit(b"k").is_none(), "what the link read before is older");

    let later = f.lease(b"same");
    f.cache.note_bypass(b"same", LINK, f.now);
    later.fill(b"v", FOREVER, f.now, SECOND).unwrap();

    for past in [LinkId(2), NO_LINK] {
        let other = f.lease(b"other");
        f.cache.note_bypass(b"other", past, f.now);
        assert_eq!(other.fill(b"v", FOREVER, f.now, SECOND), Err(Reason::Voided));
    }
}

#[test]
fn void_entries_are_swept() {
    let f = Fixture::new(1 << 20);
    for i in 0..100 {
        f.fill(format!("key{i}").as_bytes(), b"v");
    }
    f.cache.flush(Reason::Flushed);
    assert!(f.cache.keys(10, f.now, |_, _| true).is_empty());
    f.fill(b"new", b"v");
    while f.cache.sweep(1, f.now) > 0 {}
    assert_eq!(f.cache.stats().entries, 1);
    assert!(f.hit(b"new").is_some());
}

#[test]
fn a_write_s_own_read_fills_if_no_other_write_is_under_way() {
    let f = Fixture::new(1 << 20);
    let name = EntryKey { key: b"k", ident: IdentId(0), command: 1, args: b"", by: By::ITSELF };
    let cover = || f.cover();
    let fence = f.cache.fence([&b"k"[..]], Reason::Write, f.now);
    assert_eq!(kind(&f.lookup(b"k").0), "fenced");
    let lease = f.cache.lease_behind_write(&name, f.now, cover).unwrap();
    assert_eq!(kind(&f.lookup(b"k").0), "joined");
    drop(fence);
    assert_eq!(kind(&f.lookup(b"k").0), "joined");
    lease.fill(b"v", FOREVER, f.now, SECOND).unwrap();
    assert!(f.hit(b"k").is_some());
    assert_eq!(*f.told.0.lock(), [Some(Bytes::from("v")), Some(Bytes::from("v"))]);

    let _write = f.cache.fence([&b"k"[..]], Reason::Write, f.now);
    let _lease = f.cache.lease_behind_write(&name, f.now, cover).unwrap();
    assert_eq!(kind(&f.lookup(b"k").0), "joined");
    let _another = f.cache.fence([&b"k"[..]], Reason::Write, f.now);
    assert_eq!(*f.told.0.lock().last().unwrap(), None, "what it reads may be older than the second write");
    assert_eq!(kind(&f.lookup(b"k").0), "fenced");
    drop(_another);
    drop(_write);

    let _first = f.cache.fence([&b"k"[..]], Reason::Write, f.now);
    let _second = f.cache.fence([&b"k"[..]], Reason::Write, f.now);
    assert!(f.cache.lease_behind_write(&name, f.now, cover).is_none());
}

#[test]
fn a_key_tells_its_history() {
    let f = Fixture::new(1 << 20);
    assert!(f.cache.describe(b"k", f.now).last_change.is_none());
    drop(f.lease(b"k"));
    f.fill(b"k", b"v");
    let described = f.cache.describe(b"k", f.now + 5);
    assert_eq!((described.replies[0].age, described.replies[0].stands), (5, true));
    f.cache.invalidate(b"k", Reason::Delete, f.now + 7_000);
    let described = f.cache.describe(b"k", f.now + 10_000);
    assert_eq!(described.last_change, Some((Reason::Delete, 3_000)));
    assert_eq!(described.last_bypass, Some((Reason::GivenUp, 10_000)));
}

/// A slow upstream has many reads under way: what each costs must not grow with how many there are.
#[test]
fn a_read_is_found_among_all_that_are_under_way() {
    const MANY: usize = 20_000;
    let f = Fixture::new(1 << 20);
    // All under one lock.
    let keys = (0u32..).map(u32::to_le_bytes).filter(|key| f.cache.place(key).shard == 0);
    let keys: Vec<_> = keys.take(MANY).collect();
    let begun = std::time::Instant::now();
    let leases: Vec<_> = keys.iter().map(|key| f.lease(key)).collect();
    for key in &keys {
        assert_eq!(kind(&f.lookup(key).0), "joined");
        f.cache.note_bypass(key, LINK, f.now);
    }
    keys.iter().for_each(|key| f.cache.heard(key, Reason::Tracking, f.now));
    drop(leases);
    // In a list that is searched it takes a minute.
    assert!(begun.elapsed() < std::time::Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(kind(&f.lookup(&keys[0]).0), "miss", "all are gone");
}

#[test]
fn of_one_key_no_more_is_fetched_at_a_time_than_may_be_kept() {
    let f = Fixture::new(1 << 20);
    let lookup = |i: u32| {
        let args = i.to_le_bytes();
        let name = EntryKey { key: b"k", ident: IdentId(0), command: 1, args: &args, by: By::ITSELF };
        let cover = || f.cover();
        let bounds = Bounds { max_staleness: SECOND, unreachable: false, group: 0 };
        f.cache.lookup(&name, f.now, bounds, cover, |_| None, |_| ())
    };
    let found: Vec<_> = (0..1000).map(lookup).collect();
    let misses = found.iter().filter(|found| matches!(found, Lookup::Miss(_))).count();
    assert_eq!(misses, flights::MOST_OF_KEY);
    assert_eq!(kind(&found[999]), "in_flight");
    drop(found);
    assert_eq!(kind(&lookup(0)), "miss");
}
