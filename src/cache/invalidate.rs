//! What changed goes: a key's entries and flights, or all there are.

use std::collections::HashSet;

use super::coverage::{CoverageSlot, Micros};
use super::flights::{Waiter, release};
use super::id::{IdentId, LinkId, NO_LINK};
use super::reason::Reason;
use super::shards::{Cache, Shard};
use super::store::Replies;
use super::stripe::Place;

impl<W: Waiter> Cache<W> {
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

    /// Likewise of what was read from one upstream node, whose feed has this slot.
    pub fn flush_of(&self, node: &CoverageSlot, reason: Reason) {
        self.count(reason);
        self.coverages.flush_of(node);
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

    pub(super) fn drop_key(
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

    /// Drops what is cached of `key` for those whom `theirs` accepts, and voids what is being fetched for them.
    pub fn forget_of(&self, key: &[u8], reason: Reason, now: Micros, theirs: impl Fn(IdentId) -> bool) {
        let place = self.place(key);
        let mut shard = self.shards[place.shard].lock();
        let before = shard.store.bytes();
        let dropped = shard.store.retain(key, place.hash, |head| !theirs(head.ident()));
        self.freed(before - shard.store.bytes());
        let stripe = &mut shard.stripes[place.stripe];
        let void = stripe.generation.wrapping_sub(1);
        if !dropped.is_empty() {
            self.count(reason);
            stripe.record(place, reason, now);
        }
        let mut waiters = Vec::new();
        let flights = shard.flights.of_key(key, place.hash);
        for flight in flights.filter(|flight| theirs(flight.name.borrow().ident)) {
            flight.generation = void;
            waiters.append(&mut flight.waiters);
        }
        drop(shard);
        drop(dropped);
        release(waiters);
    }

    /// Likewise, of every key.
    pub fn forget_all_of(&self, reason: Reason, now: Micros, theirs: impl Fn(IdentId) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let entries = shard.store.iter_from(0).filter(|entry| theirs(entry.name().ident));
            let mut keys: HashSet<Box<[u8]>> = entries.map(|entry| entry.key().into()).collect();
            let flights = shard.flights.all().filter(|flight| theirs(flight.name.borrow().ident));
            keys.extend(flights.map(|flight| flight.key().into()));
            drop(shard);
            keys.iter().for_each(|key| self.forget_of(key, reason, now, &theirs));
        }
    }
}
