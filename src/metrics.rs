//! Counters, gauges and histograms that are not the cache's own. Plain atomics: cheap to count, read when
//! somebody asks.

mod events;
mod histogram;
mod seldom;
mod words;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tracing::warn;

pub use events::{EVENTS, Event, Events, Level};
pub use histogram::{BUCKETS, Exemplar, Histogram};
pub use seldom::Seldom;
pub use words::Words;

/// A number that only grows, or, as a gauge, goes up and down.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// Lines of the log that were dropped because nobody took them.
pub static LOST_LINES: Counter = Counter(AtomicU64::new(0));

/// Panics of any thread or task: faults in nearside. Of the process, for a panic tells no more.
pub static PANICS: Counter = Counter(AtomicU64::new(0));

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn inc(&self) {
        self.add(1);
    }

    pub fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a node of a cluster does not execute a request: what it says, by number, and that it cannot be reached.
pub const REDIRECTS: [&str; 8] =
    ["moved", "ask", "tryagain", "clusterdown", "loading", "readonly", "masterdown", "unsent"];

/// Why such a request is not sent again: what came behind it was executed, or it was refused again and again.
pub const UNRESENT: [&str; 2] = ["overtaken", "exhausted"];

/// Why a request to the admin pages was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminRefusal {
    /// It is for a host that need not be ours.
    Host,
    /// A page of another site asks.
    Origin,
    /// It does not show the token.
    Token,
    /// It is to change something, and there is no token that it could show.
    Change,
}

/// As these are called, by number.
pub const ADMIN_REFUSED: [&str; 4] = ["host", "origin", "token", "change"];

