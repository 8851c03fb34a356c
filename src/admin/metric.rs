//! One metric: its name, what it means, and what it is now.

use std::borrow::Cow;

use prometheus_client::registry::Unit;

use crate::metrics::{Counter, Exemplar, Histogram};

#[derive(Debug)]
pub(super) struct Metric {
    /// Without the unit, and without the `_total` of a counter.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) unit: Option<Unit>,
    pub(super) value: Value,
}

/// A value of a label.
pub(super) type Is = Cow<'static, str>;

#[derive(Debug)]
pub(super) enum Value {
    Counter(u64),
    Gauge(f64),
    /// A counter of what is no whole number.
    Sum(f64),
    /// A 1 whose labels tell something.
    Info(Vec<(&'static str, &'static str)>),
    /// A counter for each value of one label.
    Counters(&'static str, Vec<(Is, u64)>),
    /// A counter for each pair of values of two labels.
    Table([&'static str; 2], Vec<([Is; 2], u64)>),
    /// A gauge for each value of one label.
    Gauges(&'static str, Vec<(Is, f64)>),
    /// A histogram in seconds for each value of one label.
    Histograms(&'static str, Vec<Times>),
}

/// How long things took.
#[derive(Debug)]
pub(super) struct Times {
    /// The value of the label.
    pub(super) is: Is,
    /// The count in each bucket.
    pub(super) counts: Vec<u64>,
    pub(super) micros: u64,
    /// By the number of the bucket.
    pub(super) exemplars: Vec<(usize, Exemplar)>,
}

pub(super) fn counter(name: &'static str, help: &'static str, value: u64) -> Metric {
    Metric { name, help, unit: None, value: Value::Counter(value) }
}

pub(super) fn gauge(name: &'static str, help: &'static str, value: f64) -> Metric {
    Metric { name, help, unit: None, value: Value::Gauge(value) }
}

pub(super) fn bytes(name: &'static str, help: &'static str, value: f64) -> Metric {
    Metric { name, help, unit: Some(Unit::Bytes), value: Value::Gauge(value) }
}

/// A counter for each value of a label.
pub(super) fn by<I: Into<Is>>(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    values: Vec<(I, u64)>,
) -> Metric {
    let values = values.into_iter().map(|(is, value)| (is.into(), value)).collect();
    Metric { name, help, unit: None, value: Value::Counters(label, values) }
}

/// A histogram for each value of a label.
pub(super) fn histograms(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    values: Vec<Times>,
) -> Metric {
    Metric { name, help, unit: Some(Unit::Seconds), value: Value::Histograms(label, values) }
}

pub(super) fn latency(histogram: &Histogram, is: impl Into<Is>) -> Times {
    let ((counts, micros), exemplars) = (histogram.read(), histogram.exemplars.read());
    Times { is: is.into(), counts, micros, exemplars }
}

/// These counters, by their names.
pub(super) fn counted(names: &[&'static str], counters: &[Counter]) -> Vec<(&'static str, u64)> {
    names.iter().copied().zip(counters.iter().map(Counter::get)).collect()
}
