//! The cache itself: its shards, what they share, and what an entry in them is good for.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use hashbrown::DefaultHashBuilder;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::barrier::Barrier;
use super::budget::Budget;
use super::coverage::{Coverages, Micros};
use super::echo::Echoes;
use super::entry::{Body, Head};
use super::flights::{Flights, Waiter};
use super::group::{Groups, PerGroup, Tally};
use super::reason::Reason;
use super::store::Store;
use super::stripe::{Place, SHARDS, STRIPES, Stripe};

/// See the [room](super).
pub struct Cache<W: Waiter> {
    pub(super) shards: Box<[Mutex<Shard<W>>]>,
    pub(super) groups: Groups,
    hasher: DefaultHashBuilder,
    pub(super) coverages: Coverages,
    pub(super) barrier: Barrier,
    /// Fences over all keys that are held now.
    pub(super) fences_over_all: AtomicUsize,
    pub(super) bytes: AtomicUsize,
    pub(super) budget: Budget,
    /// How long after the end of its coverage an entry is kept for when the upstream is unreachable.
    grace: AtomicU64,
    /// When the cache was last asked; heartbeats run only while reads come in.
    pub(super) last_lookup: AtomicU64,
    pub(super) reasons: [AtomicU64; Reason::COUNT],
}

pub(super) struct Shard<W> {
    pub(super) store: Store,
    pub(super) stripes: Box<[Stripe]>,
    pub(super) flights: Flights<W>,
    pub(super) next_flight: u64,
    pub(super) echoes: Echoes,
    pub(super) tallies: PerGroup<Tally>,
    pub(super) joined: u64,
    pub(super) fills: u64,
}

/// What an entry is good for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum State {
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
        Self::of_groups(max_bytes, max_value, grace, [])
    }

    /// Likewise, which counts apart of the keys that begin with each of `prefixes`; of these none begins with another.
    pub fn of_groups<'p>(
        max_bytes: usize,
        max_value: usize,
        grace: Micros,
        prefixes: impl IntoIterator<Item = &'p [u8]>,
    ) -> Self {
        let groups = Groups::new(prefixes);
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::new(&groups))).collect(),
            groups,
            hasher: DefaultHashBuilder::default(),
            coverages: Coverages::default(),
            barrier: Barrier::default(),
            fences_over_all: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            budget: Budget::new(max_bytes, max_value),
            grace: grace.into(),
            last_lookup: AtomicU64::new(0),
            reasons: [const { AtomicU64::new(0) }; Reason::COUNT],
        }
    }

    pub fn coverages(&self) -> &Coverages {
        &self.coverages
    }

    pub fn max_bytes(&self) -> usize {
        self.budget.bytes()
    }

    /// Replies longer than this are not kept, in bytes.
    pub fn max_value(&self) -> usize {
        self.budget.value()
    }

    /// From now on these are what [`Cache::new`] was told. If it may hold less than it does, it comes down to that
    /// [bit by bit](Cache::shrink).
    pub fn change(&self, max_bytes: usize, max_value: usize, grace: Micros) {
        self.budget.change(max_bytes, max_value);
        self.grace.store(grace, Ordering::Relaxed);
    }

    /// Something that may have changed keys which cannot be named was answered at `now`, and its reply is about to be
    /// delivered. `look` if it may have been anything, `SWAPDB` under another name too.
    pub fn raise_barrier(&self, now: Micros, look: bool) {
        self.barrier.raise(now, look);
    }

    /// The newest barrier; 0 if there was none yet.
    pub fn barrier(&self) -> Micros {
        self.barrier.at()
    }

    /// The newest barrier behind which it must be looked what nothing but `INFO` tells.
    pub fn barrier_to_look_behind(&self) -> Micros {
        self.barrier.to_look_behind()
    }

    /// Tells of new barriers, of the newest of several.
    pub fn barriers(&self) -> watch::Receiver<Micros> {
        self.barrier.told()
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
    pub(super) fn state(&self, head: &Head, body: &Body, max_staleness: Micros, now: Micros) -> State {
        let coverages = &self.coverages;
        if now >= head.expires {
            return State::Gone(if head.is_aged() { Reason::Aged } else { Reason::Expired });
        }
        let coverage = head.coverage();
        let unproven = now.saturating_sub(coverages.watermark(coverage));
        if coverages.stands(coverage) {
            if self.barrier.holds(coverages, coverage, || body.opened()) {
                // Nobody will ever tell whether it has changed: it is void.
                let is_told = coverages.is_told(coverage);
                return if is_told { State::Barred } else { State::Gone(Reason::Barrier) };
            }
            return if unproven <= max_staleness { State::Fresh } else { State::Unproven };
        }
        let grace = self.grace.load(Ordering::Relaxed);
        match grace > 0 && coverages.ended_within(coverage, grace, now) {
            true => State::Ended,
            false => State::Gone(Reason::CoverageEnded),
        }
    }

    pub(super) fn freed(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn place(&self, key: &[u8]) -> Place {
        let mut hasher = self.hasher.build_hasher();
        // Without the length, which the slice's own `Hash` adds: there is nothing behind the key.
        hasher.write(key);
        Place::of(hasher.finish())
    }
}

impl<W> Shard<W> {
    pub(super) fn new(groups: &Groups) -> Self {
        Self {
            store: Store::new(groups),
            stripes: vec![Stripe::NEW; STRIPES].into(),
            flights: Flights::default(),
            next_flight: 0,
            echoes: Echoes::default(),
            tallies: groups.each(),
            joined: 0,
            fills: 0,
        }
    }
}
