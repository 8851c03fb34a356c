//! What the cache tells about itself: counts, keys, and the history of one key.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use super::coverage::{Coverages, Micros};
use super::entry::Entry;
use super::entry_key::{By, EntryKey, EntryKeyBuf};
use super::flights::Waiter;
use super::id::IdentId;
use super::reason::Reason;
use super::shards::{Cache, State};
use super::stripe::Event;

/// What lookups and fills have come to so far. All are counts except `entries` and `bytes`.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub hits: u64,
    /// Of these, served beyond the bound because the upstream was unreachable.
    pub stale_hits: u64,
    pub misses: u64,
    pub joined: u64,
    pub fills: u64,
    pub entries: u64,
    pub bytes: u64,
    /// By [`Reason`]: bypasses, refused fills and dropped keys.
    pub reasons: Vec<u64>,
    /// By group; the first is what is of no other.
    pub groups: Vec<GroupStats>,
}

/// Of these, what concerns the keys of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupStats {
    pub hits: u64,
    pub misses: u64,
    pub bytes: u64,
}

/// A cached reply as it is shown, and as it is fetched anew.
#[derive(Clone, Debug)]
pub struct CachedReply {
    pub ident: IdentId,
    pub command: u16,
    /// The request's bytes behind the key, raw.
    pub args: Box<[u8]>,
    pub by: By,
    /// Length of the reply in bytes.
    pub bytes: usize,
    /// How long ago it was asked for.
    pub age: Micros,
    /// How long ago its freshness was last proven.
    pub proven: Micros,
    /// In what time it ends at the latest; `None` if it does not.
    pub left: Option<Micros>,
    /// Covered by the upstream's tracking, not by announcements alone.
    pub tracked: bool,
    /// Served since it was filled.
    pub read: bool,
    /// Whether it may be served at all: its coverage stands and its time has not run out.
    pub stands: bool,
}

impl CachedReply {
    pub(super) fn new(entry: Entry<'_>, coverages: &Coverages, stands: bool, now: Micros) -> Self {
        let (name, head) = (entry.name(), entry.head);
        let coverage = head.coverage();
        Self {
            ident: name.ident,
            command: name.command,
            args: name.args.into(),
            by: name.by,
            bytes: entry.reply().len(),
            age: now.saturating_sub(entry.body.opened()),
            proven: now.saturating_sub(coverages.watermark(coverage)),
            left: (head.expires != Micros::MAX).then(|| head.expires.saturating_sub(now)),
            tracked: coverages.is_told(coverage),
            read: head.is_read(),
            stands,
        }
    }
}

/// An entry taken for an audit.
pub struct Sample {
    pub name: EntryKeyBuf,
    pub reply: Box<[u8]>,
    pub opened: Micros,
}

/// What is known of one key.
#[derive(Clone, Debug)]
pub struct Description {
    pub replies: Vec<CachedReply>,
    /// The last fill or drop of the key, and how long ago it was. Forgotten when another key of the same
    /// stripe has one.
    pub last_change: Option<(Reason, Micros)>,
    /// Likewise the last read that the cache did not serve, or whose reply it did not keep.
    pub last_bypass: Option<(Reason, Micros)>,
    /// A write to the key (or one of its stripe) is under way.
    pub fenced: bool,
}

impl<W: Waiter> Cache<W> {
    pub fn describe(&self, key: &[u8], now: Micros) -> Description {
        let place = self.place(key);
        let shard = self.shards[place.shard].lock();
        let stripe = shard.stripes[place.stripe];
        let replies = shard.store.peek(key, place.hash);
        let last = |event: Event| {
            let known = event.tag == place.tag && event.reason != Reason::Unknown;
            let ago = ((now / 1000) as u32).wrapping_sub(event.at);
            known.then(|| (event.reason, Micros::from(ago) * 1000))
        };
        Description {
            replies: replies
                .map(|entry| CachedReply::new(entry, &self.coverages, self.may_be_served(entry, now), now))
                .collect(),
            last_change: last(stripe.history[0]),
            last_bypass: last(stripe.history[1]),
            fenced: stripe.fences > 0 || self.fences_over_all.load(Ordering::SeqCst) > 0,
        }
    }

