//! Leases and flights: who fetches a missing reply, and who waits for it.
//!
//! Invariants: each flight has exactly one lease, and it leaves the shard when the lease is filled or
//! dropped, whichever way that happens (client gone, link lost, error reply); its waiters are then told.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cover::Cover;
use super::coverage::{CoverageId, Micros};
use super::entry::{Expiry, Origin, Reply};
use super::entry_key::{By, EntryKey, EntryKeyBuf};
use super::flights::{Flight, Waiter, release, serve};
use super::id::LinkId;
use super::reason::Reason;
use super::shards::{Cache, Shard};
use super::stripe::Place;

/// The right, and the duty, to fetch a missing reply. Dropping it gives the flight up.
pub struct Lease<W: Waiter> {
    cache: Arc<Cache<W>>,
    name: Arc<EntryKeyBuf>,
    place: Place,
    flight: u64,
    coverage: CoverageId,
    link: LinkId,
    opened: Micros,
    /// By what its reply may be had besides.
    also: By,
    registered: bool,
    ended: bool,
}

impl<W: Waiter> Cache<W> {
    /// Opens a flight in the shard, whose lock the caller holds.
    pub(super) fn open_flight(
        self: &Arc<Self>,
        shard: &mut Shard<W>,
        name: &EntryKey<'_>,
        place: Place,
        cover: Cover,
        now: Micros,
    ) -> Lease<W> {
        shard.next_flight += 1;
        let id = shard.next_flight;
        let name = Arc::new(EntryKeyBuf::new(name));
        let generation = shard.stripes[place.stripe].generation;
        let Cover { coverage, link, registers } = cover;
        // A message that comes before such an echo may be of a change that came behind the registration, and ended it.
        let pending_echoes =
            if registers { 0 } else { shard.echoes.awaited(name.borrow().key, place.hash, link) };
        let waiters = Vec::new();
        shard.flights.add(Flight {
            id,
            hash: place.hash,
            name: name.clone(),
            generation,
            coverage,
            link,
            opened: now,
            pending_echoes,
            waiters,
            refresh: None,
        });
        let cache = self.clone();
        Lease {
            cache,
            name,
            place,
            flight: id,
            coverage,
            link,
            opened: now,
            also: By::ITSELF,
            registered: !registers,
            ended: false,
        }
    }

    /// What is in flight on `link` is not waited for any more, but for what the caller says: it is void, and its waiters
    /// look up anew. A link that is stuck answers too late, and one that is given up does not answer.
    pub fn let_go(&self, link: LinkId, but: impl Fn(&EntryKey<'_>) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let Shard { flights, stripes, .. } = &mut *shard;
            let concerned = |flight: &&mut Flight<W>| flight.link == link && !but(&flight.name.borrow());
            let mut waiters = Vec::new();
            for flight in flights.all().filter(concerned) {
                // Behind the stripe's, so that it never comes to stand again.
                let generation = stripes[self.place(flight.key()).stripe].generation;
                flight.generation = generation.wrapping_sub(1);
                waiters.append(&mut flight.waiters);
            }
            drop(shard);
            release(waiters);
        }
    }

    /// A lease for the reply that a write leaves behind: its read is sent on `link` behind the write and
    /// its announcement, while the write's own fence is held. `None` if another write to the stripe is under
    /// way too, for then it is not known which of them comes last.
    pub fn lease_behind_write(
        self: &Arc<Self>,
        name: &EntryKey<'_>,
        now: Micros,
        cover: impl FnOnce() -> Option<Cover>,
    ) -> Option<Lease<W>> {
        let place = self.place(name.key);
        let mut shard = self.shards[place.shard].lock();
        // As in `lookup`, the coverage is read before the fences over all.
        let cover = cover()?;
        let alone = shard.stripes[place.stripe].fences == 1;
        if !alone || self.fences_over_all.load(Ordering::SeqCst) > 0 || name.is_too_long() {
            return None;
        }
        Some(self.open_flight(&mut shard, name, place, cover, now))
    }
}

