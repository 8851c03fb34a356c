//! All metrics: their names, what they mean, and what they are now.

use std::borrow::Cow;

use prometheus_client::registry::Unit;

use super::metric::{Metric, Value, by, bytes, counted, counter, gauge, histograms, latency};
use super::write_back::of_write_back;
use super::{per_part, running};
use crate::cache::{Class, Reason, Stats};
use crate::metrics::{ADMIN_REFUSED, LOST_LINES, Metrics, PANICS, REDIRECTS, UNRESENT};
use crate::process::{Form, HandshakeFailure, Process};

/// What is known at one moment, in the order of the page.
pub(super) fn all(process: &Process) -> Vec<Metric> {
    let (metrics, stats) = (&process.metrics, process.cache.stats());
    let groups = [
        of_cache(metrics, &stats, process.cache.max_bytes()),
        of_clients(metrics),
        of_tls(metrics),
        of_upstream(process),
        of_passwords(metrics),
        of_announcements(metrics),
        of_nearside(metrics),
        of_feed(metrics, process.feeds_up()),
        of_audits(metrics),
        of_times(process),
        per_part::of_namespaces(process, &stats),
        of_write_back(process),
        per_part::of_nodes(process),
        vec![running::build()],
    ];
    groups.into_iter().flatten().collect()
}

/// What was counted for each reason of this class.
pub(super) fn reasons(class: Class, stats: &Stats) -> Vec<(&'static str, u64)> {
    let no_reason = |reason: &Reason| matches!(reason, Reason::Unknown | Reason::Filled);
    let reasons = Reason::ALL.into_iter().filter(|reason| reason.class() == class && !no_reason(reason));
    reasons.map(|reason| (reason.name(), stats.reasons[reason as usize])).collect()
}

fn of_cache(m: &Metrics, stats: &Stats, limit: usize) -> Vec<Metric> {
    vec![
        counter("hits", "Reads answered from the cache", stats.hits),
        counter("stale_hits", "Of these, served while the upstream was unreachable", stats.stale_hits),
        counter("misses", "Reads that the cache could not answer", stats.misses),
        counter("shared_flights", "Misses that waited for the fetch of another", stats.joined),
        counter("fills", "Replies that were kept", stats.fills),
        by("bypasses", "Reads that went past the cache, by reason", "reason", reasons(Class::Bypass, stats)),
        by(
            "unkept_fills",
            "Replies that were fetched and not kept, by reason",
            "reason",
            reasons(Class::Unkept, stats),
        ),
        by("dropped_entries", "Keys that left the cache, by reason", "reason", reasons(Class::Change, stats)),
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
        bytes("cache_limit", "What the cache's entries may take", limit as f64),
    ]
}

fn of_clients(m: &Metrics) -> Vec<Metric> {
    vec![
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
                ("tls", m.clients_tls.get()),
                ("stalled", m.clients_stalled.get()),
                ("killed", m.clients_killed.get()),
            ],
        ),
        counter("requests", "Requests of clients", m.requests.get()),
        gauge("live_listeners", "Who listens to /live on the admin port", m.live_listeners.get() as f64),
        counter("live_updates", "What these were told", m.live_updates.get()),
        counter("refused_live_listeners", "Those for whom there was no room", m.live_refused.get()),
    ]
}

fn of_tls(m: &Metrics) -> Vec<Metric> {
    let failed = HandshakeFailure::ALL.map(|why| (why.name(), m.handshakes_failed[why as usize].get()));
    let ends = m.certificates.lock().iter().map(|(file, end)| (Cow::from(*file), *end as f64)).collect();
    vec![
        counter("tls_handshakes", "TLS handshakes with clients that were completed", m.handshakes.get()),
        by(
            "failed_tls_handshakes",
            "TLS handshakes with clients that came to nothing, by reason",
            "reason",
            failed.into(),
        ),
        counter("tls_reloads", "Times that files for TLS were read again and taken", m.tls_reloads.get()),
        counter(
            "failed_tls_reloads",
            "Times that changed files for TLS could not be used, and what was before was kept",
            m.tls_reloads_failed.get(),
        ),
        gauge(
            "tls_reload_failed",
            "1 while a file for TLS cannot be used as it is now",
            m.tls_reload_failed.get() as f64,
        ),
        Metric {
            name: "tls_certificate_end_timestamp",
            help: "When the certificates of a file end to be valid, since 1970",
            unit: Some(Unit::Seconds),
            value: Value::Gauges("file", ends),
        },
    ]
}

