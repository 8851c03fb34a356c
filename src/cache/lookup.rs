//! Lookups: a hit, a flight to join, or a lease to fetch the reply.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::cover::Cover;
use super::coverage::Micros;
use super::entry_key::EntryKey;
use super::flights::{MOST_OF_KEY, Waiter};
use super::lease::Lease;
use super::reason::Reason;
use super::shards::{Cache, Shard, State};
use super::stripe::Place;

/// Under what conditions a lookup may serve.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How old the proof of an entry's freshness may be; 0 serves nothing.
    pub max_staleness: Micros,
    /// The upstream cannot be reached: what was good until it went may be served for `stale-if-error`.
    pub unreachable: bool,
    /// Of which group the key is.
    pub group: usize,
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

impl<W: Waiter> Cache<W> {
    /// Serves `name` from the cache, joins its flight, or gives a lease to fetch it.
    ///
    /// `cover` tells under which coverage, and on which link, a fill would come; `join` makes the waiter,
    /// or refuses to wait; it is told whether the flight comes behind a write that is not answered. A hit is within
    /// `bounds` at `now`.
    ///
    /// More parameters than five, since three of them are what is done under the shard's lock, or not at all.
    pub fn lookup(
        self: &Arc<Self>,
        name: &EntryKey<'_>,
        now: Micros,
        bounds: Bounds,
        cover: impl FnOnce() -> Option<Cover>,
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
                let tally = shard.tallies.of(bounds.group);
                tally.hits += 1;
                if stale {
                    tally.stale_hits += 1;
                }
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
        shard.tallies.of(bounds.group).misses += 1;
        self.miss(shard, name, place, now, cover, join)
    }

    /// Joins the flight of a reply that is not there, or opens one. The caller holds the shard's lock, and has found the
    /// place; hence its many parameters.
    #[inline(never)]
    pub(super) fn miss(
        self: &Arc<Self>,
        shard: &mut Shard<W>,
        name: &EntryKey<'_>,
        place: Place,
        now: Micros,
        cover: impl FnOnce() -> Option<Cover>,
        join: impl FnOnce(bool) -> Option<W>,
    ) -> Lookup<W> {
        let stripe = &mut shard.stripes[place.stripe];
        // The coverage is read before the fences over all: such a fence first counts itself and then ends
        // every coverage id. If this lookup does not see the fence, its coverage id is an older one, and
        // the lease is void.
        let cover = cover();
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
                && !self.barrier.holds(&self.coverages, flight.coverage, || flight.opened)
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
        let Some(cover) = cover else {
            shard.stripes[place.stripe].record(place, Reason::NoCoverage, now);
            return self.past(Reason::NoCoverage);
        };
        if of_key >= MOST_OF_KEY {
            shard.stripes[place.stripe].record(place, Reason::InFlight, now);
            return self.past(Reason::InFlight);
        }
        if fenced {
            shard.stripes[place.stripe].record(place, Reason::Fenced, now);
            return self.past(Reason::Fenced);
        }
        Lookup::Miss(self.open_flight(shard, name, place, cover, now))
    }

    /// The reply that may be served because the upstream has just proved unreachable, if there is one.
    pub fn stale(&self, name: &EntryKey<'_>, now: Micros) -> Option<Bytes> {
        let place = self.place(name.key);
        let mut shard = self.shards[place.shard].lock();
        let shard = &mut *shard;
        let (head, body) = shard.store.find(name, place.hash).filter(|(head, _)| head.allows(name.by))?;
        matches!(self.state(head, body, 0, now), State::Unproven | State::Ended).then(|| {
            shard.tallies.of(self.groups.of(name.key)).stale_hits += 1;
            Bytes::copy_from_slice(body.reply(head))
        })
    }

    fn past(&self, reason: Reason) -> Lookup<W> {
        self.count(reason);
        Lookup::Bypass(reason)
    }
}
