//! The keys that are hit most, as far as samples tell: from a batch of requests now and then one is taken, while somebody
//! looks.
//!
//! Invariants: while nobody looks a batch costs one look at a number, and a hit nothing. Nobody waits: a sample that meets
//! another is lost. So many keys are kept at most, of such a length; the one that was sampled longest ago gives way.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;

/// Keys that are kept. One that has a greater share of the hits than one in so many stays.
const MOST: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// Longer keys are not sampled, in bytes.
const LONGEST: usize = 256;

/// In this time, a hit fades to a third.
const FADES: Duration = Duration::from_secs(60);

/// Batches with so many hits are sampled so seldom.
const LARGE: u64 = 8;

/// See the [module](self).
#[derive(Default)]
pub struct Hot {
    watchers: AtomicUsize,
    turn: AtomicU64,
    counts: Mutex<Option<Counts>>,
}

struct Counts {
    keys: LruCache<Box<[u8]>, f64>,
    faded: Instant,
}

/// A key, and how often it was hit in about the last minute.
#[derive(Clone, Debug, PartialEq)]
pub struct HotKey {
    pub key: Box<[u8]>,
    pub hits: f64,
}

impl Hot {
    /// Somebody looks from now on.
    pub fn watch(&self) {
        self.watchers.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody who has looked does so no more.
    pub fn unwatch(&self) {
        let mut counts = self.counts.lock();
        if self.watchers.fetch_sub(1, Ordering::Relaxed) == 1 {
            *counts = None;
        }
    }

    #[inline(always)]
    pub fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Relaxed) > 0
    }

    /// Whether a batch with so many hits is to be sampled: if so, for how many hits one of it stands, and a number by which to
    /// choose.
    pub fn draw(&self, hits: u64) -> Option<(u64, u64)> {
        let drawn = self.random();
        match hits {
            0 => None,
            1..LARGE => Some((hits, drawn)),
            _ => drawn.is_multiple_of(LARGE).then(|| (hits.saturating_mul(LARGE), drawn / LARGE)),
        }
    }

    /// Notes that this key was hit so often.
    pub fn note(&self, key: &[u8], hits: u64) {
        self.note_at(key, hits, Instant::now());
    }

    fn note_at(&self, key: &[u8], hits: u64, now: Instant) {
        let Some(mut counts) = self.counts.try_lock() else { return };
        // Whoever has looked may have left.
        if key.len() > LONGEST || !self.is_watched() {
            return;
        }
        let counts = counts.get_or_insert_with(|| Counts { keys: LruCache::new(MOST), faded: now });
        match counts.keys.get_mut(key) {
            Some(known) => *known += hits as f64,
            None => drop(counts.keys.put(key.into(), hits as f64)),
        }
    }

    /// The keys that are hit most, at most `most`, the hottest first.
    pub fn top(&self, most: usize) -> Vec<HotKey> {
        self.top_at(most, Instant::now())
    }

    fn top_at(&self, most: usize, now: Instant) -> Vec<HotKey> {
        let mut counts = self.counts.lock();
        let Some(counts) = counts.as_mut() else { return Vec::new() };
        let since = now.saturating_duration_since(std::mem::replace(&mut counts.faded, now));
        let left = (-since.as_secs_f64() / FADES.as_secs_f64()).exp();
        counts.keys.iter_mut().for_each(|(_, hits)| *hits *= left);
        let mut all: Vec<(&Box<[u8]>, f64)> = counts.keys.iter().map(|(key, hits)| (key, *hits)).collect();
        all.retain(|(_, hits)| *hits >= 0.5);
        all.sort_by(|(a, x), (b, y)| y.total_cmp(x).then(a.cmp(b)));
        all.into_iter().take(most).map(|(key, hits)| HotKey { key: key.clone(), hits }).collect()
    }

    fn random(&self) -> u64 {
        /// One number in another's place is enough: nobody is harmed by who guesses it.
        static STATE: std::sync::LazyLock<RandomState> = std::sync::LazyLock::new(RandomState::new);
        STATE.hash_one(self.turn.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(top: &[HotKey]) -> Vec<&str> {
        top.iter().map(|hot| std::str::from_utf8(&hot.key).unwrap()).collect()
    }

    #[test]
    fn the_hottest_come_first_and_fade_and_go_with_the_last_who_looks() {
        let (hot, start) = (Hot::default(), Instant::now());
        hot.note_at(b"early", 9, start);
        assert!(!hot.is_watched() && hot.top_at(9, start).is_empty(), "nobody looks");
        hot.watch();
        hot.watch();
        for (key, hits) in [("a", 3), ("b", 5), ("a", 3), ("c", 1), (&"x".repeat(LONGEST + 1), 100)] {
            hot.note_at(key.as_bytes(), hits, start);
        }
        let top = hot.top_at(2, start);
        assert_eq!((names(&top), top[0].hits), (vec!["a", "b"], 6.0));
        // In two steps as in one.
        hot.top_at(9, start + FADES / 2);
        let top = hot.top_at(9, start + FADES);
        assert!((top[0].hits - 6.0 / std::f64::consts::E).abs() < 1e-6, "{top:?}");
        assert_eq!(names(&top), ["a", "b"], "c is gone");
        hot.unwatch();
        assert_eq!(hot.top_at(9, start + FADES).len(), 2);
        hot.unwatch();
        hot.watch();
        assert!(hot.top_at(9, start + FADES).is_empty(), "whoever comes later begins anew");
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_hot_key_stays() {
        let (hot, start) = (Hot::default(), Instant::now());
        hot.watch();
        for i in 0..20 * MOST.get() {
            hot.note_at(format!("key{i}").as_bytes(), 1, start);
            if i % 100 == 0 {
                hot.note_at(b"hot", 1, start);
            }
        }
        let top = hot.top_at(usize::MAX, start);
        assert_eq!((top.len(), &*top[0].key), (MOST.get(), &b"hot"[..]));
    }

    #[test]
    fn large_batches_are_sampled_seldom_and_count_as_much() {
        let hot = Hot::default();
        assert_eq!(hot.draw(0), None);
        assert!((1..LARGE).all(|hits| hot.draw(hits).is_some_and(|(counts, _)| counts == hits)));
        let counted: u64 = (0..8000).filter_map(|_| hot.draw(64)).map(|(counts, _)| counts).sum();
        assert!((64 * 6000..64 * 10_000).contains(&counted), "{counted}");
    }
}
