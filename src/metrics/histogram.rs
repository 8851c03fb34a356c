//! How long things took, by buckets, and the newest trace of each bucket.
//!
//! Invariants: an exemplar stands in the bucket that counts it, for both are found by the same time. There is one for each
//! bucket at most, and nothing is taken up for them until there is one.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

/// Upper bounds of the buckets, in microseconds.
pub const BUCKETS: [u64; 18] = [
    10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 5_000_000, 30_000_000,
];

/// How long things took.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last one is for what is above all bounds.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
    pub exemplars: Exemplars,
}

/// The number of the bucket that counts what took so long.
fn bucket_of(micros: u64) -> usize {
    BUCKETS.iter().position(|bound| micros <= *bound).unwrap_or(BUCKETS.len())
}

impl Histogram {
    /// Counts `times` things that took `micros` each.
    pub fn observe(&self, micros: u64, times: u64) {
        self.buckets[bucket_of(micros)].fetch_add(times, Ordering::Relaxed);
        self.micros.fetch_add(micros * times, Ordering::Relaxed);
    }

    /// The count in each bucket, and the sum of all times in microseconds.
    pub fn read(&self) -> (Vec<u64>, u64) {
        let buckets = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        (buckets, self.micros.load(Ordering::Relaxed))
    }
}

/// Something that was traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exemplar {
    /// The numbers of its trace and its span.
    pub trace: u128,
    pub span: u64,
    /// How long it took.
    pub micros: u64,
    /// When it ended.
    pub at: SystemTime,
}

/// By bucket.
#[derive(Debug, Default)]
pub struct Exemplars(OnceLock<Mutex<OfBuckets>>);

type OfBuckets = [Option<Exemplar>; BUCKETS.len() + 1];

impl Exemplars {
    pub fn note(&self, exemplar: Exemplar) {
        self.0.get_or_init(Mutex::default).lock()[bucket_of(exemplar.micros)] = Some(exemplar);
    }

    /// One for each bucket that has one, with the bucket's number.
    pub fn read(&self) -> Vec<(usize, Exemplar)> {
        let Some(all) = self.0.get() else { return Vec::new() };
        let all = *all.lock();
        all.into_iter().enumerate().filter_map(|(bucket, exemplar)| Some((bucket, exemplar?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_bucket_that_bounds_it() {
        let histogram = Histogram::default();
        histogram.observe(10, 1);
        histogram.observe(11, 2);
        histogram.observe(u64::from(u32::MAX), 1);
        let (buckets, sum) = histogram.read();
        assert_eq!((buckets[0], buckets[1], buckets[BUCKETS.len()]), (1, 2, 1));
        assert_eq!(sum, 10 + 22 + u64::from(u32::MAX));
    }

    #[test]
    fn the_newest_stands_in_the_bucket_that_counts_it() {
        let exemplars = Exemplars::default();
        assert!(exemplars.read().is_empty());
        let of = |trace, micros| Exemplar { trace, span: 1, micros, at: SystemTime::UNIX_EPOCH };
        let slow = of(3, u64::from(u32::MAX));
        [of(1, 10), of(2, 11), of(4, 20), slow].into_iter().for_each(|one| exemplars.note(one));
        assert_eq!(exemplars.read(), [(0, of(1, 10)), (1, of(4, 20)), (BUCKETS.len(), slow)]);
    }
}
