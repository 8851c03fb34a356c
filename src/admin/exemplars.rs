//! Exemplars behind the buckets of an OpenMetrics page. The encoder writes those alone that its own histograms have kept.
//!
//! Invariants: they stand behind lines that are there, and change none. The encoder writes the buckets of a histogram in
//! their order, and its series in theirs.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::SystemTime;

use super::metric::{Metric, Times, Value};
use crate::metrics::{BUCKETS, Exemplar};

/// Of each series of one histogram, and how many of its buckets were met so far.
type OfHistogram<'m> = (&'m [Times], usize);

/// The page of these metrics, with their exemplars; `prefix` stands in front of their names.
pub(super) fn added(page: String, prefix: &str, metrics: &[Metric]) -> String {
    let mut histograms: HashMap<String, OfHistogram<'_>> =
        metrics.iter().filter_map(|metric| traced(prefix, metric)).collect();
    if histograms.is_empty() {
        return page;
    }
    let mut with = String::with_capacity(page.len() + page.len() / 16);
    for line in page.lines() {
        with += line;
        let histogram = line.split_once("_bucket{").and_then(|(name, _)| histograms.get_mut(name));
        if let Some(exemplar) = histogram.and_then(next) {
            write(&mut with, exemplar);
        }
        with.push('\n');
    }
    with
}

/// A histogram of which something was traced, by its name on the page.
fn traced<'m>(prefix: &str, metric: &'m Metric) -> Option<(String, OfHistogram<'m>)> {
    let Value::Histograms(_, series) = &metric.value else { return None };
    series.iter().find(|times| !times.exemplars.is_empty())?;
    let unit = metric.unit.as_ref().map_or(String::new(), |unit| format!("_{}", unit.as_str()));
    Some((format!("{prefix}_{}{unit}", metric.name), (series, 0)))
}

/// Of the next bucket.
fn next<'m>((series, met): &mut OfHistogram<'m>) -> Option<&'m Exemplar> {
    let (times, bucket) = (series.get(*met / (BUCKETS.len() + 1)), *met % (BUCKETS.len() + 1));
    *met += 1;
    times?.exemplars.iter().find(|(of, _)| *of == bucket).map(|(_, exemplar)| exemplar)
}

fn write(page: &mut String, exemplar: &Exemplar) {
    let Exemplar { trace, span, micros, at } = exemplar;
    let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Into a string it cannot fail.
    let _ = write!(
        page,
        " # {{trace_id=\"{trace:032x}\",span_id=\"{span:016x}\"}} {} {}.{:06}",
        *micros as f64 / 1e6,
        at.as_secs(),
        at.subsec_micros()
    );
}
