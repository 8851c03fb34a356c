//! `NEARSIDE …` and `INFO`: what nearside tells a person at `redis-cli`.

use std::collections::HashMap;

use super::conflicts;
use super::connected::connected;
use super::glob::glob;
use crate::cache::{IdentId, Reason};
use crate::namespace::Tracking;
use crate::pending::{Change, Changed, Pending};
use crate::process::{Ident, Idents, errors, section, why};
use crate::request::{Context, Raw};
use crate::resp::encode;
use crate::resp::request::Request;

const HELP: &[&str] = &[
    "NEARSIDE <subcommand> [<arg> ...]. Subcommands are:",
    "STATS",
    "    What the cache and the links have done so far, as INFO shows it.",
    "KEYS [pattern] [COUNT n]",
    "    Keys that are cached now, at most n (default 1000), in no particular order.",
    "WHY <key>",
    "    Whether the key is cached, since when and by which coverage; if not, why.",
    "CLIENTS",
    "    Who is connected, one line for each: whence, as whom, for how long, and what the cache had for it.",
    "CONFLICTS [COUNT n]",
    "    Writes of write-back namespaces that did not become the upstream's: another had written there.",
    "CONFLICTS CLEAR",
    "    Forget them.",
    "SYNC [key ...]",
    "    Bring upstream what was acknowledged here of these keys, or of all, and wait for that.",
    "FLUSH [key ...]",
    "    Forget these keys, or everything. The upstream is not touched.",
    "CONFIG",
    "    Every setting that is in effect.",
    "HELP",
    "    Print this help.",
];

/// Keys that `NEARSIDE KEYS` gives if it is not told how many.
const KEYS: usize = 1000;

