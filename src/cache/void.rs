//! Many keys that are void at once though their coverages go on: those of a hash slot that has left its node.
//!
//! Invariants:
//! - When [`Cache::void_keys`] returns, no entry of such a key is left that was there when it began, and nothing is filled
//!   any more under a lease that was given by then. What is leased after it began is not its affair: whoever calls it has
//!   first seen to it that no lease is given that must not be.
//! - A shard's lock is held for a few entries at a time. Whoever waits for it gets it in between.

use parking_lot::MutexGuard;

use super::coverage::Micros;
use super::flights::{Flight, Waiter, release};
use super::reason::Reason;
use super::shards::{Cache, Shard};

/// So many entries are looked at under one lock: some ten microseconds.
const STEP: usize = 128;

impl<W: Waiter> Cache<W> {
    /// Drops the entries of all keys that `is_of` accepts, absent ones too, and voids what is being fetched of them.
    ///
    /// It looks at every entry: a million take a fifth of a second, so this is no task for a worker.
    pub fn void_keys(&self, reason: Reason, now: Micros, is_of: &dyn Fn(&[u8]) -> bool) {
        for shard in &self.shards {
            // The flights first: from then on none of them fills, so no entry of such a lease comes behind where it was
            // looked already.
            let waiters = self.void_flights(&mut shard.lock(), is_of);
            release(waiters);
            // Downwards, so that no entry is missed while others come and go between two steps. All that was there and was
            // not looked at stands before `below`: an entry only ever moves down, into the place of one that went, and
            // what comes is put at the end.
            let mut below = usize::MAX;
            while below > 0 {
                let mut guard = shard.lock();
                let before = guard.store.bytes();
                let (gone, next) = guard.store.take_of_last(below, STEP, is_of);
                self.freed(before - guard.store.bytes());
                for reply in &gone {
                    self.count(reason);
                    let place = self.place(reply.entry().key());
                    guard.stripes[place.stripe].record(place, reason, now);
                }
                MutexGuard::unlock_fair(guard);
                below = next;
            }
        }
    }

    /// Echoes of announcements of such keys are not awaited any more: they may come where they are not heard.
    pub fn forget_echoes_of(&self, is_of: &dyn Fn(&[u8]) -> bool) {
        self.shards.iter().for_each(|shard| shard.lock().echoes.forget_of(is_of));
    }

    fn void_flights(&self, shard: &mut Shard<W>, is_of: &dyn Fn(&[u8]) -> bool) -> Vec<W> {
        let Shard { flights, stripes, .. } = shard;
        let mut waiters = Vec::new();
        for flight in flights.all().filter(|flight: &&mut Flight<W>| is_of(flight.key())) {
            // Behind the stripe's, so that it never comes to stand again; others of the stripe go on.
            let generation = stripes[self.place(flight.key()).stripe].generation;
            flight.generation = generation.wrapping_sub(1);
            waiters.append(&mut flight.waiters);
        }
        waiters
    }
}
