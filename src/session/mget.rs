//! `MGET`, put together key by key: only what is missing is fetched, with one `MGET`.
//!
//! Invariants: the reply has the upstream's bytes, element by element. An element is kept as the reply to
//! `GET`, with the knowledge that it was had by `MGET` ([`By`]). One that `GET` would answer with an error (nil because of
//! another type) is never kept.

use std::collections::HashSet;
use std::ops::Range;
use std::rc::{Rc, Weak};

use bytes::{BufMut, Bytes, BytesMut};

use super::core::{Core, Raw};
use super::errors;
use super::expect::{CacheLease, Pending};
use super::peer::LinkHandler;
use super::queue::{ReplyQueue, ReplySlot};
use super::read::{expiry, not_kept};
use crate::cache::{By, EntryKey, Lookup, Micros, Reason};
use crate::resp::encode;
use crate::resp::request::Request;
use crate::resp::scanner::{Kind, elements};
use crate::upstream::{At, Chunk, LARGE, Outgoing};

/// Missing keys that are fetched at a time.
const MAX_FILLS: usize = 1024;

/// One `MGET` is put together in windows: each looks up so many keys at most, fetches so many, and holds so many bytes
/// of cached elements. The next one begins when the client has taken of what there is; no later request is looked at
/// before the last one.
const LOOKUPS: usize = 16 << 10;
const BYTES: usize = 1 << 20;

/// What is left of an `MGET` of more than one window.
pub(super) struct Rest {
    /// The keys that are still to be looked up, as they came.
    keys: Bytes,
    left: usize,
    slot: u64,
    all_hit: bool,
    /// Stands while a window is being fetched.
    fetch: Weak<Fetch>,
}

/// A window's fetch; the session is woken at its end, whichever that is.
struct Fetch(Rc<ReplyQueue>);

impl Drop for Fetch {
    fn drop(&mut self) {
        self.0.wake();
    }
}

/// Keys behind one another, as a request has them.
struct Keys<'a>(&'a [u8]);

impl<'a> Iterator for Keys<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = memchr::memchr(b'\n', self.0)?;
        let digits = self.0.get(1..line - 1)?;
        let len = digits.iter().fold(0, |len, digit| len * 10 + usize::from(digit - b'0'));
        let key = self.0.get(line + 1..line + 1 + len)?;
        self.0 = self.0.get(line + len + 3..)?;
        Some(key)
    }
}

pub(super) fn mget(core: &mut Core, request: &Request<'_>, raw: Raw<'_>) {
    let elements = request.len() - 1;
    // As long as all are there, they go straight to where the client's replies are gathered.
    let first = core.queue.reply_unless(|out| {
        encode::array(out, elements);
        let start = out.len();
        (1..=elements).find_map(|i| {
            if out.len() - start > BYTES || i > LOOKUPS {
                return Some((i, None, BytesMut::from(&out[start..])));
            }
            match lookup(core, request.arg(i), |reply| {
                out.extend_from_slice(reply);
            }) {
                Lookup::Hit => None,
                other => Some((i, Some(other), BytesMut::from(&out[start..]))),
            }
        })
    });
    let Some((at, found, held)) = first else { return core.count_hit() };
    let keys = match raw {
        Raw::Own(whole) => whole.slice_ref(request.raw_after(at - 1)),
        Raw::Copy(_) => Bytes::copy_from_slice(request.raw_after(at - 1)),
    };
    let (left, slot) = (elements + 1 - at, core.queue.open());
    let mut rest = Rest { keys, left, slot, all_hit: true, fetch: Weak::new() };
    window(core, &mut rest, Some(elements), found, held);
    if rest.left > 0 {
        core.rest = Some(Box::new(rest));
        core.queue.wake();
    }
}

/// Goes on with an `MGET` of several windows; says whether anything was done.
pub(super) fn go_on(core: &mut Core) -> bool {
    let Some(mut rest) = core.rest.take() else { return false };
    let mut windows = 0;
    while rest.left > 0 && core.queue.is_unanswered(rest.slot) {
        // The queue wakes when there is room, the fetch at its end.
        if core.queue.is_full() || rest.fetch.strong_count() > 0 {
            core.rest = Some(rest);
            return windows > 0;
        }
        if windows == 1 {
            core.rest = Some(rest);
            core.give_way();
            return true;
        }
        windows += 1;
        window(core, &mut rest, None, None, BytesMut::new());
    }
    if rest.all_hit {
        core.count_hit();
    }
    true
}

