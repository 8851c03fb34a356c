//! The metrics in the OpenMetrics text format: names, units and help as Prometheus has them by convention.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use hyper::{Response, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::accept::wants_open_metrics;
use super::answer::{Body, page_of, text as text_of};
use super::asked::Asked;
use super::exemplars;
use super::listed::all;
use super::metric::{Metric, Times, Value};
use super::running;
use crate::metrics::BUCKETS;
use crate::process::Process;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const TEXT_METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

const NEARSIDE: &str = "nearside";

/// `/metrics`, in the format that is asked for.
pub(super) fn page(asked: &Asked) -> Response<Body> {
    let open = wants_open_metrics(asked.request.headers());
    match metrics(asked.process(), open) {
        Ok(page) if open => page_of(StatusCode::OK, OPEN_METRICS, page),
        Ok(page) => page_of(StatusCode::OK, TEXT_METRICS, as_text(&page)),
        Err(_) => text_of(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n"),
    }
}

/// What is known at one moment, as an OpenMetrics page; with exemplars, which the text format does not have.
fn metrics(process: &Process, exemplified: bool) -> Result<String, fmt::Error> {
    let (mut registry, ours) = (Registry::default(), Arc::new(all(process)));
    for (prefix, metrics) in [(NEARSIDE, ours.clone()), (running::PROCESS, running::process().into())] {
        registry.sub_registry_with_prefix(prefix).register_collector(Box::new(Snapshot(metrics)));
    }
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(if exemplified { exemplars::added(page, NEARSIDE, &ours) } else { page })
}

/// An OpenMetrics page in Prometheus' text format 0.0.4, where a counter's help and type are of the name that its samples
/// have, and there are neither units nor an end.
fn as_text(page: &str) -> String {
    let words = |line: &str| line.split(' ').nth(2).map(str::to_owned);
    let counters: HashSet<String> = page
        .lines()
        .filter(|line| line.starts_with("# TYPE ") && line.ends_with(" counter"))
        .filter_map(words)
        .collect();
    let mut text = String::with_capacity(page.len());
    for line in page.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        match words(line).filter(|name| line.starts_with("# ") && counters.contains(name)) {
            Some(name) => text += &line.replacen(&name, &format!("{name}_total"), 1),
            None => text += line,
        }
        text.push('\n');
    }
    text
}

#[derive(Debug)]
struct Snapshot(Arc<Vec<Metric>>);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Metric { name, help, unit, value } in self.0.iter() {
            let kind = match value {
                Value::Counter(_) | Value::Sum(_) | Value::Counters(..) | Value::Table(..) => {
                    MetricType::Counter
                }
                Value::Gauge(_) | Value::Info(_) | Value::Gauges(..) => MetricType::Gauge,
                Value::Histograms(..) => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
            match value {
                Value::Counter(value) => ConstCounter::new(*value).encode(metric)?,
                Value::Gauge(value) => ConstGauge::new(*value).encode(metric)?,
                Value::Sum(value) => ConstCounter::new(*value).encode(metric)?,
                Value::Info(labels) => ConstGauge::new(1u64).encode(metric.encode_family(labels)?)?,
                Value::Counters(label, values) => {
                    for (is, value) in values {
                        ConstCounter::new(*value).encode(metric.encode_family(&[(*label, &**is)])?)?;
                    }
                }
                Value::Table([one, other], values) => {
                    for ([is, also], value) in values {
                        let labels = [(*one, &**is), (*other, &**also)];
                        ConstCounter::new(*value).encode(metric.encode_family(&labels)?)?;
                    }
                }
                Value::Gauges(label, values) => {
                    for (is, value) in values {
                        ConstGauge::new(*value).encode(metric.encode_family(&[(*label, &**is)])?)?;
                    }
                }
                Value::Histograms(label, values) => {
                    for Times { is, counts, micros, .. } in values {
                        let bounds = BUCKETS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
                        let buckets: Vec<_> = bounds.zip(counts.iter().copied()).collect();
                        let (sum, count) = (*micros as f64 / 1e6, counts.iter().sum());
                        metric
                            .encode_family(&[(*label, &**is)])?
                            .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_text_format_each_sample_has_its_own_help() {
        let page = "# HELP n_hits Reads.\n# TYPE n_hits counter\nn_hits_total 3\n# HELP n_hits_rate A rate.\n\
                    # TYPE n_hits_rate gauge\n# UNIT n_hits_rate seconds\nn_hits_rate 0.5\n# EOF\n";
        let text = "# HELP n_hits_total Reads.\n# TYPE n_hits_total counter\nn_hits_total 3\n\
                    # HELP n_hits_rate A rate.\n# TYPE n_hits_rate gauge\nn_hits_rate 0.5\n";
        assert_eq!(as_text(page), text);
    }
}
