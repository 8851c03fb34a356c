//! An `MGET` in flight: what was fetched of it is kept, and put together with what was there.
//!
//! Invariants: the reply has the upstream's bytes, element by element. An element is kept as the reply to
//! `GET`, with the knowledge that it was had by `MGET` ([`By`]). One that `GET` would answer with an error (nil because of
//! another type) is never kept.

use std::collections::HashSet;
use std::ops::Range;
use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};

use super::expiry::{expiry_of, not_kept};
use super::fill::CacheLease;
use super::link_handler::LinkHandler;
use crate::cache::{By, EntryKey, Micros, Reason};
use crate::io::LARGE;
use crate::process::{Traced, errors};
use crate::reply::{Refusal, ReplyQueue, ReplySlot};
use crate::resp::encode;
use crate::resp::scanner::{Kind, elements};
use crate::upstream::{At, Chunk};

/// A window's fetch; the session is woken at its end, whichever that is.
pub struct Fetch(pub Rc<ReplyQueue>);

impl Drop for Fetch {
    fn drop(&mut self) {
        self.0.wake();
    }
}

/// Where an element of the reply comes from.
pub enum Part {
    /// Where elements lie in `held`.
    Held(Range<usize>),
    /// The next of the fetched ones.
    Missing,
}

/// A key that is fetched.
pub struct Missing {
    pub key: Box<[u8]>,
    /// It is read past the cache.
    pub past: bool,
    pub lease: Option<CacheLease>,
    /// Where the element lies in `fetched`.
    pub reply: Range<usize>,
}

/// A part of the reply: what is there of it, and what is missing, in order.
pub struct Window {
    pub to: ReplySlot,
    /// Of the whole reply, if this is its first window.
    pub elements: Option<usize>,
    /// Nothing comes behind it.
    pub last: bool,
    /// The elements that are there.
    pub held: Bytes,
    pub parts: Vec<Part>,
    /// Stands until it is delivered, or lost.
    pub fetch: Option<Rc<Fetch>>,
}

impl Window {
    /// Hands the elements over in order, with those that were missing: small ones together, large ones as they are.
    pub fn deliver(&self, missing: impl IntoIterator<Item = Bytes>) {
        let mut out = BytesMut::new();
        if let Some(elements) = self.elements {
            encode::array(&mut out, elements);
        }
        let mut missing = missing.into_iter();
        for part in &self.parts {
            let bytes = match part {
                Part::Held(range) => self.held.slice(range.clone()),
                Part::Missing => missing.next().unwrap_or_default(),
            };
            if bytes.len() < LARGE {
                out.put_slice(&bytes);
                continue;
            }
            if !out.is_empty() {
                self.to.piece(out.split().freeze(), false);
            }
            self.to.piece(bytes, false);
        }
        self.to.piece(out.freeze(), self.last);
    }

    /// What was missing is not to be had: this error is the reply, unless elements of earlier windows are the client's already.
    pub fn refuse(&self, error: Bytes) {
        match self.elements {
            Some(_) => self.to.piece(error, true),
            None => self.to.error(errors::LATE),
        }
    }
}

/// An `MGET` of the missing keys, and their `PTTL`s, in flight.
pub struct MgetAssembly {
    /// For whom; nobody, if it is read for the cache alone.
    pub window: Option<Window>,
    pub missing: Vec<Missing>,
    /// The upstream's reply.
    fetched: BytesMut,
    is_read: bool,
    /// The first of `missing` whose `PTTL` may be the next reply.
    next: usize,
    /// It is told of to a collector.
    traced: Option<Box<Traced>>,
}

impl MgetAssembly {
    /// Precondition: the keys of the leases are registered where that is needed.
    pub fn new(window: Option<Window>, missing: Vec<Missing>) -> Self {
        Self { window, missing, fetched: BytesMut::new(), is_read: false, next: 0, traced: None }
    }

    /// It is about to be sent on this link, for a request that was read at `since`, and may be sampled.
    #[cold]
    pub fn trace(&mut self, link: &LinkHandler, since: Micros) {
        let traced = self
            .names()
            .next()
            .and_then(|first| Traced::begin(&link.process, &link.node, since, &first, self.missing.len()));
        self.traced = traced;
    }

    /// Where the reply goes, if it is all of it.
    pub fn whole_to(&self) -> Option<&ReplySlot> {
        let whole = self.window.as_ref().filter(|window| window.elements.is_some() && window.last);
        whole.map(|window| &window.to)
    }

