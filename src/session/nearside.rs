//! `NEARSIDE …` and the section of `INFO`: what nearside tells a person at `redis-cli`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::{BufMut, BytesMut};

use super::core::{Core, Raw};
use super::errors;
use super::expect::{Change, Changed, Pending};
use super::idents::Ident;
use super::shared::Shared;
use crate::cache::{Description, IdentId, Micros, Reason, Stats};
use crate::namespace::Tracking;
use crate::resp::request::Request;
use crate::resp::{Protocol, encode};

const HELP: &[&str] = &[
    "NEARSIDE <subcommand> [<arg> ...]. Subcommands are:",
    "STATS",
    "    Pending the cache and the links have done so far, as INFO shows it.",
    "KEYS [pattern] [COUNT n]",
    "    Keys that are cached now, at most n (default 1000), in no particular order.",
    "WHY <key>",
    "    Whether the key is cached, since when and by which coverage; if not, why.",
    "FLUSH [key ...]",
    "    Forget these keys, or everything. The upstream is not write_set.",
    "CONFIG",
    "    Every setting that is in effect.",
    "HELP",
    "    Print this help.",
];

/// Keys that `NEARSIDE KEYS` gives if it is not told how many.
const KEYS: usize = 1000;

pub(super) fn answer(core: &mut Core, request: &Request<'_>) {
    let subcommand = request.get(1).unwrap_or(b"HELP").to_ascii_uppercase();
    let protocol = core.ident.protocol;
    let lines = |lines: &[String]| {
        core.queue.reply_with(|out| {
            encode::array(out, lines.len());
            lines.iter().for_each(|line| encode::bulk(out, line.as_bytes()));
        });
    };
    match (&*subcommand, request.len()) {
        (b"HELP", ..=2) => core.queue.reply_with(|out| {
            encode::array(out, HELP.len());
            HELP.iter().for_each(|line| encode::simple(out, line.as_bytes()));
        }),
        (b"STATS", 2) => {
            let section = section(&core.shared);
            core.queue.reply_with(|out| encode::verbatim(out, protocol, b"txt", section.as_bytes()));
        }
        (b"KEYS", _) => match keys_wanted(request) {
            Some((pattern, count)) => {
                let mut theirs = Theirs::of(core);
                let matches =
                    |key: &[u8], ident| pattern.is_none_or(|pattern| glob(pattern, key)) && theirs.has(ident);
                let keys = core.shared.cache.keys(count, core.shared.now(), matches);
                core.queue.reply_with(|out| {
                    encode::array(out, keys.len());
                    keys.iter().for_each(|key| encode::bulk(out, key));
                });
            }
            None => core.queue.reply(&errors::line("ERR syntax error: NEARSIDE KEYS [pattern] [COUNT n]")),
        },
        (b"WHY", 3) => {
            let mut known = why(&core.shared, request.arg(2), core.ident.user.as_deref());
            known.extend(untracked(core, request.arg(2)));
            lines(&known);
        }
        (b"FLUSH", 2) => {
            let (cache, now) = (&core.shared.cache, core.shared.now());
            match &core.ident.user {
                None => cache.flush(Reason::Flushed),
                Some(_) => cache.forget_all_of(Reason::Flushed, now, |ident| Theirs::of(core).has(ident)),
            }
            core.queue.reply(b"+OK\r\n");
        }
        (b"FLUSH", 3..) => {
            let now = core.shared.now();
            for i in 2..request.len() {
                let (cache, key) = (&core.shared.cache, request.arg(i));
                match &core.ident.user {
                    None => cache.invalidate(key, Reason::Flushed, now),
                    Some(_) => {
                        cache.forget_of(key, Reason::Flushed, now, |ident| Theirs::of(core).has(ident))
                    }
                }
            }
            core.queue.reply(b"+OK\r\n");
        }
        (b"CONFIG", 2) => {
            let all = &core.shared.settings.described;
            core.queue.reply_with(|out| {
                encode::map(out, protocol, all.len());
                for (name, value) in all {
                    encode::bulk(out, name.as_bytes());
                    encode::bulk(out, value.as_bytes());
                }
            });
        }
        _ => {
            let text = format!(
                "ERR unknown subcommand or wrong number of arguments for '{}'. Try NEARSIDE HELP.",
                String::from_utf8_lossy(&subcommand)
            );
            core.queue.reply(&errors::line(&text));
        }
    }
}

