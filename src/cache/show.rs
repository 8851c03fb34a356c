//! What the cache tells about itself: counts, keys, and the history of one key.

use std::sync::atomic::Ordering;

use super::store::Reply;
use super::{Cache, Coverages, Micros, Reason, Stats, Waiter};

/// A cached reply as it is shown, and as it is fetched anew.
#[derive(Clone, Debug)]
pub struct CachedReply {
    pub ident: u32,
    pub command: u16,
    /// The request's bytes behind the key, raw.
    pub rest: Box<[u8]>,
    /// Length of the reply in bytes.
    pub bytes: usize,
    /// How long ago it was filled.
    pub age: Micros,
    /// How long ago its freshness was last proven.
    pub proven: Micros,
    /// In what time it ends at the latest; `None` if it does not.
    pub left: Option<Micros>,
    /// Covered by the upstream's tracking, not by the feed's channels alone.
    pub tracked: bool,
    /// Whether it may be served at all: its coverage stands and its time has not run out.
    pub stands: bool,
}

impl CachedReply {
    pub(super) fn new(reply: &Reply, coverages: &Coverages, now: Micros) -> Self {
        Self {
            ident: reply.ident(),
            command: reply.command(),
            rest: reply.rest().into(),
            bytes: reply.reply().len(),
            age: now.saturating_sub(reply.filled),
            proven: now.saturating_sub(coverages.watermark(reply.coverage)),
            left: (reply.expires != Micros::MAX).then(|| reply.expires.saturating_sub(now)),
            tracked: coverages.has_parent(reply.coverage),
            stands: coverages.stands(reply.coverage) && now < reply.expires,
        }
    }
}

/// What is known of one key.
#[derive(Clone, Debug)]
pub struct Description {
    pub replies: Vec<CachedReply>,
    /// The last event of the key, and how long ago it was. Forgotten when another key of the same stripe
    /// has an event.
    pub last: Option<(Reason, Micros)>,
    /// A write to the key (or one of its stripe) is under way.
    pub fenced: bool,
}

impl<W: Waiter> Cache<W> {
    pub fn describe(&self, key: &[u8], now: Micros) -> Description {
        let place = self.place(key);
        let shard = self.shards[place.shard].lock();
        let stripe = shard.stripes[place.stripe];
        let replies = shard.store.peek(key).into_iter().flatten();
        Description {
            replies: replies.map(|reply| CachedReply::new(reply, &self.coverages, now)).collect(),
            last: (stripe.tag == place.tag && stripe.reason != Reason::Unknown)
                .then(|| (stripe.reason, now.saturating_sub(stripe.at))),
            fenced: stripe.fences > 0 || self.fences_over_all.load(Ordering::SeqCst) > 0,
        }
    }

    /// At most `limit` keys that are cached now and that `wanted` accepts, in no particular order.
    pub fn keys(&self, limit: usize, now: Micros, mut wanted: impl FnMut(&[u8]) -> bool) -> Vec<Box<[u8]>> {
        let mut keys = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let stands = |reply: &Reply| self.coverages.stands(reply.coverage) && now < reply.expires;
            for (key, replies) in shard.store.iter() {
                if keys.len() >= limit {
                    return keys;
                }
                if replies.iter().any(stands) && wanted(key) {
                    keys.push(key.into());
                }
            }
        }
        keys
    }

    pub fn stats(&self) -> Stats {
        let mut stats = Stats { bytes: self.bytes.load(Ordering::Relaxed) as u64, ..Stats::default() };
        for shard in &self.shards {
            let shard = shard.lock();
            stats.hits += shard.hits;
            stats.misses += shard.misses;
            stats.joined += shard.joined;
            stats.fills += shard.fills;
            stats.entries += shard.store.len() as u64;
        }
        for (sum, reason) in stats.reasons.iter_mut().zip(&self.reasons) {
            *sum = reason.load(Ordering::Relaxed);
        }
        stats
    }
}
