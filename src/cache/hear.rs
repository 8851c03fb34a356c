//! What is heard of changes, and the announcements of our own that come back as echoes (see [`echo`](super::echo)).

use std::sync::Arc;

use super::coverage::{CoverageId, Micros};
use super::entry_key::EntryKeyBuf;
use super::flights::{Waiter, release};
use super::id::LinkId;
use super::reason::Reason;
use super::shards::{Cache, Shard};
use super::store::Replies;
use super::stripe::Place;

impl<W: Waiter> Cache<W> {
    /// An announcement of `key` is about to be sent on `link`, behind its write.
    pub fn expect_echo(&self, key: &[u8], link: LinkId) {
        let place = self.place(key);
        self.shards[place.shard].lock().echoes.expect(key, place.hash, link);
    }

    /// An announcement of `key` was refused: no echo will come.
    pub fn no_echo(&self, key: &[u8], now: Micros) {
        let place = self.place(key);
        let mut shard = self.shards[place.shard].lock();
        shard.echoes.end(key, place.hash, true);
        let (replies, waiters) = self.drop_key(&mut shard, place, key, Reason::Write, now);
        drop(shard);
        drop(replies);
        release(waiters);
    }

    /// `link` was lost: echoes of what it had sent may never come.
    pub fn no_echoes_of(&self, link: LinkId, now: Micros) {
        for shard in &self.shards {
            let lost = shard.lock().echoes.lose(link);
            lost.iter().for_each(|key| self.no_echo(key, now));
        }
    }

    /// A new feed brings nothing of what was announced before it. Called before its coverage is armed.
    pub fn forget_echoes(&self) {
        self.shards.iter().for_each(|shard| shard.lock().echoes.forget());
    }

    /// The feed brought word of a change of `key`: by an announcement, or by the upstream's tracking.
    pub fn heard(&self, key: &[u8], reason: Reason, now: Micros) {
        drop(self.heard_and_dropped(key, reason, now));
    }

    /// Like [`Cache::heard`]; gives what was dropped, and the refreshes that are overtaken.
    pub(super) fn heard_and_dropped(
        &self,
        key: &[u8],
        reason: Reason,
        now: Micros,
    ) -> (Replies, Vec<(Arc<EntryKeyBuf>, CoverageId, u8)>) {
        let place = self.place(key);
        let mut shard = self.shards[place.shard].lock();
        let announced = u32::from(reason != Reason::Tracking);
        if announced > 0 {
            shard.echoes.end(key, place.hash, false);
        }
        let waiters = hear_in_flight(&mut shard, place, key, announced);
        let before = shard.store.bytes();
        let dropped = shard.store.retain(key, place.hash, |head| {
            let pending_echoes = head.pending_echoes > 0;
            head.pending_echoes = head.pending_echoes.saturating_sub(announced as u8);
            pending_echoes
        });
        self.freed(before - shard.store.bytes());
        let stripe = &mut shard.stripes[place.stripe];
        if !dropped.is_empty() {
            self.count(reason);
            stripe.record(place, reason, now);
        }
        let generation = stripe.generation;
        let overtaken = shard.flights.overtaken(key, place.hash, generation);
        drop(shard);
        release(waiters);
        (dropped, overtaken)
    }
}

/// Voids what is in flight in the stripe, but for the deaf flights of the key; gives the waiters of the
/// key's void ones.
fn hear_in_flight<W>(shard: &mut Shard<W>, place: Place, key: &[u8], announced: u32) -> Vec<W> {
    let stripe = &mut shard.stripes[place.stripe];
    let old = stripe.generation;
    stripe.generation = old.wrapping_add(1);
    let mut waiters = Vec::new();
    for flight in shard.flights.of_key(key, place.hash) {
        if flight.pending_echoes > 0 && flight.generation == old {
            flight.pending_echoes = flight.pending_echoes.saturating_sub(announced);
            flight.generation = stripe.generation;
        } else {
            waiters.append(&mut flight.waiters);
        }
    }
    waiters
}