/// What concerns whoever asks. Nearside's own user is told of everything; another only of what was fetched for
/// itself, for it may not be allowed to know of more.
struct Theirs<'c> {
    core: &'c Core,
    known: HashMap<IdentId, bool>,
}

impl<'c> Theirs<'c> {
    fn of(core: &'c Core) -> Self {
        Self { core, known: HashMap::new() }
    }

    fn has(&mut self, ident: IdentId) -> bool {
        let (user, idents) = (&self.core.ident.user, &self.core.shared.idents);
        let same = || idents.get(ident).is_some_and(|ident| ident.user == *user);
        user.is_none() || *self.known.entry(ident).or_insert_with(same)
    }
}

fn keys_wanted<'a>(request: &Request<'a>) -> Option<(Option<&'a [u8]>, usize)> {
    let (mut pattern, mut count, mut i) = (None, KEYS, 2);
    while let Some(arg) = request.get(i) {
        match request.get(i + 1) {
            Some(n) if arg.eq_ignore_ascii_case(b"count") => {
                count = std::str::from_utf8(n).ok()?.parse().ok()?;
                i += 2;
            }
            _ if pattern.is_none() => {
                pattern = Some(arg);
                i += 1;
            }
            _ => return None,
        }
    }
    Some((pattern, count))
}

/// What is known of one key, in lines for a person; for another user than nearside's own, what concerns that one.
pub(super) fn why(shared: &Shared, key: &[u8], user: Option<&[u8]>) -> Vec<String> {
    let now = shared.now();
    let mut described = shared.cache.describe(key, now);
    if user.is_some() {
        let same = |ident| shared.idents.get(ident).is_some_and(|ident| ident.user.as_deref() == user);
        described.replies.retain(|reply| same(reply.ident));
        if described.replies.is_empty() {
            // As of a key of which nothing is known.
            described =
                Description { replies: Vec::new(), last_change: None, last_bypass: None, fenced: false };
        }
    }
    let namespace = shared.namespaces.find(key);
    let served: Vec<_> = described.replies.iter().filter(|reply| reply.stands).collect();
    let mut lines = vec![format!("cached: {}", if served.is_empty() { "no" } else { "yes" })];
    lines.push(match namespace {
        Some(namespace) => format!("namespace: {}", namespace.name),
        None => "namespace: none".into(),
    });
    let table = shared.table();
    for reply in served {
        let row = table.row(reply.command).map_or("?", |row| &row.name).to_ascii_uppercase();
        let rest = String::from_utf8_lossy(&reply.args).replace("\r\n", " ");
        let coverage = if reply.tracked { "tracking" } else { "channels" };
        let mut line = format!(
            "reply: {row}{}{rest}, {} bytes, {}, filled {} ago, coverage {coverage}, proven fresh {} ago",
            if rest.is_empty() { "" } else { " " },
            reply.bytes,
            identity(shared, reply.ident),
            ago(reply.age),
            ago(reply.proven),
        );
        if let Some(left) = reply.left {
            let _ = write!(line, ", ends in {}", ago(left));
        }
        lines.push(line);
    }
    if described.fenced {
        lines.push("fenced: a write to it is under way".into());
    }
    for (what, last) in [("change", described.last_change), ("bypass", described.last_bypass)] {
        lines.push(match last {
            Some((reason, at)) => {
                format!("last {what}: {}, {} ago: {}", reason.name(), ago(at), reason.explain())
            }
            None => format!("last {what}: none that is remembered"),
        });
    }
    lines
}

