//! What is known at this moment, as a listener is told it.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::history::{Counts, Times, milliseconds, tenths};
use crate::admin::listed::reasons;
use crate::admin::ready::state;
use crate::admin::shown::{escaped, in_query};
use crate::cache::{Class, Stats};
use crate::metrics::{EVENTS, Event, Level};
use crate::process::{Back, Node, Process, micros};

/// Nodes, and namespaces, that are told of.
const MOST: usize = 128;

/// Keys that are told of.
const MOST_KEYS: usize = 10;

/// What one listener was told last.
pub(super) struct Told {
    /// What it knows of events and samples.
    pub(super) events: u64,
    pub(super) samples: u64,
    pub(super) counts: Option<Counts>,
}

/// All of it but the samples. What is told from then on is noted in `told`.
pub(super) fn now(process: &Process, draining: bool, told: &mut Told) -> Map<String, Value> {
    let (metrics, stats) = (&process.metrics, process.cache.stats());
    let (state, why) = state(process, draining);
    let counts = Counts::of(process, &stats);
    let latency = latency(&counts, told.counts.as_ref());
    told.counts = Some(counts);
    let events = EVENTS.since(told.events);
    told.events = events.last().map_or(told.events, |event| event.number);
    let keys = process.settings.admin_keys;
    let told: [(&str, Value); 19] = [
        ("at", json!(milliseconds(SystemTime::now()))),
        ("state", json!(state.name())),
        ("why", json!(why)),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("uptime", json!(process.uptime().as_secs())),
        ("clients", json!(metrics.clients.get())),
        ("requests", json!(metrics.requests.get())),
        ("hits", json!(stats.hits)),
        ("stale_hits", json!(stats.stale_hits)),
        ("misses", json!(stats.misses)),
        ("latency", latency),
        ("staleness", staleness(process)),
        ("memory", memory(process, &stats)),
        ("dropped", counted(Class::Change, &stats)),
        ("bypasses", counted(Class::Bypass, &stats)),
        ("namespaces", namespaces(process, &stats)),
        ("nodes", nodes(process)),
        ("hot", json!(keys.then(|| hot(process)))),
        ("events", events.into_iter().map(|event| event_of(event, keys)).collect()),
    ];
    told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn latency(now: &Counts, before: Option<&Counts>) -> Value {
    let of = |times: fn(&Counts) -> &Times| {
        let quantile = |share| times(now).quantile(times(before?), share);
        json!({ "p50": quantile(0.5), "p99": quantile(0.99) })
    };
    json!({ "hit": of(|counts| &counts.hit), "upstream": of(|counts| &counts.upstream) })
}

/// How long ago the freshness of what this node gave was proven, in microseconds; `None` without a feed.
fn proven_of(process: &Process, node: &Node) -> Option<u64> {
    let coverages = process.cache.coverages();
    let feed = coverages.current(&node.feed)?;
    Some(process.now().saturating_sub(coverages.watermark(feed)))
}

/// Likewise of all nodes together.
pub(super) fn proven(process: &Process) -> Option<u64> {
    let topology = process.topology();
    topology
        .nodes()
        .iter()
        .map(|node| proven_of(process, node))
        .try_fold(0, |most, proven| Some(most.max(proven?)))
}

fn staleness(process: &Process) -> Value {
    json!({
        "proven": proven(process),
        "bound": micros(process.tightest_staleness()),
        "active": process.is_active(process.now()),
    })
}

fn memory(process: &Process, stats: &Stats) -> Value {
    json!({ "bytes": stats.bytes, "max": process.cache.max_bytes(), "entries": stats.entries })
}

fn counted(class: Class, stats: &Stats) -> Value {
    reasons(class, stats).into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect()
}

fn namespaces(process: &Process, stats: &Stats) -> Value {
    let all = process.namespaces.iter().take(MOST);
    all.map(|namespace| {
        let of = stats.groups.get(namespace.number()).copied().unwrap_or_default();
        json!({
            "name": namespace.name,
            "prefix": escaped(namespace.prefix()),
            "tracking": process.wanted_tracking(Some(namespace)).name(),
            "hits": of.hits,
            "misses": of.misses,
            "bytes": of.bytes,
            "back": process.back(Some(namespace)).map(|back| write_back(process, back)),
        })
    })
    .collect()
}

/// Of a namespace whose writes are acknowledged here: keys that are not flushed yet, for how many microseconds the oldest of them
/// has waited, entries of the conflict log, and whether writes are taken.
fn write_back(process: &Process, back: &Back) -> Value {
    json!({
        "dirty": back.dirty(),
        "oldest": back.oldest_age(process.now()),
        "conflicts": back.conflict_log_size().0,
        "open": back.is_open().name(),
    })
}

fn nodes(process: &Process) -> Value {
    let topology = process.topology();
    let all = topology.nodes().iter().take(MOST);
    all.map(|node| {
        json!({
            "address": node.upstream.address.to_string(),
            "feed": if node.is_up() { "up" } else { "down" },
            "form": process.form(node).name(),
            "links": node.links.get(),
            "proven": proven_of(process, node),
        })
    })
    .collect()
}

fn hot(process: &Process) -> Value {
    let top = process.hot.top(MOST_KEYS).into_iter();
    top.map(|hot| {
        let replies = process.cache.describe(&hot.key, process.now()).replies;
        json!({
            "key": escaped(&hot.key),
            "query": in_query(&hot.key),
            "hits": tenths(hot.hits),
            "bytes": replies.iter().map(|reply| reply.bytes).sum::<usize>(),
        })
    })
    .collect()
}

fn event_of(event: Event, keys: bool) -> Value {
    let level = match event.level {
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    let text = event.with_keys.filter(|_| keys).unwrap_or(event.text);
    json!({ "at": milliseconds(event.at), "level": level, "text": text })
}
