//! What is being fetched, in one shard: found by its key's hash, however much that is.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashTable;

use super::coverage::{CoverageId, Micros};
use super::entry_key::{EntryKey, EntryKeyBuf};
use super::id::LinkId;
use super::store::{MAX_REPLIES, spread};

/// Fetches of one key at a time: as many as may be kept of it. So a search among them is short.
pub(super) const MOST_OF_KEY: usize = MAX_REPLIES;

/// Whoever waits for another's flight.
pub trait Waiter: Send + 'static {
    /// The flight's reply.
    fn served(self, reply: Bytes);
    /// The flight was voided or given up: look up anew.
    fn released(self);
}

/// Hands waiters back; never under a lock.
pub(super) fn release<W: Waiter>(waiters: Vec<W>) {
    if !waiters.is_empty() {
        waiters.into_iter().for_each(W::released);
    }
}

/// Hands them the reply; never under a lock.
pub(super) fn serve<W: Waiter>(waiters: Vec<W>, reply: &[u8]) {
    if !waiters.is_empty() {
        let reply = Bytes::copy_from_slice(reply);
        waiters.into_iter().for_each(|waiter| waiter.served(reply.clone()));
    }
}

/// What makes a flight a refresh.
#[derive(Clone, Copy)]
pub(super) struct Refresh {
    pub(super) followers: u8,
    /// An update was announced meanwhile.
    pub(super) again: bool,
}

/// The fetch of one reply.
pub(super) struct Flight<W> {
    pub(super) id: u64,
    /// The hash of its key.
    pub(super) hash: u32,
    pub(super) name: Arc<EntryKeyBuf>,
    /// The stripe's generation for which the reply is good.
    pub(super) generation: u32,
    pub(super) coverage: CoverageId,
    pub(super) link: LinkId,
    pub(super) opened: Micros,
    /// How many messages of the key were sent before the read is executed, and are still to come.
    pub(super) pending_echoes: u32,
    pub(super) waiters: Vec<W>,
    pub(super) refresh: Option<Refresh>,
}

impl<W> Flight<W> {
    pub(super) fn is(&self, name: &EntryKey<'_>) -> bool {
        self.name.borrow() == *name
    }

    pub(super) fn key(&self) -> &[u8] {
        self.name.borrow().key
    }
}

/// See the [module](self).
pub(super) struct Flights<W>(HashTable<Flight<W>>);

impl<W> Default for Flights<W> {
    fn default() -> Self {
        Self(HashTable::new())
    }
}

impl<W> Flights<W> {
    pub(super) fn add(&mut self, flight: Flight<W>) {
        self.0.insert_unique(spread(flight.hash), flight, |flight| spread(flight.hash));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Flight<W>> {
        self.0.iter_mut()
    }

    /// Those whose key has this hash.
    pub(super) fn of_hash(&mut self, hash: u32) -> impl Iterator<Item = &mut Flight<W>> {
        self.0.iter_hash_mut(spread(hash)).filter(move |flight| flight.hash == hash)
    }

    pub(super) fn of_key<'a>(
        &'a mut self,
        key: &'a [u8],
        hash: u32,
    ) -> impl Iterator<Item = &'a mut Flight<W>> {
        self.of_hash(hash).filter(move |flight| flight.key() == key)
    }

    pub(super) fn find(&mut self, hash: u32, id: u64) -> Option<&mut Flight<W>> {
        self.0.find_mut(spread(hash), |flight| flight.id == id)
    }

    pub(super) fn take(&mut self, hash: u32, id: u64) -> Option<Flight<W>> {
        let found = self.0.find_entry(spread(hash), |flight| flight.id == id).ok()?;
        let (flight, _) = found.remove();
        // A burst of misses leaves nothing behind.
        if self.0.is_empty() {
            self.0 = HashTable::new();
        }
        Some(flight)
    }

    /// Refreshes of `key` that are void and may be followed, and by how many.
    pub(super) fn overtaken(
        &mut self,
        key: &[u8],
        hash: u32,
        generation: u32,
    ) -> Vec<(Arc<EntryKeyBuf>, CoverageId, u8)> {
        let refresh = |flight: &mut Flight<W>| {
            let left = flight.refresh?.followers.checked_sub(1)?;
            Some((flight.name.clone(), flight.coverage, left))
        };
        let of_key = self.of_key(key, hash);
        of_key.filter(|flight| flight.generation != generation).filter_map(refresh).collect()
    }
}