/// Answers `NEARSIDE …` for a session that speaks as `who`.
pub fn answer(cx: &Context, who: &Ident, request: &Request<'_>) {
    let subcommand = request.get(1).unwrap_or(b"HELP").to_ascii_uppercase();
    let protocol = who.protocol;
    let lines = |lines: &[String]| {
        cx.queue.reply_with(|out| {
            encode::array(out, lines.len());
            lines.iter().for_each(|line| encode::bulk(out, line.as_bytes()));
        });
    };
    match (&*subcommand, request.len()) {
        (b"HELP", ..=2) => cx.queue.reply_with(|out| {
            encode::array(out, HELP.len());
            HELP.iter().for_each(|line| encode::simple(out, line.as_bytes()));
        }),
        (b"STATS", 2) => {
            let section = section(&cx.process);
            cx.queue.reply_with(|out| encode::verbatim(out, protocol, b"txt", section.as_bytes()));
        }
        (b"KEYS", _) => keys(cx, who, request),
        (b"WHY", 3) => {
            let mut known = why(&cx.process, request.arg(2), who.user.as_deref());
            known.extend(untracked(cx, request.arg(2)));
            lines(&known);
        }
        (b"CLIENTS", 2) => {
            let list = connected(&cx.process, who.user.as_deref());
            cx.queue.reply_with(|out| encode::verbatim(out, protocol, b"txt", &list));
        }
        (b"FLUSH", 2..) => flush(cx, who, request),
        (b"CONFLICTS", _) => conflicts::answer(cx, who, request),
        // It was not admitted before that was done.
        (b"SYNC", _) => cx.queue.reply(b"+OK\r\n"),
        (b"CONFIG", 2) => {
            let all = cx.process.settings.described.lock().clone();
            cx.queue.reply_with(|out| {
                encode::map(out, protocol, all.len());
                for (name, value) in &all {
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
            cx.queue.reply(&errors::line(&text));
        }
    }
}

fn keys(cx: &Context, who: &Ident, request: &Request<'_>) {
    let Some((pattern, count)) = keys_wanted(request) else {
        return cx.queue.reply(&errors::line(&errors::usage("NEARSIDE KEYS [pattern] [COUNT n]")));
    };
    let mut theirs = Theirs::of(cx, who);
    let matches = |key: &[u8], ident| pattern.is_none_or(|pattern| glob(pattern, key)) && theirs.has(ident);
    let keys = cx.process.cache.keys(count, cx.process.now(), matches);
    cx.queue.reply_with(|out| {
        encode::array(out, keys.len());
        keys.iter().for_each(|key| encode::bulk(out, key));
    });
}

/// Forgets the keys that are named, or everything: of nearside's own user all of it, of another what was fetched for it.
fn flush(cx: &Context, who: &Ident, request: &Request<'_>) {
    let (cache, now, own) = (&cx.process.cache, cx.process.now(), who.user.is_none());
    match request.len() {
        2 if own => cache.flush(Reason::Flushed),
        2 => cache.forget_all_of(Reason::Flushed, now, |ident| Theirs::of(cx, who).has(ident)),
        _ => {
            for key in request.args().skip(2) {
                match own {
                    true => cache.invalidate(key, Reason::Flushed, now),
                    false => {
                        cache.forget_of(key, Reason::Flushed, now, |ident| Theirs::of(cx, who).has(ident))
                    }
                }
            }
        }
    }
    cx.queue.reply(b"+OK\r\n");
}

/// What concerns whoever asks. Nearside's own user is told of everything; another only of what was fetched for
/// itself, for it may not be allowed to know of more.
struct Theirs<'c> {
    idents: &'c Idents,
    user: Option<&'c [u8]>,
    known: HashMap<IdentId, bool>,
}

impl<'c> Theirs<'c> {
    fn of(cx: &'c Context, who: &'c Ident) -> Self {
        Self { idents: &cx.process.idents, user: who.user.as_deref(), known: HashMap::new() }
    }

    fn has(&mut self, ident: IdentId) -> bool {
        let same = || self.idents.get(ident).is_some_and(|ident| ident.user.as_deref() == self.user);
        self.user.is_none() || *self.known.entry(ident).or_insert_with(same)
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

/// That the key is not tracked for this session, and why.
fn untracked(cx: &Context, key: &[u8]) -> Option<String> {
    let namespace = cx.process.namespaces.find(key);
    let link = cx.link_of(key);
    let handler = link.as_ref().unwrap_or(&cx.link).client();
    let why = match cx.process.wanted_tracking(namespace) {
        Tracking::Off => namespace.is_none().then(|| "tracking is off".into()),
        how if handler.is_told_by_feed(how) => None,
        Tracking::Keys if cx.process.redirects() => {
            handler.refusal().map(|said| format!("CLIENT TRACKING is refused to this user: {said}"))
        }
        Tracking::Keys | Tracking::Prefix => Some("CLIENT TRACKING is refused to nearside".into()),
    };
    let so = match namespace {
        Some(_) => "of its changes only announcements tell",
        None => "only keys in namespaces are cached",
    };
    why.map(|why| format!("note: {why}; {so}"))
}

/// Sends `INFO` upstream, so that our section can be added; or answers if only that is wanted.
pub fn info(cx: &Context, request: &Request<'_>, raw: Raw<'_>) {
    let wants = |section: &[u8]| request.args().skip(1).any(|arg| arg.eq_ignore_ascii_case(section));
    if request.len() == 2 && wants(b"nearside") {
        let section = section(&cx.process);
        let protocol = cx.key.ident.protocol;
        if cx.queue.waiting() == 0 {
            return cx.queue.reply_with(|out| encode::verbatim(out, protocol, b"txt", section.as_bytes()));
        }
    }
    let ours =
        request.len() == 1 || [&b"default"[..], b"all", b"everything", b"nearside"].into_iter().any(wants);
    let changes = ours || cx.process.cluster.is() && !cx.process.settings.cluster.is_shown;
    match changes {
        true => cx.forward(raw, |to| Pending::Changed(to, Changed::by(Change::Info { ours }))),
        false => cx.forward(raw, Pending::Relay),
    }
}