fn of_upstream(process: &Process) -> Vec<Metric> {
    let (m, coverages) = (&process.metrics, process.cache.coverages());
    vec![
        counter("upstream_requests", "Requests sent upstream", m.upstream_requests.get()),
        by(
            "upstream_errors",
            "Requests without a reply from the upstream: refused while it was away, or lost with the link",
            "kind",
            vec![("refused", m.upstream_refused.get()), ("lost", m.upstream_lost.get())],
        ),
        gauge("upstream_links", "Connections for requests that stand", m.upstream_links.get() as f64),
        tracking_form(process),
        gauge("tracked_links", "Links that the upstream tracks for", coverages.children() as f64),
        gauge(
            "feed_links",
            "Connections for requests that are known to lead to the server of their feed",
            m.feed_links.get() as f64,
        ),
        gauge(
            "identities",
            "Users, databases and protocols that were lately in use",
            process.idents.count() as f64,
        ),
        counter("closed_idle_links", "Shared connections closed because of max-links", m.links_closed.get()),
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
            "How often all links left a server for another: it took no writes any more, or sentinels named another",
            m.servers_left.get(),
        ),
        gauge("sentinels", "Sentinels that say where the master is", m.sentinels.get() as f64),
        counter(
            "sentinel_failures",
            "Attempts to ask a sentinel that came to nothing",
            m.sentinel_failures.get(),
        ),
        gauge("nodes", "Servers of the upstream: one, or the masters of a cluster", m.nodes.get() as f64),
        counter("topology_looks", "Looks at how the cluster stands", m.topology_looks.get()),
        counter("topology_failures", "Those that came to nothing", m.topology_failures.get()),
        counter(
            "topology_changes",
            "How often the cluster's nodes, or whose the hash slots are, had changed",
            m.topology_changes.get(),
        ),
        by(
            "redirects",
            "Requests that a node of a cluster did not execute, by what it said",
            "kind",
            counted(&REDIRECTS, &m.redirects),
        ),
        counter("resent_requests", "Of these, sent again", m.resent.get()),
        by("unresent_requests", "Of these, given up, by reason", "reason", counted(&UNRESENT, &m.unresent)),
        counter(
            "lost_slots",
            "Hash slots that a node was seen to have no more, or to be moving: what was read of them is void",
            m.slots_lost.get(),
        ),
        counter("watches_lost", "WATCHes that were lost with their hash slot", m.watches_lost.get()),
        by(
            "shard_channels",
            "Shard channels whose hash slot went to another node, by whether they are heard there",
            "then",
            vec![("moved", m.shard_channels_moved.get()), ("lost", m.shard_channels_lost.get())],
        ),
        counter(
            "spare_links",
            "Links made because another was stuck behind one request",
            m.spare_links.get(),
        ),
        counter(
            "scripts_loaded",
            "Scripts told to a cluster's node in front of an EVALSHA",
            m.scripts_loaded.get(),
        ),
        counter(
            "scans_begun_anew",
            "Scans over a cluster's nodes that began anew, since nobody knew how far they had come",
            m.scans_begun_anew.get(),
        ),
        counter("upstream_connects", "Connections made", m.upstream_connects.get()),
        counter("tunnels", "Clients that became a plain tunnel: SYNC, PSYNC, SCRIPT DEBUG", m.tunnels.get()),
        counter("upstream_disconnects", "Connections lost or closed", m.upstream_disconnects.get()),
    ]
}

/// In which form changes become known: of the node where that is weakest.
fn tracking_form(process: &Process) -> Metric {
    let topology = process.topology();
    let weakest = topology.nodes().iter().map(|node| process.form(node)).max();
    let values = Form::ALL.map(|form| (Cow::from(form.name()), f64::from(u8::from(Some(form) == weakest))));
    let help = "1 for the form in which changes of keys become known";
    Metric { name: "tracking_form", help, unit: None, value: Value::Gauges("form", values.into()) }
}

