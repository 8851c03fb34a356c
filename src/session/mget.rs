//! `MGET`, put together key by key: only what is missing is fetched, with one `MGET`.
//!
//! What always holds: the reply has the upstream's bytes, element by element. An element is kept as the reply to
//! `GET`, or, where only one of both may be said ([`Shared::shares_gets`]), as that to an `MGET` of its key alone. One
//! that `GET` would answer with an error (nil because of another type) is never kept under `GET`.
//!
//! [`Shared::shares_gets`]: super::shared::Shared::shares_gets

use std::collections::HashSet;
use std::ops::Range;

use bytes::{BufMut, BytesMut};

use super::core::Core;
use super::expect::{CacheLease, What};
use super::outbox::To;
use super::peer::Peer;
use super::read::{life, not_kept};
use crate::cache::{Lookup, Micros, Name, Reason};
use crate::resp::encode;
use crate::resp::request::Request;
use crate::resp::scanner::{Kind, elements};
use crate::upstream::{At, Chunk, Outgoing};

/// Missing keys of one request that are kept; what is beyond is only passed on.
const MAX_FILLS: usize = 1024;

/// As what the elements are kept.
#[derive(Clone, Copy)]
struct Kept {
    command: u16,
    /// What stands before the element in the reply.
    lead: &'static [u8],
}

pub(super) fn mget(core: &mut Core, request: &Request<'_>) {
    let elements = request.len() - 1;
    let kept = match core.shared.shares_gets(&core.ident) {
        true => Kept { command: core.shared.get, lead: b"" },
        false => Kept { command: core.shared.mget, lead: b"*1\r\n" },
    };
    let lead = kept.lead.len();
    // As long as all are there, they go straight to where the client's replies are gathered.
    let first = core.outbox.reply_unless(|out| {
        encode::array(out, elements);
        let start = out.len();
        (1..=elements).find_map(|i| {
            match lookup(core, kept, request.arg(i), |reply| {
                out.extend_from_slice(&reply[lead..]);
            }) {
                Lookup::Hit => None,
                other => Some((i, other, BytesMut::from(&out[start..]))),
            }
        })
    });
    let Some((at, other, mut held)) = first else { return core.count_hit() };
    let mut parts = vec![Part::Held(0..held.len())];
    let mut missing = Vec::new();
    let mut found = Some(other);
    for i in at..=elements {
        let key = request.arg(i);
        let start = held.len();
        let found = found
            .take()
            .unwrap_or_else(|| lookup(core, kept, key, |reply| held.extend_from_slice(&reply[lead..])));
        match found {
            Lookup::Hit => parts.push(Part::Held(start..held.len())),
            Lookup::Miss(lease) if missing.len() < MAX_FILLS => {
                parts.push(Part::Missing);
                missing.push(Missing { key: key.into(), past: false, lease: Some(lease), reply: 0..0 });
            }
            other => {
                if let Lookup::Miss(lease) = other {
                    lease.give_up(Reason::TooLong, core.now);
                }
                parts.push(Part::Missing);
                missing.push(Missing { key: key.into(), past: true, lease: None, reply: 0..0 });
            }
        }
    }
    core.shared.cache.touch(core.now);
    let to = core.to(core.outbox.open());
    let mut out = BytesMut::new();
    out.put_slice(format!("*{}\r\n$4\r\nMGET\r\n", missing.len() + 1).as_bytes());
    missing.iter().for_each(|missing| encode::bulk(&mut out, &missing.key));
    for fill in missing.iter().filter(|missing| missing.lease.is_some()) {
        encode::command(&mut out, &[b"PTTL", &fill.key]);
    }
    let gather = Gather {
        to,
        elements,
        kept,
        held,
        parts,
        missing,
        fetched: BytesMut::new(),
        is_read: false,
        next: 0,
    };
    core.send(|to: &mut Outgoing| to.append(out.freeze()), What::Gather(Box::new(gather)));
}

fn lookup(core: &Core, kept: Kept, key: &[u8], serve: impl FnOnce(&[u8])) -> Lookup<super::worker::Ticket> {
    let name = Name { key, ident: core.number, command: kept.command, rest: b"" };
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
pub(super) struct Gather {
    to: To,
    elements: usize,
    kept: Kept,
    held: BytesMut,
    parts: Vec<Part>,
    missing: Vec<Missing>,
    /// The upstream's reply.
    fetched: BytesMut,
    is_read: bool,
    /// The first of `missing` whose `PTTL` may be the next reply.
    next: usize,
}

impl Gather {
    pub(super) fn to(&self) -> &To {
        &self.to
    }

    pub(super) fn into_to(self) -> To {
        self.to
    }

    pub(super) fn reply(mut self: Box<Self>, peer: &Peer, chunk: Chunk<'_>, at: At) -> Option<Box<Self>> {
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
    fn keep(&mut self, peer: &Peer, ttl: &[u8]) {
        let Some(missing) = self.missing.get_mut(self.next) else { return };
        self.next += 1;
        let Some(lease) = missing.lease.take() else { return };
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
        let fits = !is_nil || ttl == b":-2\r\n" || self.kept.command == peer.shared.mget;
        let reply = [self.kept.lead, reply].concat();
        match life(ttl, &reply, opened, max_age) {
            Some(life) if fits => drop(lease.fill(&reply, life, now, max_staleness)),
            _ => drop(lease.give_up(not_kept(&peer.shared, ttl), now)),
        }
    }

    fn deliver(self, peer: &Peer) {
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
        if self.parts.is_empty() {
            self.to.piece(self.fetched.freeze(), true);
            return;
        }
        let mut out = BytesMut::with_capacity(self.held.len() + self.fetched.len() + 16);
        encode::array(&mut out, self.elements);
        let mut fetched = self.missing.iter();
        for part in &self.parts {
            match part {
                Part::Held(range) => out.put_slice(&self.held[range.clone()]),
                Part::Missing => {
                    let range = fetched.next().map_or(0..0, |missing| missing.reply.clone());
                    out.put_slice(&self.fetched[range]);
                }
            }
        }
        self.to.piece(out.freeze(), true);
    }
}