/// Puts the next window together, of which `held` is there and the next key was `found` so, and delivers it or has
/// fetched what is missing. The first one begins the reply, of so many `elements`.
fn window(
    core: &Core,
    rest: &mut Rest,
    elements: Option<usize>,
    mut found: Option<Lookup<super::worker::Ticket>>,
    mut held: BytesMut,
) {
    let mut parts = vec![Part::Held(0..held.len())];
    let mut missing = Vec::new();
    let all = rest.keys.clone();
    let (mut keys, mut looked) = (Keys(&all), 0);
    while looked < LOOKUPS && held.len() <= BYTES && missing.len() < MAX_FILLS && rest.left > 0 {
        let Some(key) = keys.next() else { break };
        (rest.left, looked) = (rest.left - 1, looked + 1);
        let start = held.len();
        let found = found.take().unwrap_or_else(|| lookup(core, key, |reply| held.extend_from_slice(reply)));
        match found {
            Lookup::Hit => match parts.last_mut() {
                Some(Part::Held(range)) => range.end = held.len(),
                _ => parts.push(Part::Held(start..held.len())),
            },
            other => {
                parts.push(Part::Missing);
                let lease = if let Lookup::Miss(lease) = other { Some(lease) } else { None };
                missing.push(Missing { key: key.into(), past: lease.is_none(), lease, reply: 0..0 });
            }
        }
    }
    let behind = keys.0.len();
    rest.keys = all.slice(all.len() - behind..);
    core.shared.cache.touch(core.now);
    let (to, last) = (core.to(rest.slot), rest.left == 0);
    let held = held.freeze();
    if missing.is_empty() {
        return assemble(&to, elements, &parts, &held, (&[], &Bytes::new()), last);
    }
    rest.all_hit = false;
    let fetch = Rc::new(Fetch(core.queue.clone()));
    rest.fetch = Rc::downgrade(&fetch);
    let mut out = BytesMut::new();
    out.put_slice(format!("*{}\r\n$4\r\nMGET\r\n", missing.len() + 1).as_bytes());
    missing.iter().for_each(|missing| encode::bulk(&mut out, &missing.key));
    for fill in missing.iter().filter(|missing| missing.lease.is_some()) {
        encode::command(&mut out, &[b"PTTL", &fill.key]);
    }
    let gather = MgetAssembly {
        to,
        elements,
        last,
        held,
        parts,
        missing,
        fetched: BytesMut::new(),
        is_read: false,
        next: 0,
        _fetch: fetch,
    };
    core.send(|to: &mut Outgoing| to.append(out.freeze()), Pending::MgetAssembly(Box::new(gather)));
}

/// Hands a window's elements over in order: small ones together, large ones as they are.
fn assemble(
    to: &ReplySlot,
    elements: Option<usize>,
    parts: &[Part],
    held: &Bytes,
    (missing, fetched): (&[Missing], &Bytes),
    last: bool,
) {
    let mut out = BytesMut::new();
    if let Some(elements) = elements {
        encode::array(&mut out, elements);
    }
    let mut missing = missing.iter();
    for part in parts {
        let bytes = match part {
            Part::Held(range) => held.slice(range.clone()),
            Part::Missing => fetched.slice(missing.next().map_or(0..0, |missing| missing.reply.clone())),
        };
        if bytes.len() < LARGE {
            out.put_slice(&bytes);
            continue;
        }
        if !out.is_empty() {
            to.piece(out.split().freeze(), false);
        }
        to.piece(bytes, false);
    }
    to.piece(out.freeze(), last);
}

fn lookup(core: &Core, key: &[u8], serve: impl FnOnce(&[u8])) -> Lookup<super::worker::Ticket> {
    let name = EntryKey { key, ident: core.number, command: core.shared.get, args: b"", by: By::MGET };
    let namespace = core.shared.namespaces.find(key);
    let bounds = core.bounds(namespace);
    let cover = || core.link.client().cover(namespace);
    core.shared.cache.lookup(&name, core.now, bounds, cover, |_| None, serve)
}

enum Part {
    /// Where elements lie in `held`.
    Held(Range<usize>),
    /// The next of the fetched ones.
    Missing,
}

struct Missing {
    key: Box<[u8]>,
    /// It is read past the cache.
    past: bool,
    lease: Option<CacheLease>,
    /// Where the element lies in `fetched`.
    reply: Range<usize>,
}

/// An `MGET` of the missing keys, and their `PTTL`s, in flight.
pub(super) struct MgetAssembly {
    to: ReplySlot,
    /// Of the whole reply, if this is its first window.
    elements: Option<usize>,
    /// Nothing comes behind it.
    last: bool,
    held: Bytes,
    parts: Vec<Part>,
    missing: Vec<Missing>,
    /// The upstream's reply.
    fetched: BytesMut,
    is_read: bool,
    /// The first of `missing` whose `PTTL` may be the next reply.
    next: usize,
    _fetch: Rc<Fetch>,
}