impl<W: Waiter> Lease<W> {
    /// What is fetched.
    pub fn name(&self) -> EntryKey<'_> {
        self.name.borrow()
    }

    /// The link on which the read is to be sent: on another the reply is not to be kept.
    pub fn link(&self) -> LinkId {
        self.link
    }

    pub(super) fn coverage(&self) -> CoverageId {
        self.coverage
    }

    /// Whether the coverage under which it was opened stands.
    pub fn stands(&self) -> bool {
        self.cache.coverages.stands(self.coverage)
    }

    /// Whether the upstream tells of changes of the key from now on, if it tells of any under this coverage. If not, the key
    /// is to be registered with the feed before the read is sent.
    ///
    /// The lease is taken before that: a change behind the registration, of which the upstream tells once, voids it then,
    /// however soon it is heard. Were it taken when the registration is confirmed, that one message might be over.
    pub fn is_registered(&self) -> bool {
        self.registered
    }

    /// The feed was told that the key is registered.
    pub fn note_registered(&mut self) {
        self.registered = true;
    }

    /// For a read of the same that is sent now, though its reply is not to be kept.
    pub fn ahead(&self) -> Ahead<W> {
        Ahead { cache: self.cache.clone(), place: self.place, flight: self.flight, opened: self.opened }
    }

    /// Whether a reply would fill the cache as yet: nothing happened to the key, nor to the coverage.
    pub fn is_good(&self) -> bool {
        self.standing(&mut self.cache.shards[self.place.shard].lock()).is_some()
    }

    /// The reply may be had by these, too.
    pub fn share(&mut self, by: By) {
        self.also = by;
    }

    /// When the lease was given.
    pub fn opened(&self) -> Micros {
        self.opened
    }

    /// Fills the cache and serves the waiters, if nothing happened to the key and the coverage meanwhile.
    ///
    /// Waiters get the reply only if the read is not older than `max_staleness`; it was sent after the
    /// lease was opened, so no write that was over `max_staleness` ago is missing from it.
    ///
    /// Errors: the reason why nothing was kept. The reply itself is good for whoever asked for it; the
    /// cache treats it as one that was read past it ([`Cache::note_bypass`]).
    pub fn fill(
        mut self,
        reply: &[u8],
        expiry: Expiry,
        now: Micros,
        max_staleness: Micros,
    ) -> Result<(), Reason> {
        if reply.len() > self.cache.max_value() {
            return Err(self.give_up(Reason::TooLarge, now));
        }
        let cache = self.cache.clone();
        let mut shard = cache.shards[self.place.shard].lock();
        let mut stands = self.standing(&mut shard).is_some();
        let mut name = self.name.borrow();
        name.by = name.by.and(self.also);
        if let Some((head, body)) = shard.store.find(&name, self.place.hash) {
            // Behind a barrier there may be two flights of a reply, and the one that was opened later knows more.
            stands &= body.opened() <= self.opened;
            if cache.coverages.stands(head.coverage()) {
                name.by = name.by.and(head.by());
            }
        }
        let flight = if stands { shard.flights.take(self.place.hash, self.flight) } else { None };
        let Some(Flight { pending_echoes, waiters, .. }) = flight else {
            drop(shard);
            return Err(self.give_up(Reason::Voided, now));
        };
        self.ended = true;
        let before = shard.store.bytes();
        let origin = Origin { coverage: self.coverage, opened: self.opened, pending_echoes, expiry };
        let replaced = shard.store.insert(Reply::new(&name, self.place.hash, reply, origin));
        // Added before anything is taken away, so that the sum never falls below zero.
        cache.bytes.fetch_add(shard.store.bytes(), Ordering::Relaxed);
        cache.freed(before);
        shard.fills += 1;
        shard.stripes[self.place.stripe].record(self.place, Reason::Filled, now);
        drop(shard);
        drop(replaced);
        if now.saturating_sub(self.opened) <= max_staleness {
            serve(waiters, reply);
        } else {
            release(waiters);
        }
        cache.evict(self.place.shard, now);
        Ok(())
    }

    /// The flight, if nothing happened to the key and the coverage meanwhile.
    fn standing<'s>(&self, shard: &'s mut Shard<W>) -> Option<&'s mut Flight<W>> {
        let generation = shard.stripes[self.place.stripe].generation;
        let flight = shard.flights.find(self.place.hash, self.flight)?;
        (flight.generation == generation && self.cache.coverages.stands(self.coverage)).then_some(flight)
    }

    /// Does something to the flight, unless it has left already.
    pub(super) fn with_flight<T>(&self, act: impl FnOnce(&mut Flight<W>) -> T) -> Option<T> {
        let mut shard = self.cache.shards[self.place.shard].lock();
        self.flight_in(&mut shard).map(act)
    }

    /// The flight, unless it has left already.
    pub(super) fn flight_in<'s>(&self, shard: &'s mut Shard<W>) -> Option<&'s mut Flight<W>> {
        shard.flights.find(self.place.hash, self.flight)
    }

    /// Keeps nothing of a reply that is about to be delivered, for a reason that the caller names; the
    /// waiters look up anew.
    pub fn give_up(mut self, reason: Reason, now: Micros) -> Reason {
        self.cache.note_bypass(self.name.borrow().key, self.link, now);
        self.end(reason, now);
        reason
    }

    /// Keeps nothing of a reply that is about to be delivered, but serves the waiters with it, as
    /// [`Lease::fill`] does: else those of a reply that is never kept would read it one after another.
    pub fn pass_on(mut self, reply: &[u8], reason: Reason, now: Micros, max_staleness: Micros) -> Reason {
        let mut shard = self.cache.shards[self.place.shard].lock();
        let in_time = now.saturating_sub(self.opened) <= max_staleness;
        let waiters = match self.standing(&mut shard).filter(|_| in_time) {
            Some(flight) => std::mem::take(&mut flight.waiters),
            None => Vec::new(),
        };
        drop(shard);
        self.cache.note_bypass(self.name.borrow().key, self.link, now);
        self.end(reason, now);
        serve(waiters, reply);
        reason
    }

    fn end(&mut self, reason: Reason, now: Micros) {
        self.ended = true;
        self.cache.count(reason);
        let mut shard = self.cache.shards[self.place.shard].lock();
        shard.stripes[self.place.stripe].record(self.place, reason, now);
        let flight = shard.flights.take(self.place.hash, self.flight);
        drop(shard);
        release(flight.map_or_else(Vec::new, |flight| flight.waiters));
    }
}

/// A read that goes ahead of what its flight fetches, and serves who waits by then.
pub struct Ahead<W: Waiter> {
    cache: Arc<Cache<W>>,
    place: Place,
    flight: u64,
    opened: Micros,
}

impl<W: Waiter> Ahead<W> {
    /// Its reply has come: it is good for those who wait, as long as one that is kept would be, for it was sent after the
    /// lease was opened, too.
    pub fn serve(&self, reply: &[u8], now: Micros, max_staleness: Micros) {
        if now.saturating_sub(self.opened) > max_staleness {
            return;
        }
        let mut shard = self.cache.shards[self.place.shard].lock();
        let generation = shard.stripes[self.place.stripe].generation;
        let flight = shard.flights.find(self.place.hash, self.flight);
        let standing = flight
            .filter(|flight| flight.generation == generation && self.cache.coverages.stands(flight.coverage));
        let waiters = standing.map(|flight| std::mem::take(&mut flight.waiters)).unwrap_or_default();
        drop(shard);
        serve(waiters, reply);
    }
}

impl<W: Waiter> Drop for Lease<W> {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Reason::GivenUp, self.opened);
        }
    }
}
