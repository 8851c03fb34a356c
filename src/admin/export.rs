//! The metrics in the OpenMetrics text format: names, units and help as Prometheus has them by convention.

use std::collections::HashSet;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::cache::{Class, Reason};
use crate::metrics::{BUCKETS, Histogram, LOST_LINES, PANICS};
use crate::process::Process;

/// What is known at one moment, as a page.
pub(super) fn metrics(process: &Process) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("nearside");
    registry.register_collector(Box::new(Snapshot(snapshot(process))));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}

/// An OpenMetrics page in Prometheus' text format 0.0.4, where a counter's help and type are of the name that its samples
/// have, and there are neither units nor an end.
pub(super) fn as_text(page: &str) -> String {
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
struct Metric {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Counter(u64),
    Gauge(f64),
    /// A counter for each value of one label.
    Counters(&'static str, Vec<(&'static str, u64)>),
    /// A histogram in seconds for each value of one label.
    Histograms(&'static str, Vec<(&'static str, Vec<u64>, u64)>),
}

#[derive(Debug)]
struct Snapshot(Vec<Metric>);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Metric { name, help, unit, value } in &self.0 {
            let kind = match value {
                Value::Counter(_) | Value::Counters(..) => MetricType::Counter,
                Value::Gauge(_) => MetricType::Gauge,
                Value::Histograms(..) => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
            match value {
                Value::Counter(value) => ConstCounter::new(*value).encode(metric)?,
                Value::Gauge(value) => ConstGauge::new(*value).encode(metric)?,
                Value::Counters(label, values) => {
                    for (is, value) in values {
                        ConstCounter::new(*value).encode(metric.encode_family(&[(*label, *is)])?)?;
                    }
                }
                Value::Histograms(label, values) => {
                    for (is, counts, micros) in values {
                        let bounds = BUCKETS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
                        let buckets: Vec<_> = bounds.zip(counts.iter().copied()).collect();
                        let (sum, count) = (*micros as f64 / 1e6, counts.iter().sum());
                        metric
                            .encode_family(&[(*label, *is)])?
                            .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn snapshot(process: &Process) -> Vec<Metric> {
    let (m, stats) = (&process.metrics, process.cache.stats());
    let coverages = process.cache.coverages();
    let of = |class: Class| -> Vec<_> {
        let no_reason = |reason: &Reason| matches!(reason, Reason::Unknown | Reason::Filled);
        let reasons = Reason::ALL.into_iter().filter(|reason| reason.class() == class && !no_reason(reason));
        reasons.map(|reason| (reason.name(), stats.reasons[reason as usize])).collect()
    };
    let latency = |histogram: &Histogram, path| {
        let (counts, micros) = histogram.read();
        (path, counts, micros)
    };
    // Of the node that was proven longest ago.
    let age = |feed| process.now().saturating_sub(coverages.watermark(feed)) as f64 / 1e6;
    let topology = process.topology();
    let ages = topology.nodes().iter().map(|node| coverages.current(&node.feed).map_or(f64::INFINITY, age));
    let proven = ages.fold(0.0, f64::max);
    let counter = |name, help, value| Metric { name, help, unit: None, value: Value::Counter(value) };
    let gauge = |name, help, value| Metric { name, help, unit: None, value: Value::Gauge(value) };
    let bytes =
        |name, help, value| Metric { name, help, unit: Some(Unit::Bytes), value: Value::Gauge(value) };
    let by =
        |name, help, label, values| Metric { name, help, unit: None, value: Value::Counters(label, values) };
    vec![
        counter("hits", "Reads answered from the cache", stats.hits),
        counter("stale_hits", "Of these, served while the upstream was unreachable", stats.stale_hits),
        counter("misses", "Reads that the cache could not answer", stats.misses),
        counter("shared_flights", "Misses that waited for the fetch of another", stats.joined),
        counter("fills", "Replies that were kept", stats.fills),
        by("bypasses", "Reads that went past the cache, by reason", "reason", of(Class::Bypass)),
        by("unkept_fills", "Replies that were fetched and not kept, by reason", "reason", of(Class::Unkept)),
        by("dropped_entries", "Keys that left the cache, by reason", "reason", of(Class::Change)),
        counter("voided_leases", "Fetches overtaken by a change", stats.reasons[Reason::Voided as usize]),
        counter("evictions", "Keys dropped for memory", stats.reasons[Reason::Evicted as usize]),
        by(
            "invalidations",
            "Invalidations that were heard, by source",
            "source",
            vec![
                ("update", m.heard_updates.get()),
                ("delete", m.heard_deletes.get()),
                ("tracking", m.heard_tracking.get()),
                ("flush", m.heard_flushes.get()),
            ],
        ),
        counter("refreshes", "Replies fetched anew because of an announced update", m.refreshes.get()),
        gauge("entries", "Replies in the cache", stats.entries as f64),
        bytes("cache", "What the cache's entries take, overhead included", stats.bytes as f64),
        bytes("cache_limit", "What the cache's entries may take", process.cache.max_bytes() as f64),
        gauge("clients", "Clients that are connected", m.clients.get() as f64),
        counter("accepted_clients", "Clients that were accepted", m.clients_accepted.get()),
        by(
            "closed_clients",
            "Clients that were refused or sent away, by reason",
            "reason",
            vec![
                ("max_clients", m.clients_refused.get()),
                ("malformed", m.clients_malformed.get()),
                ("http", m.clients_http.get()),
                ("stalled", m.clients_stalled.get()),
                ("killed", m.clients_killed.get()),
            ],
        ),
        counter("requests", "Requests of clients", m.requests.get()),
        counter("upstream_requests", "Requests sent upstream", m.upstream_requests.get()),
        by(
            "upstream_errors",
            "Requests without a reply from the upstream: refused while it was away, or lost with the link",
            "kind",
            vec![("refused", m.upstream_refused.get()), ("lost", m.upstream_lost.get())],
        ),
        gauge("upstream_links", "Connections for requests that stand", m.upstream_links.get() as f64),
        gauge("tracked_links", "Links that the upstream tracks for", coverages.children() as f64),
        gauge(
            "identities",
            "Users, databases and protocols that were lately in use",
            process.idents.count() as f64,
        ),
        counter("closed_idle_links", "Process connections closed because of max-links", m.links_closed.get()),
        counter(
            "uncovered_links",
            "Connections for which nothing can be cached, since too many are in use",
            m.links_uncovered.get(),
        ),
        by(
            "connect_attempts",
            "Connections to the upstream that were tried, whatever came of them",
            "of",
            vec![("links", m.link_attempts.get()), ("feed", m.feed_attempts.get())],
        ),
        counter("dark_links", "Links given up: no answer, though the upstream lived", m.dark_links.get()),
        counter(
            "servers_left",
            "How often all links left a server that took no writes any more for another",
            m.servers_left.get(),
        ),
        counter(
            "spare_links",
            "Links made because another was stuck behind one request",
            m.spare_links.get(),
        ),
        counter("upstream_connects", "Connections made", m.upstream_connects.get()),
        counter("tunnels", "Clients that became a plain tunnel: SYNC, PSYNC, SCRIPT DEBUG", m.tunnels.get()),
        counter("upstream_disconnects", "Connections lost or closed", m.upstream_disconnects.get()),
        counter("announcements", "Changes announced to the namespaces' channels", m.announcements.get()),
        counter("failed_announcements", "Announcements refused or lost", m.announcements_failed.get()),
        counter(
            "corrected_announcements",
            "Announcements of writes that the upstream refused, put right thereupon",
            m.announcements_corrected.get(),
        ),
        counter(
            "owed_announcements",
            "Keys of writes that were lost with their link, for which a delete is announced",
            m.announcements_owed.get(),
        ),
        counter(
            "refused_looks",
            "Times the upstream did not let nearside look whether a key is there",
            m.looks_refused.get(),
        ),
        counter("lost_log_lines", "Lines of the log that nobody took in time", LOST_LINES.get()),
        counter("panics", "Faults in nearside: must stay 0", PANICS.get()),
        gauge("feed_up", "1 while the feed is subscribed", m.feed_up.get() as f64),
        counter("feed_connects", "Connections of the feed", m.feed_connects.get()),
        counter("feed_lapses", "How often the feed was lost or gave no answer in time", m.feed_lapses.get()),
        counter(
            "put_off_questions",
            "Questions of nearside's own that were answered by -BUSY, -LOADING and the like, and asked again",
            m.put_off.get(),
        ),
        counter("refused_trackings", "CLIENT TRACKING refused to a link", m.tracking_refused.get()),
        by(
            "refused_checks",
            "Connections of the feed on which the upstream did not allow INFO at first",
            "check",
            vec![("server", m.server_unchecked.get()), ("swapdb", m.swaps_unchecked.get())],
        ),
        by(
            "audits",
            "Cached replies compared with the upstream's, by outcome",
            "outcome",
            vec![
                ("agreed", m.audits_agreed.get()),
                ("overtaken", m.audits_overtaken.get()),
                ("stale", m.audits_stale.get()),
            ],
        ),
        counter("audit_stale", "Cached replies served beyond the bound: must stay 0", m.audits_stale.get()),
        Metric {
            name: "audit_staleness",
            help: "From the moment an audit saw a difference to the entry's end",
            unit: Some(Unit::Seconds),
            value: Value::Histograms("outcome", vec![latency(&m.audit_staleness, "overtaken")]),
        },
        Metric {
            name: "proven_staleness",
            help: "How long ago the freshness of all coverages was last proven",
            unit: Some(Unit::Seconds),
            value: Value::Gauge(proven),
        },
        Metric {
            name: "request_duration",
            help: "From reading a request to its reply being ready",
            unit: Some(Unit::Seconds),
            value: Value::Histograms(
                "path",
                vec![latency(&m.hit_latency, "hit"), latency(&m.upstream_latency, "upstream")],
            ),
        },
    ]
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