    /// The last change of a key that is not there any more, if it is remembered; `Unknown` if not, or if there was none.
    pub fn last_change(&self, key: &[u8]) -> Reason {
        let place = self.place(key);
        let stripe = self.shards[place.shard].lock().stripes[place.stripe];
        let Event { tag, reason, .. } = stripe.history[0];
        // Another reply of the key may have been kept.
        if tag == place.tag && reason != Reason::Filled { reason } else { Reason::Unknown }
    }

    /// At most `limit` keys that are cached now and that `wanted` accepts, in no particular order.
    pub fn keys(
        &self,
        limit: usize,
        now: Micros,
        mut wanted: impl FnMut(&[u8], IdentId) -> bool,
    ) -> Vec<Box<[u8]>> {
        let mut keys = HashSet::new();
        for shard in &self.shards {
            let shard = shard.lock();
            for entry in shard.store.iter_from(0).filter(|entry| self.may_be_served(*entry, now)) {
                if keys.len() >= limit {
                    break;
                }
                if !keys.contains(entry.key()) && wanted(entry.key(), entry.name().ident) {
                    keys.insert(entry.key().into());
                }
            }
        }
        keys.into_iter().collect()
    }

    /// Some entry that may be served; `None` if none is found near where `seed` leads to.
    pub fn sample(&self, seed: u64, now: Micros) -> Option<Sample> {
        /// How many entries of a shard are looked at.
        const NEAR: usize = 256;
        let first = seed as usize % self.shards.len();
        for i in 0..self.shards.len() {
            let shard = self.shards[(first + i) % self.shards.len()].lock();
            let start = (seed >> 32) as usize % shard.store.len().max(1);
            let mut near = shard.store.iter_from(start).take(NEAR);
            if let Some(entry) =
                near.find(|entry| entry.head.by().is_by_name() && self.may_be_served(*entry, now))
            {
                let name = EntryKeyBuf::new(&entry.name());
                return Some(Sample { name, reply: entry.reply().into(), opened: entry.body.opened() });
            }
        }
        None
    }

    /// Its coverage stands, its time has not run out, and if a barrier holds it back, that ends.
    fn may_be_served(&self, Entry { head, body }: Entry<'_>, now: Micros) -> bool {
        let state = self.state(head, body, 0, now);
        matches!(state, State::Fresh | State::Unproven | State::Barred)
    }

    /// Whether the entry that was opened at `opened` is fresh at `now`; `None` if it is gone for good.
    pub fn is_fresh(
        &self,
        name: &EntryKey<'_>,
        opened: Micros,
        max_staleness: Micros,
        now: Micros,
    ) -> Option<bool> {
        let place = self.place(name.key);
        let shard = self.shards[place.shard].lock();
        let mut replies = shard.store.peek(name.key, place.hash);
        let same = replies.find(|entry| entry.is(name) && entry.body.opened() == opened)?;
        match self.state(same.head, same.body, max_staleness, now) {
            State::Fresh => Some(true),
            State::Unproven | State::Barred => Some(false),
            State::Ended | State::Gone(_) => None,
        }
    }

    pub fn stats(&self) -> Stats {
        let mut stats = Stats { bytes: self.bytes.load(Ordering::Relaxed) as u64, ..Stats::default() };
        for shard in &self.shards {
            let shard = shard.lock();
            for (i, (tally, bytes)) in shard.tallies.iter().zip(shard.store.bytes_by_group()).enumerate() {
                stats.hits += tally.hits;
                stats.stale_hits += tally.stale_hits;
                stats.misses += tally.misses;
                if stats.groups.len() == i {
                    stats.groups.push(GroupStats::default());
                }
                let group = &mut stats.groups[i];
                group.hits += tally.hits;
                group.misses += tally.misses;
                group.bytes += bytes as u64;
            }
            stats.joined += shard.joined;
            stats.fills += shard.fills;
            stats.entries += shard.store.len() as u64;
        }
        stats.reasons = self.reasons.iter().map(|reason| reason.load(Ordering::Relaxed)).collect();
        stats
    }
}
