//! What goes to make room, and what goes because nobody can be served it any more.

use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::coverage::Micros;
use super::entry::{Entry, Reply};
use super::flights::Waiter;
use super::reason::Reason;
use super::shards::{Cache, Shard, State};
use super::stripe::SHARDS;

impl<W: Waiter> Cache<W> {
    /// Evicts until the budget is kept.
    ///
    /// From shards with more than their share, beginning with the one that grew: else a shard that happens to
    /// be small would stay so, and what is in use there would go instead of what others have not used for
    /// long. The newest entry is the last to go.
    pub(super) fn evict(&self, grown: usize, now: Micros) {
        let is_over = || self.bytes.load(Ordering::Relaxed) > self.max_bytes();
        let share = self.max_bytes() / SHARDS;
        for (share, newest) in [(share, 1), (0, 1), (0, 0)] {
            for i in 0..SHARDS {
                let keep = if i == 0 { newest } else { 0 };
                let shard = &self.shards[(grown + i) % SHARDS];
                loop {
                    if !is_over() {
                        return;
                    }
                    let mut guard = shard.lock();
                    if guard.store.bytes() <= share || guard.store.len() <= keep {
                        break;
                    }
                    guard.store.spare_used();
                    let victim = self.pop_oldest(&mut guard, Reason::Evicted, now);
                    drop(guard);
                    drop(victim);
                }
            }
        }
    }

    /// Goes a step towards what the cache may hold, if that is less than before; says whether there may be another.
    pub fn shrink(&self, now: Micros) -> bool {
        let goes = self.budget.step(self.bytes.load(Ordering::Relaxed));
        if goes {
            self.evict(now as usize % SHARDS, now);
        }
        goes
    }

    /// Frees entries that nobody can be served any more at the cold end of each shard, at most `limit` of each; says how many there were.
    pub fn sweep(&self, limit: usize, now: Micros) -> usize {
        let mut swept = 0;
        for shard in &self.shards {
            for _ in 0..limit {
                let mut guard = shard.lock();
                let Some(reason) = guard.store.oldest().and_then(|entry| self.gone(entry, now)) else {
                    break;
                };
                let victim = self.pop_oldest(&mut guard, reason, now);
                drop(guard);
                swept += usize::from(victim.is_some());
            }
        }
        swept
    }

    /// Why this entry is of no use to anybody any more, as one counts what has left the cache.
    fn gone(&self, entry: Entry<'_>, now: Micros) -> Option<Reason> {
        match self.state(entry.head, entry.body, 0, now) {
            // A barrier is why a read is not answered; here nobody asked.
            State::Gone(Reason::Barrier) => Some(Reason::CoverageEnded),
            State::Gone(reason) => Some(reason),
            State::Fresh | State::Unproven | State::Barred | State::Ended => None,
        }
    }

    fn pop_oldest(&self, shard: &mut MutexGuard<'_, Shard<W>>, reason: Reason, now: Micros) -> Option<Reply> {
        let before = shard.store.bytes();
        let victim = shard.store.pop_oldest()?;
        self.freed(before - shard.store.bytes());
        self.count(reason);
        let place = self.place(victim.entry().key());
        shard.stripes[place.stripe].record(place, reason, now);
        Some(victim)
    }
}
