//! What two looks at a sidecar tell: rates, ratios and percentiles of the time between them.
//!
//! Invariants: what was not measured is `None` and never 0. A counter that is smaller than before began anew with the process.

use super::source::Seen;

const OF_REQUESTS: &str = "nearside_request_duration_seconds_bucket";
const OF_NODES: &str = "nearside_upstream_duration_seconds_bucket";

/// Nodes that are told of.
const MOST_NODES: usize = 32;

/// See the [module](self). Rates are per second, times in seconds.
#[derive(Debug, Default, PartialEq)]
pub struct Figures {
    pub version: Option<String>,
    pub unready: Option<String>,
    pub clients: Option<f64>,
    pub requests: f64,
    pub hits: f64,
    pub misses: f64,
    pub stale_hits: f64,
    /// Of the reads that might be answered from the cache; of the time between the looks, and since the start.
    pub hit_ratio: Option<f64>,
    pub hit_ratio_ever: Option<f64>,
    pub hit: Latency,
    pub upstream: Latency,
    /// How long ago freshness was proven; infinite while the feed is down.
    pub staleness: Option<f64>,
    pub bytes: Option<f64>,
    pub limit: Option<f64>,
    pub entries: Option<f64>,
    pub bypasses: Vec<Reason>,
    pub dropped: Vec<Reason>,
    pub nodes: Option<f64>,
    pub feeds: Option<f64>,
    pub links: Option<f64>,
    pub form: Option<String>,
    pub upstream_requests: f64,
    pub upstream_errors: f64,
    /// Where writes of namespaces are acknowledged before they are upstream.
    pub write_back: Option<WriteBack>,
    /// How long replies of each node took.
    pub of_nodes: Vec<(String, Latency)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

/// Of all such namespaces together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WriteBack {
    /// Keys that are not flushed yet, and how long the oldest has waited.
    pub dirty: f64,
    pub oldest: f64,
    /// Writes that are in the conflict log.
    pub conflicts: f64,
    /// All of them take writes.
    pub is_open: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    pub name: String,
    pub rate: f64,
    pub total: f64,
}

/// How two looks differ.
struct Between<'s> {
    before: &'s Seen,
    now: &'s Seen,
    seconds: f64,
}

impl Figures {
    pub fn between(before: &Seen, now: &Seen) -> Self {
        let seconds = now.at.saturating_duration_since(before.at).as_secs_f64().max(0.001);
        let between = Between { before, now, seconds };
        let samples = &now.samples;
        let (hits, misses) = (between.rate("nearside_hits_total"), between.rate("nearside_misses_total"));
        let ever = |name| samples.sum(name).unwrap_or(0.0);
        let forms = samples.by("nearside_tracking_form", "form");
        Self {
            version: samples.label("nearside_build_info", "version").map(str::to_owned),
            unready: now.unready.clone(),
            clients: samples.sum("nearside_clients"),
            requests: between.rate("nearside_requests_total"),
            hits,
            misses,
            stale_hits: between.rate("nearside_stale_hits_total"),
            hit_ratio: ratio(hits, misses),
            hit_ratio_ever: ratio(ever("nearside_hits_total"), ever("nearside_misses_total")),
            hit: between.latency(OF_REQUESTS, "path", "hit"),
            upstream: between.latency(OF_REQUESTS, "path", "upstream"),
            staleness: samples.sum("nearside_proven_staleness_seconds"),
            bytes: samples.sum("nearside_cache_bytes"),
            limit: samples.sum("nearside_cache_limit_bytes"),
            entries: samples.sum("nearside_entries"),
            bypasses: between.reasons("nearside_bypasses_total"),
            dropped: between.reasons("nearside_dropped_entries_total"),
            nodes: samples.sum("nearside_nodes"),
            feeds: samples.sum("nearside_feed_up"),
            links: samples.sum("nearside_upstream_links"),
            form: forms.iter().find(|(_, is)| *is == 1.0).map(|(form, _)| (*form).to_owned()),
            upstream_requests: between.rate("nearside_upstream_requests_total"),
            upstream_errors: between.rate("nearside_upstream_errors_total"),
            write_back: write_back(now),
            of_nodes: between.nodes(),
        }
    }
}

