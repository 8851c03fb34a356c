//! The conflict log: writes that were acknowledged and not flushed, because another had written there.
//!
//! Invariants: what is in it stays until somebody clears it. It counts with what the journal may hold, so it is bounded by that:
//! when it is full, writes go through, and no new conflict comes of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::record::Conflict;

/// See the [module](self).
#[derive(Default)]
pub(super) struct Conflicts {
    all: Mutex<BTreeMap<u64, Conflict>>,
    bytes: AtomicUsize,
}

impl Conflicts {
    pub(super) fn add(&self, conflict: Conflict) {
        self.bytes.fetch_add(conflict.size(), Ordering::Relaxed);
        self.all.lock().insert(conflict.id, conflict);
    }

    /// Takes them out.
    pub(super) fn remove(&self, ids: &[u64]) {
        let mut all = self.all.lock();
        for conflict in ids.iter().filter_map(|id| all.remove(id)) {
            self.bytes.fetch_sub(conflict.size(), Ordering::Relaxed);
        }
    }

    pub(super) fn has(&self, id: u64) -> bool {
        self.all.lock().contains_key(&id)
    }

    pub(super) fn ids(&self) -> Vec<u64> {
        self.all.lock().keys().copied().collect()
    }

    /// The newest, `most` at most, in the order in which they were found.
    pub(super) fn newest(&self, most: usize) -> Vec<Conflict> {
        let all = self.all.lock();
        let mut newest: Vec<_> = all.values().rev().take(most).cloned().collect();
        newest.reverse();
        newest
    }

    pub(super) fn len(&self) -> usize {
        self.all.lock().len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}