    /// Where the reply goes.
    pub fn to(&self) -> Option<&ReplySlot> {
        self.window.as_ref().map(|window| &window.to)
    }

    /// What it fetches.
    pub fn names(&self) -> impl Iterator<Item = EntryKey<'_>> {
        self.missing.iter().filter_map(|missing| missing.lease.as_ref()).map(CacheLease::name)
    }

    pub fn reply(mut self: Box<Self>, handler: &LinkHandler, chunk: Chunk<'_>, at: At) -> Option<Box<Self>> {
        if !self.is_read {
            self.fetched.extend_from_slice(&chunk);
            self.is_read = at.last;
            if at.last && (at.kind == Kind::Error || !self.find_elements()) {
                self.traced.iter_mut().for_each(|traced| traced.failed(&self.fetched));
                if let Some(lease) = self.missing.iter().find_map(|missing| missing.lease.as_ref()) {
                    handler.process.note_error(&handler.node, lease.name().ident, &self.fetched);
                }
                self.refuse();
            }
        } else {
            self.keep(handler, &chunk);
        }
        while self.missing.get(self.next).is_some_and(|missing| missing.lease.is_none()) {
            self.next += 1;
        }
        if !self.is_read || self.next < self.missing.len() {
            return Some(self);
        }
        let traced = self.traced.take();
        self.deliver(handler);
        if let Some(traced) = traced {
            traced.answered(&handler.node, handler.heard.get());
        }
        None
    }

    /// The read was refused without being executed: it goes back to its slot, if anybody waits for it. Gives itself back if
    /// more was asked behind it.
    ///
    /// Errors: the reply is to be handed over, or it is not that of the read.
    pub fn redirected(mut self: Box<Self>, refusal: Refusal) -> Result<Option<Box<Self>>, Box<Self>> {
        let can = !self.is_read && (self.window.is_none() || self.whole_to().is_some());
        if !can {
            return Err(self);
        }
        self.traced.iter_mut().for_each(|traced| traced.failed(&refusal.line));
        if self.to().is_some_and(|to| to.put_back(refusal).is_err()) {
            return Err(self);
        }
        self.window = None;
        self.is_read = true;
        while self.missing.get(self.next).is_some_and(|missing| missing.lease.is_none()) {
            self.next += 1;
        }
        self.refuse();
        Ok((self.next < self.missing.len()).then_some(self))
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
        self.window.iter_mut().for_each(|window| window.parts.clear());
    }

    /// Takes the next `PTTL`.
    fn keep(&mut self, handler: &LinkHandler, ttl: &[u8]) {
        let Some(missing) = self.missing.get_mut(self.next) else { return };
        self.next += 1;
        let Some(mut lease) = missing.lease.take() else { return };
        let (now, namespace) = (handler.process.now(), handler.process.namespaces.find(&missing.key));
        let reply = &self.fetched[missing.reply.clone()];
        let (opened, max_age) = (lease.opened(), handler.process.max_age(namespace));
        let max_staleness: Micros = handler.process.max_staleness(namespace);
        if reply.is_empty() {
            lease.give_up(Reason::ErrorReply, now);
            return;
        }
        let is_nil = matches!(reply, b"$-1\r\n" | b"_\r\n");
        // Nil for a key that is there: it holds another type, and GET would answer with an error.
        let fits = !is_nil || ttl == b":-2\r\n";
        if lease.stands() {
            lease.share(handler.process.shared_by(&handler.node, lease.name().ident, By::MGET));
        }
        match expiry_of(ttl, reply, opened, max_age) {
            Some(expiry) if fits => drop(lease.fill(reply, expiry, now, max_staleness)),
            _ => drop(lease.give_up(not_kept(&handler.process, ttl), now)),
        }
    }

    fn deliver(self, handler: &LinkHandler) {
        let now = handler.process.now();
        // A key that is named twice was read at once: what it has just filled is not older.
        let filled: HashSet<&[u8]> = match self.missing.iter().any(|missing| missing.past) {
            true => {
                self.missing.iter().filter(|missing| !missing.past).map(|missing| &*missing.key).collect()
            }
            false => HashSet::new(),
        };
        for missing in self.missing.iter().filter(|missing| missing.past && !filled.contains(&*missing.key)) {
            handler.past(&missing.key, now);
        }
        let Some(window) = self.window else { return };
        let fetched = self.fetched.freeze();
        if !window.parts.is_empty() {
            return window.deliver(self.missing.iter().map(|missing| fetched.slice(missing.reply.clone())));
        }
        window.refuse(fetched);
    }
}