/// That the key is not tracked for this session, and why.
fn untracked(core: &Core, key: &[u8]) -> Option<String> {
    let namespace = core.shared.namespaces.find(key);
    let why = match core.shared.wanted_tracking(namespace) {
        Tracking::Keys => core
            .link
            .client()
            .refusal()
            .map(|said| format!("CLIENT TRACKING is refused to this user: {said}")),
        Tracking::Prefix if !core.shared.tracks(Tracking::Prefix) => {
            Some("CLIENT TRACKING is refused to nearside".into())
        }
        Tracking::Off if namespace.is_none() => Some("tracking is off".into()),
        Tracking::Prefix | Tracking::Off => None,
    };
    let so = match namespace {
        Some(_) => "of its changes only announcements tell",
        None => "only keys in namespaces are cached",
    };
    why.map(|why| format!("note: {why}; {so}"))
}

fn identity(shared: &Shared, number: IdentId) -> String {
    match shared.idents.get(number) {
        Some(Ident { db, protocol, user }) => {
            let user = user.map_or("nearside's own user".into(), |user| {
                format!("user {}", String::from_utf8_lossy(&user))
            });
            format!("db {db}, {}, {user}", if protocol == Protocol::Resp3 { "RESP3" } else { "RESP2" })
        }
        None => "identity unknown".into(),
    }
}

fn ago(micros: Micros) -> String {
    // To the millisecond, or to the microsecond if it is less than one.
    let rounded = if micros < 1000 { micros } else { micros / 1000 * 1000 };
    humantime::format_duration(Duration::from_micros(rounded)).to_string()
}

/// Sends `INFO` upstream, so that our section can be added; or answers if only that is wanted.
pub(super) fn info(core: &mut Core, request: &Request<'_>, raw: Raw<'_>) {
    let wants = |section: &[u8]| request.args().skip(1).any(|arg| arg.eq_ignore_ascii_case(section));
    if request.len() == 2 && wants(b"nearside") {
        let section = section(&core.shared);
        let protocol = core.ident.protocol;
        if core.queue.waiting() == 0 {
            return core.queue.reply_with(|out| encode::verbatim(out, protocol, b"txt", section.as_bytes()));
        }
    }
    let ours =
        request.len() == 1 || [&b"default"[..], b"all", b"everything", b"nearside"].into_iter().any(wants);
    match ours {
        true => core.forward(raw, |to| Pending::Changed(to, Changed::by(Change::Info))),
        false => core.forward(raw, Pending::Relay),
    }
}

/// A reply to `INFO` with our section at its end: a bulk string, or RESP3's verbatim string.
pub(super) fn with_section(shared: &Shared, reply: BytesMut) -> BytesMut {
    let Some(header) = memchr::memchr(b'\n', &reply) else { return reply };
    let Some(text) = reply[header + 1..].strip_suffix(b"\r\n") else { return reply };
    let section = section(shared);
    let gap = if text.ends_with(b"\r\n\r\n") || text.is_empty() || text == b"txt:" { "" } else { "\r\n" };
    let mut changed = BytesMut::with_capacity(reply.len() + section.len() + 16);
    let len = text.len() + gap.len() + section.len();
    changed.put_u8(reply[0]);
    changed.put_slice(format!("{len}\r\n").as_bytes());
    changed.put_slice(text);
    changed.put_slice(gap.as_bytes());
    changed.put_slice(section.as_bytes());
    changed.put_slice(b"\r\n");
    changed
}