impl Between<'_> {
    fn rate(&self, name: &str) -> f64 {
        let [before, now] = [self.before, self.now].map(|seen| seen.samples.sum(name).unwrap_or(0.0));
        grown(before, now) / self.seconds
    }

    /// Those that have happened, the most frequent first.
    fn reasons(&self, name: &str) -> Vec<Reason> {
        let before = self.before.samples.by(name, "reason");
        let was = |is: &str| before.iter().find(|(known, _)| *known == is).map_or(0.0, |(_, total)| *total);
        let all = self.now.samples.by(name, "reason").into_iter().filter(|(_, total)| *total > 0.0);
        let mut reasons: Vec<Reason> = all
            .map(|(is, total)| Reason {
                name: is.to_owned(),
                rate: grown(was(is), total) / self.seconds,
                total,
            })
            .collect();
        reasons.sort_by(|a, b| b.rate.total_cmp(&a.rate).then(b.total.total_cmp(&a.total)));
        reasons
    }

    fn nodes(&self) -> Vec<(String, Latency)> {
        let nodes = self.now.samples.by(OF_NODES, "node").into_iter().take(MOST_NODES);
        nodes.map(|(node, _)| (node.to_owned(), self.latency(OF_NODES, "node", node))).collect()
    }

    /// Of the histogram with these buckets whose label is this.
    fn latency(&self, name: &str, label: &str, is: &str) -> Latency {
        let [before, now] = [self.before, self.now].map(|seen| seen.samples.buckets(name, label, is));
        let was =
            |bound: f64| before.iter().find(|(known, _)| *known == bound).map_or(0.0, |(_, count)| *count);
        let began_anew = now.iter().any(|(bound, count)| *count < was(*bound));
        let grown: Vec<(f64, f64)> = now
            .iter()
            .map(|(bound, count)| (*bound, if began_anew { *count } else { count - was(*bound) }))
            .collect();
        Latency { p50: quantile(&grown, 0.5), p99: quantile(&grown, 0.99) }
    }
}

fn write_back(now: &Seen) -> Option<WriteBack> {
    let all = |name| now.samples.by(name, "namespace").into_iter().map(|(_, value)| value);
    Some(WriteBack {
        dirty: now.samples.sum("nearside_writeback_dirty_keys")?,
        oldest: all("nearside_writeback_oldest_seconds").fold(0.0, f64::max),
        conflicts: now.samples.sum("nearside_writeback_conflict_log_entries")?,
        is_open: all("nearside_writeback_open").all(|open| open == 1.0),
    })
}

fn grown(before: f64, now: f64) -> f64 {
    if now < before { now } else { now - before }
}

fn ratio(hits: f64, misses: f64) -> Option<f64> {
    (hits + misses > 0.0).then(|| hits / (hits + misses))
}

/// As Prometheus' `histogram_quantile`: within a bucket all are taken to be spread evenly, and what is above the last
/// bound is told as that.
fn quantile(buckets: &[(f64, f64)], of: f64) -> Option<f64> {
    let all = buckets.last()?.1;
    if all <= 0.0 {
        return None;
    }
    let (mut below, mut counted) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= of * all && *count > counted {
            return Some(match bound.is_finite() {
                true => below + (bound - below) * (of * all - counted) / (count - counted),
                false => below,
            });
        }
        (below, counted) = (*bound, *count);
    }
    Some(below)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::top::samples::Samples;

    #[test]
    fn a_quantile_is_that_of_prometheus() {
        let buckets = [(0.001, 50.0), (0.002, 90.0), (0.005, 99.0), (f64::INFINITY, 100.0)];
        assert_eq!(quantile(&buckets, 0.5), Some(0.001));
        assert_eq!(quantile(&buckets, 0.99), Some(0.005));
        assert_eq!(quantile(&buckets, 0.999), Some(0.005), "above the last bound nothing is known");
        let p70 = quantile(&buckets, 0.7).unwrap();
        assert!((p70 - 0.0015).abs() < 1e-9, "{p70}");
        assert_eq!(quantile(&[(0.1, 0.0), (f64::INFINITY, 0.0)], 0.5), None);
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn rates_are_of_the_time_between_and_a_restart_begins_anew() {
        let start = Instant::now();
        let seen = |seconds, text: &str| Seen {
            at: start + Duration::from_secs(seconds),
            samples: Samples::parse(text),
            unready: None,
        };
        let page = |hits, misses, wrong| {
            format!(
                "nearside_hits_total {hits}\nnearside_misses_total {misses}\n\
                 nearside_bypasses_total{{reason=\"user\"}} {wrong}\nnearside_bypasses_total{{reason=\"never\"}} 0\n"
            )
        };
        let first = seen(0, &page(100, 100, 5));
        let figures = Figures::between(&first, &seen(2, &page(160, 120, 5)));
        assert_eq!((figures.hits, figures.misses), (30.0, 10.0));
        assert_eq!((figures.hit_ratio, figures.hit_ratio_ever), (Some(0.75), Some(160.0 / 280.0)));
        assert_eq!(figures.bypasses, [Reason { name: "user".into(), rate: 0.0, total: 5.0 }]);
        assert_eq!((figures.hit, figures.staleness), (Latency::default(), None), "not measured");
        let restarted = Figures::between(&first, &seen(2, &page(10, 0, 2)));
        assert_eq!((restarted.hits, restarted.misses, restarted.bypasses[0].rate), (5.0, 0.0, 1.0));
        let silent = Figures::between(&first, &seen(2, &page(100, 100, 5)));
        assert_eq!(silent.hit_ratio, None);
    }
}
