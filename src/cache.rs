//! The near cache: replies under their keys, and the rules by which they may be served.
//!
//! It sees bytes, never RESP. Invariants:
//!
//! - **Fill race closed.** A [`Lease`] remembers its coverage and its key's invalidation generation, and a
//!   reply fills the cache only if both are unchanged. An invalidation bumps the generation even when
//!   the key is not cached. A write executes upstream before the leased read (the reply has the new value)
//!   or after it (the invalidation voids the lease, or drops the entry). Generations are striped: a
//!   collision costs one refill, never a stale entry.
//! - **Fences.** From [`Cache::fence`] until the [`Fence`] is dropped, its keys have no entry, no hit and no
//!   new lease but that of the write's own read, sent behind it. All this is done under the shard's lock, so no lookup sees half of it.
//! - **Barrier.** What was read before something that may have changed any key is not served until the upstream
//!   has told what that was. See [`barrier`].
//! - **Coverage.** An entry is served only while its coverage stands and its watermark is not older than
//!   `max-staleness`. See [`coverage`].
//! - **Single flight.** Lookups of a reply that is being fetched join its flight; the fill serves them all.
//!   Waiters are handed back (`released`) when the lease is voided or dropped: nobody is forgotten.
//! - **Echoes.** Our own announcements, coming back, do not void what was read after the write. See [`echo`].
//! - **Monotonic.** When a reply was read past the cache, older entries and older flights of its key go
//!   ([`Cache::note_bypass`]).
//! - Memory: the sum of the entries' costs stays within `max_bytes`, except for the one entry being added.
//!
//! `session` looks up, leases and fences; `upstream`'s replies fill; `feed` invalidates.
//!
//! Locks: one short mutex for each shard. Nothing of ours is called while one is held, except the two
//! closures of [`Cache::lookup`], which must not call back. Waiters are told after the lock is released.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::Mutex;

mod barrier;
mod coverage;
mod echo;
mod entry;
mod entry_key;
mod evict;
mod fence;
mod flights;
mod id;
mod lease;
mod reason;
mod refresh;
mod show;
mod store;
mod stripe;

pub use coverage::{CoverageId, CoverageSlot, Coverages, ValidUnder};
pub use entry_key::{By, EntryKey};
pub use fence::Fence;
pub use id::{IdentId, LinkId, NO_IDENT, NO_LINK};
pub use lease::{EntryKeyBuf, Expiry, Lease};
pub use reason::{Class, Reason};
pub use refresh::Wanted;
pub use show::{CachedReply, Description, Sample};

use barrier::Barrier;
use echo::Echo;
use entry::{Body, Head};
use flights::Flights;
use store::{Replies, Store};
use stripe::{Event, Place, Stripe};

/// Microseconds since the process' start.
pub type Micros = u64;

const SHARDS: usize = 64;
/// Of each shard.
const STRIPES: usize = 512;

/// The longest key under which replies are kept, in bytes.
pub const MAX_KEY: usize = u16::MAX as usize;

/// The longest rest of a request (what stands behind its key) under which a reply is kept, in bytes.
pub const MAX_ARGS: usize = 4096;

/// Whoever waits for another's flight.
pub trait Waiter: Send + 'static {
    /// The flight's reply.
    fn served(self, reply: Bytes);
    /// The flight was voided or given up: look up anew.
    fn released(self);
}

/// Under what conditions a lookup may serve.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How old the proof of an entry's freshness may be; 0 serves nothing.
    pub max_staleness: Micros,
    /// The upstream cannot be reached: what was good until it went may be served for `stale-if-error`.
    pub unreachable: bool,
}

/// What a lookup found.
pub enum Lookup<W: Waiter> {
    /// The entry was handed to `serve`.
    Hit,
    /// Not there: read it upstream and fill.
    Miss(Lease<W>),
    /// Another lookup fetches it already; the waiter will be told.
    Joined,
    /// Not there, and it must not be kept: read it upstream.
    Bypass(Reason),
}

/// What lookups and fills have come to so far. All are counts except `entries` and `bytes`.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub hits: u64,
    /// Of these, served beyond the bound because the upstream was unreachable.
    pub stale_hits: u64,
    pub misses: u64,
    pub joined: u64,
    pub fills: u64,
    pub entries: u64,
    pub bytes: u64,
    /// By [`Reason`]: bypasses, refused fills and dropped keys.
    pub reasons: Vec<u64>,
}

