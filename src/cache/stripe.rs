//! Stripes: what is kept of every key, cached or not, in bounded memory.
//!
//! Invariants: a key always has the same place, and different keys may share one. That costs a refill or a
//! forgotten line of history, never a stale entry.
//!
//! The history is a table by hash and no list of the keys that were used last (the `lru` crate): it is bounded as well, takes
//! 16 bytes a place where such a list takes over 100 with its two links, its index and an allocation, and stands in the line that
//! a fill or an invalidation has just written, so that it costs these neither a search nor an allocation under the lock.

use super::coverage::Micros;
use super::reason::{Class, Reason};

pub(super) const SHARDS: usize = 64;
/// Of each shard.
pub(super) const STRIPES: usize = 512;

/// Where a key's shard, stripe and history are.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) shard: usize,
    pub(super) stripe: usize,
    pub(super) tag: u16,
    pub(super) hash: u32,
}

impl Place {
    pub(super) fn of(hash: u64) -> Self {
        Self {
            shard: hash as usize % SHARDS,
            stripe: hash as usize / SHARDS % STRIPES,
            tag: (hash >> 48) as u16,
            hash: (hash >> 32) as u32,
        }
    }
}

/// What keys with the same hash bits share.
#[derive(Clone, Copy)]
pub(super) struct Stripe {
    /// Bumped by every invalidation and every fence.
    pub(super) generation: u32,
    pub(super) fences: u32,
    /// The last change, and the last read that the cache did not serve or keep: for [`Cache::describe`](super::Cache::describe).
    pub(super) history: [Event; 2],
}

/// What befell a key.
#[derive(Clone, Copy)]
pub(super) struct Event {
    /// Milliseconds since the start, modulo 49 days.
    pub(super) at: u32,
    /// Hash bits of the key.
    pub(super) tag: u16,
    pub(super) reason: Reason,
}

impl Stripe {
    pub(super) const NEW: Self = {
        let never = Event { at: 0, tag: 0, reason: Reason::Unknown };
        Self { generation: 0, fences: 0, history: [never; 2] }
    };

    pub(super) fn record(&mut self, place: Place, reason: Reason, now: Micros) {
        let event = Event { at: (now / 1000) as u32, tag: place.tag, reason };
        self.history[usize::from(reason.class() != Class::Change)] = event;
    }

    /// Whether the last change befell this key.
    pub(super) fn knows(&self, place: Place) -> bool {
        self.history[0].tag == place.tag && self.history[0].reason != Reason::Unknown
    }
}