/// The `# Nearside` section, in the manner of `INFO`.
fn section(shared: &Shared) -> String {
    let stats = shared.cache.stats();
    let metrics = &shared.metrics;
    let mut out = String::from("# Nearside\r\n");
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _ = write!(out, "{name}:{value}\r\n");
    };
    line("nearside_version", &env!("CARGO_PKG_VERSION"));
    line("nearside_uptime_in_seconds", &shared.uptime().as_secs());
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
    line("nearside_max_bytes", &shared.cache.max_bytes());
    line("nearside_feed", &if metrics.feed_up.get() == 1 { "up" } else { "down" });
    line("nearside_tracking", &tracking(shared));
    line("nearside_tracked_links", &shared.cache.coverages().children());
    line("nearside_proven_staleness_us", &proven(shared));
    line("nearside_upstream_links", &metrics.upstream_links.get());
    line("nearside_identities", &shared.idents.count());
    line("nearside_upstream_requests", &metrics.upstream_requests.get());
    line("nearside_upstream_lost", &metrics.upstream_lost.get());
    line("nearside_upstream_refused", &metrics.upstream_refused.get());
    line("nearside_announcements", &metrics.announcements.get());
    line("nearside_announcements_failed", &metrics.announcements_failed.get());
    line("nearside_spare_links", &metrics.spare_links.get());
    line("nearside_servers_left", &metrics.servers_left.get());
    line("nearside_feed_lapses", &metrics.feed_lapses.get());
    line("nearside_audits_agreed", &metrics.audits_agreed.get());
    line("nearside_audits_overtaken", &metrics.audits_overtaken.get());
    line("nearside_audits_stale", &metrics.audits_stale.get());
    for reason in Reason::ALL {
        let count = stats.reasons[reason as usize];
        if count > 0 {
            line(&format!("nearside_reason_{}", reason.name()), &count);
        }
    }
    out
}

/// How the upstream tells of changes, in the words of the setting.
fn tracking(shared: &Shared) -> &'static str {
    match (shared.tracks(Tracking::Keys), shared.tracks(Tracking::Prefix)) {
        (true, true) => "keys,prefix",
        (true, false) => "keys",
        (false, true) => "prefix",
        (false, false) => "off",
    }
}

fn hit_ratio(stats: &Stats) -> f64 {
    let all = stats.hits + stats.misses;
    if all == 0 { 0.0 } else { stats.hits as f64 / all as f64 }
}

/// How long ago the freshness of all coverages was last proven, in microseconds; -1 without a feed.
fn proven(shared: &Shared) -> i64 {
    let oldest = shared.cache.coverages().oldest_watermark();
    oldest.map_or(-1, |proven| shared.now().saturating_sub(proven) as i64)
}

/// Glob-style matching as in Redis' `KEYS`: `*`, `?`, `[a-z]`, `[^…]` and `\` for the next one itself.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and how much it has swallowed.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(b'?') => Some(p + 1),
            Some(b'[') => class(pattern, p, text[t]),
            Some(b'\\') if p + 1 < pattern.len() => (pattern[p + 1] == text[t]).then_some(p + 2),
            Some(byte) => (*byte == text[t]).then_some(p + 1),
            None => None,
        };
        match (step, &mut star) {
            (Some(next), _) => (p, t) = (next, t + 1),
            (None, Some((after, swallowed))) => {
                *swallowed += 1;
                (p, t) = (*after, *swallowed);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Where the pattern goes on behind the class at `p`, if `byte` is in it.
fn class(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    let mut i = p + 1;
    let not = pattern.get(i) == Some(&b'^');
    i += usize::from(not);
    let mut found = false;
    while let Some(&first) = pattern.get(i).filter(|byte| **byte != b']') {
        let escaped = first == b'\\' && i + 1 < pattern.len();
        let low = if escaped { pattern[i + 1] } else { first };
        i += 1 + usize::from(escaped);
        let high = match (pattern.get(i), pattern.get(i + 1)) {
            (Some(b'-'), Some(high)) if !escaped => {
                i += 2;
                *high
            }
            _ => low,
        };
        found |= (low.min(high)..=low.max(high)).contains(&byte);
    }
    (found != not).then_some(i + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("users/*", "users/1", true),
            ("users/*", "user/1", false),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxbxx", false),
            ("h?llo", "hello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("", "", true),
            ("", "a", false),
            ("[", "a", false),
            ("a**", "a", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