impl MgetAssembly {
    pub(super) fn to(&self) -> &ReplySlot {
        &self.to
    }

    /// What it fetches.
    pub(super) fn names(&self) -> impl Iterator<Item = EntryKey<'_>> {
        self.missing.iter().filter_map(|missing| missing.lease.as_ref()).map(CacheLease::name)
    }

    pub(super) fn into_to(self) -> ReplySlot {
        self.to
    }

    pub(super) fn reply(
        mut self: Box<Self>,
        peer: &LinkHandler,
        chunk: Chunk<'_>,
        at: At,
    ) -> Option<Box<Self>> {
        if !self.is_read {
            self.fetched.extend_from_slice(&chunk);
            self.is_read = at.last;
            if at.last && (at.kind == Kind::Error || !self.find_elements()) {
                if let Some(lease) = self.missing.iter().find_map(|missing| missing.lease.as_ref()) {
                    peer.shared.note_error(lease.name().ident, &self.fetched);
                }
                self.refuse();
            }
        } else {
            self.keep(peer, &chunk);
        }
        while self.missing.get(self.next).is_some_and(|missing| missing.lease.is_none()) {
            self.next += 1;
        }
        if !self.is_read || self.next < self.missing.len() {
            return Some(self);
        }
        self.deliver(peer);
        None
    }

    /// Finds where each fetched element lies; false if it is not the array that was asked for.
    fn find_elements(&mut self) -> bool {
        let Some(elements) = elements(&self.fetched).filter(|all| all.len() == self.missing.len()) else {
            return false;
        };
        self.missing.iter_mut().zip(elements).for_each(|(missing, reply)| missing.reply = reply);
        true
    }

    /// The upstream answered with something else, an error: that is the reply, and nothing is kept. The
    /// `PTTL`s still come.
    fn refuse(&mut self) {
        self.missing.iter_mut().for_each(|missing| missing.reply = 0..0);
        self.parts.clear();
    }

    /// Takes the next `PTTL`.
    fn keep(&mut self, peer: &LinkHandler, ttl: &[u8]) {
        let Some(missing) = self.missing.get_mut(self.next) else { return };
        self.next += 1;
        let Some(mut lease) = missing.lease.take() else { return };
        let (now, namespace) = (peer.shared.now(), peer.shared.namespaces.find(&missing.key));
        let reply = &self.fetched[missing.reply.clone()];
        let (opened, max_age) = (lease.opened(), peer.shared.max_age(namespace));
        let max_staleness: Micros = peer.shared.max_staleness(namespace);
        if reply.is_empty() {
            lease.give_up(Reason::ErrorReply, now);
            return;
        }
        let is_nil = matches!(reply, b"$-1\r\n" | b"_\r\n");
        // Nil for a key that is there: it holds another type, and GET would answer with an error.
        let fits = !is_nil || ttl == b":-2\r\n";
        if lease.stands() {
            lease.share(peer.shared.shared_by(lease.name().ident, By::MGET));
        }
        match expiry(ttl, reply, opened, max_age) {
            Some(expiry) if fits => drop(lease.fill(reply, expiry, now, max_staleness)),
            _ => drop(lease.give_up(not_kept(&peer.shared, ttl), now)),
        }
    }

    fn deliver(self, peer: &LinkHandler) {
        let now = peer.shared.now();
        // A key that is named twice was read at once: what it has just filled is not older.
        let filled: HashSet<&[u8]> = match self.missing.iter().any(|missing| missing.past) {
            true => {
                self.missing.iter().filter(|missing| !missing.past).map(|missing| &*missing.key).collect()
            }
            false => HashSet::new(),
        };
        for missing in self.missing.iter().filter(|missing| missing.past && !filled.contains(&*missing.key)) {
            peer.past(&missing.key, now);
        }
        let (to, fetched) = (&self.to, self.fetched.freeze());
        if !self.parts.is_empty() {
            return assemble(
                to,
                self.elements,
                &self.parts,
                &self.held,
                (&self.missing, &fetched),
                self.last,
            );
        }
        match self.elements {
            Some(_) => to.piece(fetched, true),
            // Elements of earlier windows are the client's already.
            None => to.error(errors::LATE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_one_by_one() {
        let mut keys = Keys(b"$1\r\na\r\n$0\r\n\r\n$11\r\n$1\r\nx\r\n$2\r\n\r\n");
        assert_eq!(keys.next(), Some(&b"a"[..]));
        assert_eq!(keys.next(), Some(&b""[..]));
        assert_eq!(keys.next(), Some(&b"$1\r\nx\r\n$2\r\n"[..]));
        assert_eq!((keys.next(), keys.0), (None, &b""[..]));
    }
}
