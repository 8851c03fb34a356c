//! Fences: what a write holds from before it is sent until just before its reply is delivered.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::coverage::Micros;
use super::flights::{Waiter, release};
use super::reason::Reason;
use super::shards::Cache;

/// Keeps the cache away from a write's keys until it is dropped.
pub struct Fence<W: Waiter> {
    cache: Arc<Cache<W>>,
    over: Over,
}

enum Over {
    /// (shard, stripe) of each key.
    Keys(SmallVec<[(u16, u16); 2]>),
    All,
}

impl<W: Waiter> Cache<W> {
    /// Drops the entries of `keys`, voids their leases, and refuses hits and new leases for them until the
    /// fence is dropped, but for the lease of the write's own read. Keys that share a stripe with one of them are refused too, which costs a miss.
    pub fn fence<'k>(
        self: &Arc<Self>,
        keys: impl IntoIterator<Item = &'k [u8]>,
        reason: Reason,
        now: Micros,
    ) -> Fence<W> {
        let mut places = SmallVec::new();
        for key in keys {
            let place = self.place(key);
            let mut shard = self.shards[place.shard].lock();
            let (replies, waiters) = self.drop_key(&mut shard, place, key, reason, now);
            shard.stripes[place.stripe].fences += 1;
            drop(shard);
            drop(replies);
            release(waiters);
            places.push((place.shard as u16, place.stripe as u16));
        }
        Fence { cache: self.clone(), over: Over::Keys(places) }
    }

    /// Like [`Cache::fence`], over every key: for writes whose keys are not known.
    pub fn fence_all(self: &Arc<Self>, reason: Reason) -> Fence<W> {
        // The order matters: see `lookup`.
        self.fences_over_all.fetch_add(1, Ordering::SeqCst);
        self.flush(reason);
        Fence { cache: self.clone(), over: Over::All }
    }
}

impl<W: Waiter> Drop for Fence<W> {
    fn drop(&mut self) {
        match &self.over {
            Over::Keys(places) => {
                for &(shard, stripe) in places {
                    self.cache.shards[shard as usize].lock().stripes[stripe as usize].fences -= 1;
                }
            }
            Over::All => {
                self.cache.fences_over_all.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }
}
