//! Echoes: our own announcements, as they come back on the feed.
//!
//! A write through this nearside is announced, and the feed brings the announcement back to us. It must not
//! void what was read after the write. A message cannot be told to be our own, but that is not needed:
//!
//! Let a link send a write, its announcement A, and later a read R. The upstream executes them in this order,
//! and the feed brings messages in the order of their execution. So whatever the feed brings *up to* A was
//! sent before R was executed, and R's reply knows of it. A lease on that link is therefore **deaf** to
//! all that is heard of its key until as many messages have come as announcements of the key were under way
//! on the link; the entry that it fills stays deaf as long. Messages of others in between make it hear again
//! too early, which costs a refill, never too late.
//!
//! Invariants: a count is never higher than the number of announcements whose echo is still to come.
//! Every message of a key lowers all its counts; a failed announcement, a lost link and a new feed end them.

use std::sync::Arc;

use super::{
    Cache, CoverageId, EntryKeyBuf, LinkId, Micros, Place, Reason, Shard, Waiter, release,
    store::{Replies, spread},
};

/// Announcements under way, in one shard at most; those beyond are heard like any other.
const MAX_ECHOES: usize = 1024;

/// Announcements of one key that one link has sent and the feed has not brought back.
pub(super) struct Echo {
    hash: u32,
    key: Box<[u8]>,
    link: LinkId,
    count: u32,
}

impl<W> Shard<W> {
    /// To how many messages a lease that is opened now on `link` is deaf.
    pub(super) fn echoes(&self, key: &[u8], hash: u32, link: LinkId) -> u32 {
        let found = self.echoes.find(spread(hash), |echo| echo.link == link && *echo.key == *key);
        found.map_or(0, |echo| echo.count)
    }

    /// Counts one message of `key`, or forgets all that are to come.
    fn end_echoes(&mut self, key: &[u8], hash: u32, all: bool) {
        for echo in self.echoes.iter_hash_mut(spread(hash)).filter(|echo| *echo.key == *key) {
            echo.count = if all { 0 } else { echo.count - 1 };
        }
        let is_over = |echo: &Echo| echo.count == 0 && *echo.key == *key;
        while let Ok(echo) = self.echoes.find_entry(spread(hash), is_over) {
            echo.remove();
        }
    }
}

impl<W: Waiter> Cache<W> {
    /// An announcement of `key` is about to be sent on `link`, behind its write.
    pub fn expect_echo(&self, key: &[u8], link: LinkId) {
        let place = self.place(key);
        let mut shard = self.shards[place.shard].lock();
        let (echoes, hash) = (&mut shard.echoes, place.hash);
        match echoes.find_mut(spread(hash), |echo| echo.link == link && *echo.key == *key) {
            Some(echo) => echo.count += 1,
            None => {
                if echoes.len() < MAX_ECHOES {
                    let echo = Echo { hash, key: key.into(), link, count: 1 };
                    echoes.insert_unique(spread(hash), echo, |echo| spread(echo.hash));
                }
            }
        }
    }

    /// An announcement of `key` was refused: no echo will come.
    pub fn no_echo(&self, key: &[u8], now: Micros) {
        let place = self.place(key);
        let mut shard = self.shards[place.shard].lock();
        shard.end_echoes(key, place.hash, true);
        let (replies, waiters) = self.drop_key(&mut shard, place, key, Reason::Write, now);
        drop(shard);
        drop(replies);
        release(waiters);
    }

    /// `link` was lost: echoes of what it had sent may never come.
    pub fn no_echoes_of(&self, link: LinkId, now: Micros) {
        for shard in &self.shards {
            let lost = |echo: &mut Echo| echo.link == link;
            let lost: Vec<_> = shard.lock().echoes.extract_if(lost).collect();
            lost.iter().for_each(|echo| self.no_echo(&echo.key, now));
        }
    }

    /// A new feed brings nothing of what was announced before it. Called before its coverage is armed.
    pub fn forget_echoes(&self) {
        self.shards.iter().for_each(|shard| shard.lock().echoes.clear());
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
            shard.end_echoes(key, place.hash, false);
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
        let overtaken = shard.overtaken_refreshes(key, place.hash, generation);
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