fn of_passwords(m: &Metrics) -> Vec<Metric> {
    vec![
        counter("passwords", "New passwords that nearside has had for the upstream", m.passwords.get()),
        counter(
            "failed_passwords",
            "Times that the file, or the program, had no password: the one before is kept",
            m.passwords_failed.get(),
        ),
        by(
            "renewed_logins",
            "Connections that stood and were told a new password, by what the upstream said",
            "outcome",
            vec![("taken", m.logins_renewed.get()), ("refused", m.logins_refused.get())],
        ),
    ]
}

fn of_announcements(m: &Metrics) -> Vec<Metric> {
    vec![
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
    ]
}

fn of_nearside(m: &Metrics) -> Vec<Metric> {
    vec![
        by(
            "reloads",
            "Times that the configuration was read anew, by what came of it",
            "outcome",
            vec![("applied", m.reloads.get()), ("refused", m.reloads_refused.get())],
        ),
        by(
            "takeovers",
            "Takeovers: by this process, and those of it that came to nothing",
            "outcome",
            vec![("done", m.takeovers.get()), ("failed", m.takeovers_failed.get())],
        ),
        by(
            "refused_admin_requests",
            "Requests to the admin pages that were refused, by reason",
            "reason",
            counted(&ADMIN_REFUSED, &m.admin_refused),
        ),
        by(
            "spans",
            "Spans of sampled misses, by what became of them",
            "outcome",
            vec![
                ("exported", m.spans_exported.get()),
                ("refused", m.spans_refused.get()),
                ("lost", m.spans_lost.get()),
                ("crowded", m.spans_crowded.get()),
            ],
        ),
        counter("lost_log_lines", "Lines of the log that nobody took in time", LOST_LINES.get()),
        counter("panics", "Faults in nearside: must stay 0", PANICS.get()),
    ]
}

fn of_feed(m: &Metrics, up: usize) -> Vec<Metric> {
    vec![
        gauge("feed_up", "Feeds that are subscribed: one for each node", up as f64),
        counter("feed_connects", "Connections of the feed", m.feed_connects.get()),
        counter("feed_lapses", "How often the feed was lost or gave no answer in time", m.feed_lapses.get()),
        counter(
            "put_off_questions",
            "Questions of nearside's own that were answered by -BUSY, -LOADING and the like, and asked again",
            m.put_off.get(),
        ),
        counter(
            "registered_keys",
            "Keys that the feed asked for before they were cached",
            m.registrations.get(),
        ),
        by(
            "unregistered_keys",
            "Keys that were not cached because the feed could not ask for them, by reason",
            "reason",
            vec![("refused", m.registrations_refused.get()), ("crowded", m.registrations_crowded.get())],
        ),
        counter("refused_trackings", "CLIENT TRACKING refused to a link", m.tracking_refused.get()),
        by(
            "refused_checks",
            "Connections of the feed on which the upstream did not allow INFO at first",
            "check",
            vec![("server", m.server_unchecked.get()), ("swapdb", m.swaps_unchecked.get())],
        ),
    ]
}

fn of_audits(m: &Metrics) -> Vec<Metric> {
    vec![
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
        histograms(
            "audit_staleness",
            "From the moment an audit saw a difference to the entry's end",
            "outcome",
            vec![latency(&m.audit_staleness, "overtaken")],
        ),
    ]
}

fn of_times(process: &Process) -> Vec<Metric> {
    let (m, coverages) = (&process.metrics, process.cache.coverages());
    // Of the node that was proven longest ago.
    let age = |feed| process.now().saturating_sub(coverages.watermark(feed)) as f64 / 1e6;
    let topology = process.topology();
    let ages = topology.nodes().iter().map(|node| coverages.current(&node.feed).map_or(f64::INFINITY, age));
    let proven = ages.fold(0.0, f64::max);
    vec![
        Metric {
            name: "proven_staleness",
            help: "How long ago the freshness of all coverages was last proven",
            unit: Some(Unit::Seconds),
            value: Value::Gauge(proven),
        },
        histograms(
            "request_duration",
            "From reading a request to its reply being ready",
            "path",
            vec![latency(&m.hit_latency, "hit"), latency(&m.upstream_latency, "upstream")],
        ),
    ]
}