/// See the [module](self).
pub struct Cache<W: Waiter> {
    shards: Box<[Mutex<Shard<W>>]>,
    hasher: DefaultHashBuilder,
    coverages: Coverages,
    barrier: Barrier,
    /// Fences over all keys that are held now.
    fences_over_all: AtomicUsize,
    bytes: AtomicUsize,
    max_bytes: usize,
    max_value: usize,
    /// How long after the end of its coverage an entry is kept for when the upstream is unreachable.
    grace: Micros,
    /// When the cache was last asked; heartbeats run only while reads come in.
    last_lookup: AtomicU64,
    reasons: [AtomicU64; Reason::COUNT],
}

struct Shard<W> {
    store: Store,
    stripes: Box<[Stripe]>,
    flights: Flights<W>,
    next_flight: u64,
    echoes: HashTable<Echo>,
    hits: u64,
    stale_hits: u64,
    misses: u64,
    joined: u64,
    fills: u64,
}

/// What an entry is good for.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Fresh,
    /// Its coverage stands, but its proof is too old.
    Unproven,
    /// It was opened before the barrier, and the upstream has not yet told of all that was changed by then.
    Barred,
    /// Its coverage has ended, not longer ago than `stale-if-error`.
    Ended,
    Gone(Reason),
}

impl<W: Waiter> Cache<W> {
    /// A cache of at most `max_bytes`, for replies of at most `max_value` bytes, which keeps entries for
    /// `grace` after the end of their coverage.
    pub fn new(max_bytes: usize, max_value: usize, grace: Micros) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::new())).collect(),
            hasher: DefaultHashBuilder::default(),
            coverages: Coverages::default(),
            barrier: Barrier::default(),
            fences_over_all: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_bytes,
            max_value: max_value.min(max_bytes),
            grace,
            last_lookup: AtomicU64::new(0),
            reasons: [const { AtomicU64::new(0) }; Reason::COUNT],
        }
    }

    pub fn coverages(&self) -> &Coverages {
        &self.coverages
    }

    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Replies longer than this are not kept, in bytes.
    pub fn max_value(&self) -> usize {
        self.max_value
    }

    /// Serves `name` from the cache, joins its flight, or gives a lease to fetch it.
    ///
    /// `coverage` tells under which coverage, and on which link, a fill would come; `join` makes the waiter,
    /// or refuses to wait; it is told whether the flight comes behind a write that is not answered. A hit is within
    /// `bounds` at `now`.
    pub fn lookup(
        self: &Arc<Self>,
        name: &EntryKey<'_>,
        now: Micros,
        bounds: Bounds,
        coverage: impl FnOnce() -> Option<(CoverageId, LinkId)>,
        join: impl FnOnce(bool) -> Option<W>,
        serve: impl FnOnce(&[u8]),
    ) -> Lookup<W> {
        if bounds.max_staleness == 0 {
            return self.past(Reason::NeverServed);
        }
        let place = self.place(name.key);
        let mut shard = self.shards[place.shard].lock();
        let shard = &mut *shard;
        let mut gone = None;
        if let Some((head, body)) =
            shard.store.find(name, place.hash).filter(|(head, _)| head.allows(name.by))
        {
            let state = self.state(head, body, bounds.max_staleness, now);
            let stale = bounds.unreachable && matches!(state, State::Unproven | State::Ended);
            if state == State::Fresh || stale {
                head.touch();
                shard.hits += 1;
                shard.stale_hits += u64::from(stale);
                serve(body.reply(head));
                return Lookup::Hit;
            }
            match state {
                State::Unproven => {
                    self.count(Reason::Unproven);
                    shard.stripes[place.stripe].record(place, Reason::Unproven, now);
                }
                State::Barred => {
                    self.count(Reason::Barrier);
                    shard.stripes[place.stripe].record(place, Reason::Barrier, now);
                }
                State::Gone(reason) => gone = Some(reason),
                State::Fresh | State::Ended => {}
            }
        }
        if let Some(reason) = gone {
            let before = shard.store.bytes();
            shard.store.remove(name, place.hash);
            self.freed(before - shard.store.bytes());
            self.count(reason);
            shard.stripes[place.stripe].record(place, reason, now);
        }
        shard.misses += 1;
        self.miss(shard, name, place, now, coverage, join)
    }

    /// Joins the flight of a reply that is not there, or opens one. The caller holds the shard's lock.
    #[inline(never)]
    fn miss(
        self: &Arc<Self>,
        shard: &mut Shard<W>,
        name: &EntryKey<'_>,
        place: Place,
        now: Micros,
        coverage: impl FnOnce() -> Option<(CoverageId, LinkId)>,
        join: impl FnOnce(bool) -> Option<W>,
    ) -> Lookup<W> {
        let stripe = &mut shard.stripes[place.stripe];
        // The coverage is read before the fences over all: such a fence first counts itself and then ends
        // every coverage id. If this lookup does not see the fence, its coverage id is an older one, and
        // the lease is void.
        let coverage = coverage();
        let refused = if self.fences_over_all.load(Ordering::SeqCst) > 0 {
            Some(Reason::Fenced)
        } else if name.is_too_long() {
            Some(Reason::TooLong)
        } else {
            None
        };
        if let Some(reason) = refused {
            stripe.record(place, reason, now);
            return self.past(reason);
        }
        // Behind a fence, such a flight is the write's own read: it knows of the write, and of two writes none is
        // joined, for the second has voided the first one's.
        let (generation, fenced) = (stripe.generation, stripe.fences > 0);
        let mut of_key = 0;
        let joinable = shard.flights.of_hash(place.hash).inspect(|_| of_key += 1).find(|flight| {
            flight.generation == generation
                && self.coverages.stands(flight.coverage)
                && !self.is_barred(flight.coverage, || flight.opened)
                && flight.is(name)
        });
        // What is fetched by another command may be refused to this one. There is one flight of a reply at a time: of two,
        // the older reply could come last.
        if joinable.as_ref().is_some_and(|flight| !flight.name.borrow().by.has(name.by)) {
            return self.past(Reason::InFlight);
        }
        if let Some(flight) = joinable {
            let Some(waiter) = join(fenced) else { return self.past(Reason::InFlight) };
            flight.waiters.push(waiter);
            shard.joined += 1;
            return Lookup::Joined;
        }
        // Another's flight is covered on its own link; this one's is of no matter to it.
        let Some((coverage, link)) = coverage else {
            shard.stripes[place.stripe].record(place, Reason::NoCoverage, now);
            return self.past(Reason::NoCoverage);
        };
        if of_key >= flights::MOST_OF_KEY {
            shard.stripes[place.stripe].record(place, Reason::InFlight, now);
            return self.past(Reason::InFlight);
        }
        if fenced {
            shard.stripes[place.stripe].record(place, Reason::Fenced, now);
            return self.past(Reason::Fenced);
        }
        Lookup::Miss(self.open_flight(shard, name, place, (coverage, link), now))
    }

    /// The reply that may be served because the upstream has just proved unreachable, if there is one.
    pub fn stale(&self, name: &EntryKey<'_>, now: Micros) -> Option<Bytes> {
        let place = self.place(name.key);
        let mut shard = self.shards[place.shard].lock();
        let shard = &mut *shard;
        let (head, body) = shard.store.find(name, place.hash).filter(|(head, _)| head.allows(name.by))?;
        matches!(self.state(head, body, 0, now), State::Unproven | State::Ended).then(|| {
            shard.stale_hits += 1;
            Bytes::copy_from_slice(body.reply(head))
        })
    }

    /// The key changed, or may have: its entry goes, its flights are void, later fills of older reads too.
    pub fn invalidate(&self, key: &[u8], reason: Reason, now: Micros) {
        let place = self.place(key);
        let mut shard = self.shards[place.shard].lock();
        let (replies, waiters) = self.drop_key(&mut shard, place, key, reason, now);
        drop(shard);
        drop(replies);
        release(waiters);
    }

    /// All that is cached becomes void, and so do all leases.
    pub fn flush(&self, reason: Reason) {
        self.count(reason);
        self.coverages.flush();
    }

    /// A reply for `key` was read past the cache, on `link`, and is about to be delivered: whatever was read
    /// before it must not be served after it.
    ///
    /// An entry that is there now may be older, so it goes. A flight on the same link is not: the upstream
    /// answers a link in order, so its read executes later. A flight on another link may be older.
    pub fn note_bypass(&self, key: &[u8], link: LinkId, now: Micros) {
        let place = self.place(key);
        let mut shard = self.shards[place.shard].lock();
        let older =
            shard.flights.of_key(key, place.hash).any(|flight| flight.link != link || link == NO_LINK);
        let dropped = if older {
            self.drop_key(&mut shard, place, key, Reason::Bypass, now)
        } else {
            (self.drop_entries(&mut shard, place, key, Reason::Bypass, now), Vec::new())
        };
        drop(shard);
        release(dropped.1);
    }

    fn drop_key(
        &self,
        shard: &mut Shard<W>,
        place: Place,
        key: &[u8],
        reason: Reason,
        now: Micros,
    ) -> (Replies, Vec<W>) {
        let stripe = &mut shard.stripes[place.stripe];
        stripe.generation = stripe.generation.wrapping_add(1);
        let replies = self.drop_entries(shard, place, key, reason, now);
        let mut waiters = Vec::new();
        if !shard.flights.is_empty() {
            let flights = shard.flights.of_key(key, place.hash);
            flights.for_each(|flight| waiters.append(&mut flight.waiters));
        }
        (replies, waiters)
    }

    fn drop_entries(
        &self,
        shard: &mut Shard<W>,
        place: Place,
        key: &[u8],
        reason: Reason,
        now: Micros,
    ) -> Replies {
        let before = shard.store.bytes();
        let replies = shard.store.retain(key, place.hash, |_| false);
        if !replies.is_empty() {
            self.freed(before - shard.store.bytes());
            self.count(reason);
        }
        let stripe = &mut shard.stripes[place.stripe];
        if !replies.is_empty() || stripe.knows(place) {
            stripe.record(place, reason, now);
        }
        replies
    }

    /// Counts a read that went past the cache without asking it, or a reply that was not kept.
    pub fn count(&self, reason: Reason) {
        self.reasons[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that reads come in; once for each batch is enough.
    pub fn touch(&self, now: Micros) {
        /// So often is enough, and workers do not fight over the line.
        const STEP: Micros = 1_000;
        if now > self.last_lookup.load(Ordering::Relaxed) + STEP {
            self.last_lookup.store(now, Ordering::Relaxed);
        }
    }

    /// When [`Cache::touch`] was last called.
    pub fn last_lookup(&self) -> Micros {
        self.last_lookup.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn state(&self, head: &Head, body: &Body, max_staleness: Micros, now: Micros) -> State {
        let coverages = &self.coverages;
        if now >= head.expires {
            return State::Gone(if head.is_aged() { Reason::Aged } else { Reason::Expired });
        }
        let coverage = head.coverage();
        let unproven = now.saturating_sub(coverages.watermark(coverage));
        if coverages.stands(coverage) {
            if self.is_barred(coverage, || body.opened()) {
                // Nobody will ever tell whether it has changed: it is void.
                let is_told = coverages.is_told(coverage);
                return if is_told { State::Barred } else { State::Gone(Reason::Barrier) };
            }
            return if unproven <= max_staleness { State::Fresh } else { State::Unproven };
        }
        match self.grace > 0 && coverages.ended_within(coverage, self.grace, now) {
            true => State::Ended,
            false => State::Gone(Reason::CoverageEnded),
        }
    }

    fn past(&self, reason: Reason) -> Lookup<W> {
        self.count(reason);
        Lookup::Bypass(reason)
    }

    fn freed(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn place(&self, key: &[u8]) -> Place {
        let mut hasher = self.hasher.build_hasher();
        // Without the length, which the slice's own `Hash` adds: there is nothing behind the key.
        hasher.write(key);
        Place::of(hasher.finish())
    }
}

/// Hands waiters back; never under a lock.
fn release<W: Waiter>(waiters: Vec<W>) {
    if !waiters.is_empty() {
        waiters.into_iter().for_each(W::released);
    }
}

impl<W> Shard<W> {
    fn new() -> Self {
        Self {
            store: Store::new(),
            stripes: vec![Stripe::NEW; STRIPES].into(),
            flights: Flights::default(),
            next_flight: 0,
            echoes: HashTable::new(),
            hits: 0,
            stale_hits: 0,
            misses: 0,
            joined: 0,
            fills: 0,
        }
    }
}

#[cfg(test)]
mod tests;
