//! The last quarter of an hour, in samples of the counters.
//!
//! Invariants: at most [`MOST`] samples are kept. A sample tells of the time since the one before it alone; where nothing was
//! measured in that time, it says so.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::cache::Stats;
use crate::metrics::{BUCKETS, Histogram};
use crate::process::Process;

/// How often a sample is taken.
pub(super) const EVERY: Duration = Duration::from_secs(5);

/// Samples that are kept.
const MOST: usize = 180;

/// What the numbers of a sample are, in this order: the time in milliseconds since 1970, rates per second, and microseconds.
const COLUMNS: [&str; 10] = [
    "at",
    "requests",
    "hits",
    "misses",
    "hit_p50",
    "hit_p99",
    "upstream_p50",
    "upstream_p99",
    "staleness",
    "bytes",
];

/// How often things took how long until now, by the buckets of a histogram.
#[derive(Clone, Debug)]
pub(super) struct Times(Vec<u64>);

impl Times {
    pub(super) fn of(histogram: &Histogram) -> Self {
        Self(histogram.read().0)
    }

    /// In what time this share of what was counted since then was done, in microseconds, as far as the buckets tell; `None` if
    /// nothing was counted.
    pub(super) fn quantile(&self, since: &Times, share: f64) -> Option<f64> {
        let counts: Vec<u64> =
            self.0.iter().zip(&since.0).map(|(now, then)| now.saturating_sub(*then)).collect();
        let wanted = counts.iter().sum::<u64>() as f64 * share;
        let (mut below, mut lower) = (0.0, 0.0);
        for (count, upper) in counts.iter().zip(BUCKETS) {
            let (count, upper) = (*count as f64, upper as f64);
            if count > 0.0 && below + count >= wanted {
                let within = (wanted - below) / count;
                return Some(tenths(lower + (upper - lower) * within));
            }
            (below, lower) = (below + count, upper);
        }
        // Above all bounds there is but the last of them to tell.
        (wanted > 0.0).then_some(lower)
    }
}

/// To one place behind the point.
pub(super) fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// What was counted until now, of which a sample tells the difference.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    pub(super) at: Instant,
    pub(super) requests: u64,
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) hit: Times,
    pub(super) upstream: Times,
}

impl Counts {
    pub(super) fn of(process: &Process, stats: &Stats) -> Self {
        let metrics = &process.metrics;
        Self {
            at: Instant::now(),
            requests: metrics.requests.get(),
            hits: stats.hits,
            misses: stats.misses,
            hit: Times::of(&metrics.hit_latency),
            upstream: Times::of(&metrics.upstream_latency),
        }
    }
}

/// See the [module](self).
#[derive(Default)]
pub(super) struct History {
    last: Option<Counts>,
    /// How many there were so far.
    count: u64,
    samples: VecDeque<Value>,
}

impl History {
    /// Adds what has happened since the last time, if that is not the first.
    pub(super) fn add(&mut self, counts: Counts, staleness: Option<u64>, bytes: u64) {
        let Some(before) = self.last.replace(counts.clone()) else { return };
        let seconds = counts.at.saturating_duration_since(before.at).as_secs_f64().max(1e-3);
        let rate = |now: u64, then: u64| tenths(now.saturating_sub(then) as f64 / seconds);
        let sample = json!([
            milliseconds(SystemTime::now()),
            rate(counts.requests, before.requests),
            rate(counts.hits, before.hits),
            rate(counts.misses, before.misses),
            counts.hit.quantile(&before.hit, 0.5),
            counts.hit.quantile(&before.hit, 0.99),
            counts.upstream.quantile(&before.upstream, 0.5),
            counts.upstream.quantile(&before.upstream, 0.99),
            staleness,
            bytes,
        ]);
        if self.samples.len() >= MOST {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        self.count += 1;
    }

    /// What was counted until the last sample.
    pub(super) fn last(&self) -> Option<&Counts> {
        self.last.as_ref()
    }

    /// How many samples there were so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Of these, those beyond the first `known`, as far as they are kept.
    pub(super) fn since(&self, known: u64) -> Vec<Value> {
        let new = usize::try_from(self.count.saturating_sub(known)).unwrap_or(MOST);
        let skipped = self.samples.len().saturating_sub(new);
        self.samples.iter().skip(skipped).cloned().collect()
    }

    /// All of it, for who begins to listen.
    pub(super) fn all(&self) -> Value {
        json!({ "every": EVERY.as_secs(), "columns": COLUMNS, "samples": self.samples })
    }
}

/// Since 1970.
pub(super) fn milliseconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(at: Instant, requests: u64) -> Counts {
        let nothing = Times::of(&Histogram::default());
        Counts { at, requests, hits: requests / 2, misses: 0, hit: nothing.clone(), upstream: nothing }
    }

    #[test]
    fn quantiles_are_of_what_was_counted_since() {
        let histogram = Histogram::default();
        histogram.observe(3, 1000);
        let before = Times::of(&histogram);
        let since = |share| Times::of(&histogram).quantile(&before, share);
        assert_eq!(since(0.5), None, "nothing since");
        histogram.observe(15, 98);
        histogram.observe(1500, 2);
        assert_eq!(since(0.5), Some(15.1), "in the bucket of 10 to 20");
        assert_eq!(since(0.99), Some(1500.0), "half of the way from 1,000 to 2,000");
        histogram.observe(40_000_000, 1000);
        assert_eq!(since(0.99), Some(30_000_000.0), "as much as can be told");
    }

    #[test]
    fn a_sample_tells_of_its_own_time_and_the_oldest_gives_way() {
        let (mut history, start) = (History::default(), Instant::now());
        history.add(counts(start, 100), None, 7);
        assert_eq!((history.count(), history.since(0).len()), (0, 0), "there is nothing to compare with");
        history.add(counts(start + EVERY, 150), Some(9), 8);
        let sample = &history.since(0)[0];
        assert_eq!(sample.as_array().map(Vec::len), Some(COLUMNS.len()));
        let null = Value::Null;
        let rest = [json!(10.0), json!(5.0), json!(0.0), null.clone(), null.clone(), null.clone(), null];
        assert_eq!(sample.as_array().unwrap()[1..8], rest);
        assert_eq!(sample.as_array().unwrap()[8..], [json!(9), json!(8)]);
        for i in 2..MOST as u32 + 9 {
            history.add(counts(start + EVERY * i, 150), None, u64::from(i));
        }
        assert_eq!(history.all()["samples"].as_array().map(Vec::len), Some(MOST));
        assert_eq!(history.since(0).len(), MOST);
        let last = history.since(history.count() - 2);
        assert_eq!(last.iter().map(|sample| sample[9].as_u64()).collect::<Vec<_>>(), [Some(187), Some(188)]);
        assert!(history.since(history.count()).is_empty());
    }
}