/// Everything that is counted for the process.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Clients that are connected now.
    pub clients: Counter,
    pub clients_accepted: Counter,
    /// Refused because of `max-clients`.
    pub clients_refused: Counter,
    pub refused_told: Seldom,
    pub unusable_told: Seldom,
    /// Closed because they sent what is not RESP, or more than allowed.
    pub clients_malformed: Counter,
    /// TLS handshakes with clients that came to an end, and that came to nothing, by the number of the reason.
    pub handshakes: Counter,
    pub handshakes_failed: [Counter; 5],
    pub handshakes_told: [Seldom; 5],
    /// Closed because they spoke TLS where there is none.
    pub clients_tls: Counter,
    pub tls_told: Seldom,
    /// Changed files for TLS that were taken, and that could not be used; and 1 while there is one of those.
    pub tls_reloads: Counter,
    pub tls_reloads_failed: Counter,
    pub tls_reload_failed: Counter,
    /// By setting, when the certificates end, in seconds since 1970.
    pub certificates: Mutex<BTreeMap<&'static str, u64>>,
    /// Configurations that were read anew, and that were wrong, so that all stayed as it was.
    pub reloads: Counter,
    pub reloads_refused: Counter,
    /// That this process took another's place, and that one which was to take its place did not.
    pub takeovers: Counter,
    pub takeovers_failed: Counter,
    /// Requests to the admin pages that were refused, by [reason](AdminRefusal).
    pub admin_refused: [Counter; ADMIN_REFUSED.len()],
    pub admin_refused_told: Seldom,
    /// Closed because they spoke HTTP.
    pub clients_http: Counter,
    pub http_told: Seldom,
    /// Closed by `CLIENT KILL`.
    pub clients_killed: Counter,
    /// Closed because they did not take their replies.
    pub clients_stalled: Counter,
    pub stalled_told: Seldom,
    pub requests: Counter,
    /// Who listens to what happens on the admin port, those for whom there was no room, and what was worked out for them.
    pub live_listeners: Counter,
    pub live_refused: Counter,
    pub live_updates: Counter,
    /// Requests sent upstream for clients and for the cache.
    pub upstream_requests: Counter,
    /// Requests refused because the upstream was away.
    pub upstream_refused: Counter,
    /// Requests whose reply was lost with their link.
    pub upstream_lost: Counter,
    /// That links, or the feed, are down, and that the feed is there again.
    pub links_down_told: Seldom,
    pub feed_down_told: Seldom,
    pub feed_up_told: Seldom,
    /// Connections for requests that were tried, and those of the feed.
    pub link_attempts: Counter,
    pub feed_attempts: Counter,
    /// Links that were given up because they gave no answer though the upstream lived.
    pub dark_links: Counter,
    /// That a link gives no answer: another is made, or what was read on it is void.
    pub silent_told: Seldom,
    pub unanswered_told: Seldom,
    /// Sentinels that say where the master is.
    pub sentinels: Counter,
    /// Attempts to ask a sentinel that came to nothing.
    pub sentinel_failures: Counter,
    /// Looks at how the cluster stands, those that came to nothing, and topologies that took another's place.
    pub topology_looks: Counter,
    pub topology_failures: Counter,
    pub topology_changes: Counter,
    /// `WATCH`es that were lost with their hash slot.
    pub watches_lost: Counter,
    /// Shard channels that went to another node, and those that could not.
    pub shard_channels_moved: Counter,
    pub shard_channels_lost: Counter,
    pub topology_told: Seldom,
    pub topology_news: Seldom,
    /// Hash slots that a node was seen to have no more, or to be moving, so that what was read of them is void.
    pub slots_lost: Counter,
    /// Nodes of the cluster that are known.
    pub nodes: Counter,
    /// Requests that a node of a cluster has not executed, by [reason](REDIRECTS).
    pub redirects: [Counter; REDIRECTS.len()],
    /// How often such requests were sent again, and those that were given up, by [reason](UNRESENT).
    pub resent: Counter,
    pub unresent: [Counter; UNRESENT.len()],
    pub unresent_told: Seldom,
    /// How often all links and the feed left a server for another.
    pub servers_left: Counter,
    pub servers_left_told: Seldom,
    /// That the upstream's name leads where nearside does not go.
    pub names_told: Seldom,
    /// Spare links that were made because the first was stuck.
    pub spare_links: Counter,
    pub scripts_loaded: Counter,
    pub scans_begun_anew: Counter,
    pub upstream_connects: Counter,
    /// Sessions that became a plain tunnel.
    pub tunnels: Counter,
    pub upstream_disconnects: Counter,
    /// Links that stand now, shared and dedicated.
    pub upstream_links: Counter,
    pub announcements: Counter,
    pub announcements_failed: Counter,
    pub announcements_failed_told: Seldom,
    /// Said of a write that was refused thereupon: what is true was said behind.
    pub announcements_corrected: Counter,
    /// Writes that were lost with their link, or whose announcements were: a `delete` is said in their place.
    pub announcements_owed: Counter,
    /// Announcements of `delete` because it could not be looked whether the key was there.
    pub looks_refused: Counter,
    pub looks_refused_told: Seldom,
    /// Why the feed could not connect the last time.
    pub unreachable: Words,
    /// With what the upstream has refused everything: it loads its data.
    pub loading: Words,
    pub feed_connects: Counter,
    /// How often the feed was lost, or gave no answer within the bound.
    pub feed_lapses: Counter,
    /// Questions of nearside's own that were answered by "not now" (`-BUSY`, `-LOADING` …).
    pub put_off: Counter,
    pub put_off_told: Seldom,
    /// `CLIENT TRACKING` that was refused to a link.
    pub tracking_refused: Counter,
    pub tracking_refused_told: Seldom,
    /// Keys that the feed has asked for so that the upstream tells of their next change, and of which that was refused.
    pub registrations: Counter,
    pub registrations_refused: Counter,
    pub registrations_refused_told: Seldom,
    /// Fetches that were given up because too many keys waited for that.
    pub registrations_crowded: Counter,
    /// Shared links that were closed because of `max-links`.
    pub links_closed: Counter,
    pub links_closed_told: Seldom,
    /// Links that stand and found no place for a coverage.
    pub links_uncovered: Counter,
    /// Links that lead to the server of their feed, as far as that can be known.
    pub feed_links: Counter,
    pub ttl_refused_told: Seldom,
    /// Nearside's own password was another than before.
    pub passwords: Counter,
    /// Times it could not be had: the file was empty, the command failed.
    pub passwords_failed: Counter,
    pub passwords_failed_told: Seldom,
    /// It was said again on connections that stand, and taken, or refused.
    pub logins_renewed: Counter,
    pub logins_refused: Counter,
    pub logins_refused_told: Seldom,
    /// Connections of the feed that were not allowed to look for `SWAPDB`.
    pub swaps_unchecked: Counter,
    /// Connections of the feed that were not allowed to ask which server they are on.
    pub server_unchecked: Counter,
    pub heard_updates: Counter,
    pub heard_deletes: Counter,
    pub heard_tracking: Counter,
    pub heard_flushes: Counter,
    /// Replies fetched anew because of an announced update.
    pub refreshes: Counter,
    /// Audits whose reply was the upstream's.
    pub audits_agreed: Counter,
    /// Audits whose entry differed, and went in time.
    pub audits_overtaken: Counter,
    /// Audits whose entry differed, and was still served beyond the bound. Must stay 0.
    pub audits_stale: Counter,
    /// From the moment an audit saw a difference to the entry's end.
    pub audit_staleness: Histogram,
    /// From reading a request to its cached reply being ready.
    pub hit_latency: Histogram,
    /// From reading a request to its upstream reply being ready.
    pub upstream_latency: Histogram,
    /// Spans of sampled misses: that a collector took, and that it refused; that were given up, since it could not be reached
    /// or tracing was switched off; and that gave way to newer ones.
    pub spans_exported: Counter,
    pub spans_refused: Counter,
    pub spans_lost: Counter,
    pub spans_crowded: Counter,
    pub collector_told: Seldom,
}

impl Metrics {
    /// The upstream has taken nearside's new password on a connection that stands, or refused it in these words.
    pub fn logged_in_again(&self, refusal: Option<&[u8]>) {
        let Some(words) = refusal else { return self.logins_renewed.inc() };
        self.logins_refused.inc();
        if let Some(untold) = self.logins_refused_told.now() {
            let reply = String::from_utf8_lossy(words);
            warn!(
                reply = reply.trim_end(),
                untold,
                "the upstream does not take nearside's new password yet: connections go on with the one before, and it is \
                 said again; set it there, too (ACL SETUSER)"
            );
        }
    }
}
