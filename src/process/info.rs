//! The `# Nearside` section of `INFO`: what nearside has done so far, for a person and for scripts.

use std::fmt::Write as _;

use super::reports::Form;
use super::shared::{Back, Process};
use crate::cache::{Reason, Stats};
use crate::namespace::Tracking;

/// The `# Nearside` section, in the manner of `INFO`.
pub fn section(process: &Process) -> String {
    let stats = process.cache.stats();
    let metrics = &process.metrics;
    let mut out = String::from("# Nearside\r\n");
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _ = write!(out, "{name}:{value}\r\n");
    };
    line("nearside_version", &env!("CARGO_PKG_VERSION"));
    line("nearside_uptime_in_seconds", &process.uptime().as_secs());
    line("nearside_clients", &metrics.clients.get());
    line("nearside_requests", &metrics.requests.get());
    line("nearside_hits", &stats.hits);
    line("nearside_stale_hits", &stats.stale_hits);
    line("nearside_misses", &stats.misses);
    line("nearside_hit_ratio", &format_args!("{:.4}", hit_ratio(&stats)));
    line("nearside_shared_flights", &stats.joined);
    line("nearside_fills", &stats.fills);
    line("nearside_entries", &stats.entries);
    line("nearside_bytes", &stats.bytes);
    line("nearside_max_bytes", &process.cache.max_bytes());
    line("nearside_feed", &feed(process));
    line("nearside_tracking", &tracking(process));
    line("nearside_tracking_form", &form(process));
    line("nearside_tracked_links", &process.cache.coverages().children());
    line("nearside_feed_links", &metrics.feed_links.get());
    line("nearside_proven_staleness_us", &proven(process));
    line("nearside_upstream_links", &metrics.upstream_links.get());
    line("nearside_identities", &process.idents.count());
    line("nearside_upstream_requests", &metrics.upstream_requests.get());
    line("nearside_upstream_lost", &metrics.upstream_lost.get());
    line("nearside_upstream_refused", &metrics.upstream_refused.get());
    line("nearside_announcements", &metrics.announcements.get());
    line("nearside_announcements_failed", &metrics.announcements_failed.get());
    line("nearside_spare_links", &metrics.spare_links.get());
    line("nearside_servers_left", &metrics.servers_left.get());
    line("nearside_sentinels", &metrics.sentinels.get());
    line("nearside_feed_lapses", &metrics.feed_lapses.get());
    line("nearside_audits_agreed", &metrics.audits_agreed.get());
    line("nearside_audits_overtaken", &metrics.audits_overtaken.get());
    line("nearside_audits_stale", &metrics.audits_stale.get());
    write_back(process).iter().for_each(|(name, words)| line(name, words));
    for reason in Reason::ALL {
        let count = stats.reasons[reason as usize];
        if count > 0 {
            line(&format!("nearside_reason_{}", reason.name()), &count);
        }
    }
    out
}

/// Of each namespace whose writes are acknowledged here: what its line is called, and what it says.
pub fn write_back(process: &Process) -> Vec<(String, String)> {
    let of = |back: &Back| {
        let (conflicts, conflict_bytes) = back.conflict_log_size();
        let oldest = back.oldest_age(process.now()).unwrap_or(0) / 1000;
        let words = format!(
            "dirty_keys={},dirty_bytes={},dirty_oldest_ms={oldest},acknowledged={},flushes={},conflicts={},\
             conflict_log={conflicts},conflict_log_bytes={conflict_bytes},journal_bytes={},journal_failures={},open={}",
            back.dirty(),
            back.bytes(),
            back.stats.acknowledged.get(),
            back.stats.flushes.get(),
            back.stats.conflicts.get(),
            back.stats.journal_bytes.get(),
            back.stats.journal_failures.get(),
            back.is_open().name(),
        );
        (format!("nearside_writeback_{}", back.name), words)
    };
    process.backs().map(of).collect()
}

/// Whether the feeds of all nodes are subscribed, or of some.
fn feed(process: &Process) -> &'static str {
    match process.feeds_up() {
        0 => "down",
        up if up < process.topology().nodes().len() => "part",
        _ => "up",
    }
}

/// How the upstream tells of changes, in the words of the setting.
fn tracking(process: &Process) -> &'static str {
    match (process.tracks(Tracking::Keys), process.tracks(Tracking::Prefix)) {
        (true, true) => "keys,prefix",
        (true, false) => "keys",
        (false, true) => "prefix",
        (false, false) => "off",
    }
}

/// In which form it does; where nodes differ, the weakest.
fn form(process: &Process) -> &'static str {
    let topology = process.topology();
    topology.nodes().iter().map(|node| process.form(node)).max().map_or("none", Form::name)
}

fn hit_ratio(stats: &Stats) -> f64 {
    let all = stats.hits + stats.misses;
    if all == 0 { 0.0 } else { stats.hits as f64 / all as f64 }
}

/// How long ago the freshness of all coverages was last proven, in microseconds; -1 without a feed.
fn proven(process: &Process) -> i64 {
    let oldest = process.cache.coverages().oldest_watermark();
    oldest.map_or(-1, |proven| process.now().saturating_sub(proven) as i64)
}
