//! What is told of each namespace and of each node.
//!
//! Invariants: the number of series is bounded. There are as many namespaces as the configuration names, and nodes are told of
//! up to [`MOST_NODES`]; one that is none any more goes with all that it had counted.

use prometheus_client::registry::Unit;

use super::metric::{Is, Metric, Value, by, histograms, latency};
use crate::cache::{GroupStats, Stats};
use crate::process::Process;

/// A histogram takes 21 series.
const MOST_NODES: usize = 128;

/// What is outside of all namespaces has the empty name, which none of them can have.
pub(super) fn of_namespaces(process: &Process, stats: &Stats) -> Vec<Metric> {
    let names = process.namespaces.iter().map(|namespace| namespace.name.as_str());
    let groups: Vec<(String, GroupStats)> =
        [""].into_iter().chain(names).map(str::to_owned).zip(stats.groups.iter().copied()).collect();
    let counts = |count: fn(&GroupStats) -> u64| {
        groups.iter().map(|(name, group)| (name.clone(), count(group))).collect::<Vec<_>>()
    };
    let taken = groups.iter().map(|(name, group)| (Is::from(name.clone()), group.bytes as f64)).collect();
    vec![
        by(
            "namespace_hits",
            "Reads answered from the cache, by namespace",
            "namespace",
            counts(|group| group.hits),
        ),
        by(
            "namespace_misses",
            "Reads that the cache could not answer, by namespace",
            "namespace",
            counts(|group| group.misses),
        ),
        Metric {
            name: "namespace_cache",
            help: "What the cache's entries take, by namespace",
            unit: Some(Unit::Bytes),
            value: Value::Gauges("namespace", taken),
        },
    ]
}

pub(super) fn of_nodes(process: &Process) -> Vec<Metric> {
    let topology = process.topology();
    let nodes = topology.nodes().iter().take(MOST_NODES);
    vec![histograms(
        "upstream_duration",
        "From reading a request to its upstream reply being ready, by the node that gave it",
        "node",
        nodes.map(|node| latency(&node.latency, node.place())).collect(),
    )]
}
