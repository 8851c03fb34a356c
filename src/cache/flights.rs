//! What is being fetched, in one shard: found by its key's hash, however much that is.

use std::sync::Arc;

use hashbrown::HashTable;

use super::lease::EntryKeyBuf;
use super::refresh::Refresh;
use super::store::spread;
use super::{CoverageId, EntryKey, LinkId, Micros};

/// Fetches of one key at a time: as many as may be kept of it. So a search among them is short.
pub(super) const MOST_OF_KEY: usize = super::store::MAX_REPLIES;

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
}
