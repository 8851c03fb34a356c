//! Writes: the keys that a request touches, their fence and their announcements.
//!
//! What always holds: the fence is taken before the write is sent, and the announcements follow the write on
//! the same connection in the same packet. Only a session with a login of its own announces later, over
//! nearside's own link, when its write is answered: it may be allowed to write and not to publish.

use std::rc::Rc;

use bytes::BytesMut;

use super::core::{Raw, send_on};
use super::expect::{Barrier, CacheFence, What, Write};
use super::outbox::To;
use super::peer::Peer;
use super::refill;
use super::shared::{Ident, Shared};
use super::state::Leaves;
use super::worker::Worker;
use crate::cache::{Micros, NO_LINK, Reason};
use crate::command::{Access, KeySet, KeyUse, Row};
use crate::namespace::Event;
use crate::resp::encode;
use crate::resp::request::Request;
use crate::upstream::{Link, Outgoing};

/// Keys that one request or transaction touches, at most; with more of them everything is fenced.
const MAX_KEYS: usize = 1 << 16;

/// The keys that are written, or read past the cache, by one request or one transaction.
#[derive(Default)]
pub(super) struct Touched {
    pub(super) keys: Vec<Box<[u8]>>,
    /// A write of a string: `GET` reads what it leaves behind.
    pub(super) string: bool,
    /// Anything may be another afterwards, or there are too many keys.
    all: bool,
    /// Keys that are not known may be written.
    barrier: Option<Barrier>,
    /// It may wait at the server before it does anything.
    waits: bool,
    publish: BytesMut,
    announcements: usize,
    leaves: Option<Box<Leaves>>,
}

impl Touched {
    pub(super) fn add(&mut self, shared: &Shared, row: Option<&Row>, request: &Request<'_>) {
        let Some(row) = row else {
            self.barrier = Some(Barrier::Anything);
            return;
        };
        self.string = refill::is_string_write(&row.name);
        let set = row.keys(request, |i, usage| {
            let key = request.arg(i);
            let event = match usage {
                KeyUse::Read => return,
                KeyUse::Update => Event::Update,
                KeyUse::Delete => Event::Delete,
            };
            self.announce(shared, key, event);
            self.keys.push(key.into());
        });
        self.all |= set == KeySet::All || self.keys.len() > MAX_KEYS;
        if set == KeySet::Unknown {
            self.barrier = self.barrier.or(Some(Barrier::Keys));
        }
    }

    /// The request may wait at the server, as long as it likes. A fence would keep its keys from the cache all the while.
    /// It is not needed: they are invalidated when the reply comes, before it is delivered. What was read on the server
    /// before the write has its entry dropped then, or its lease voided; what is leased later is read after it.
    pub(super) fn may_wait(&mut self) {
        // What may change anything is no pop.
        self.waits = !self.all && self.barrier.is_none();
    }

    /// Whether keys may be written that are not known.
    pub(super) fn is_barrier(&self) -> bool {
        self.barrier.is_some()
    }

    /// For a transaction: also what is read in it, for it is read past the cache.
    pub(super) fn add_queued(&mut self, shared: &Shared, row: Option<&Row>, request: &Request<'_>) {
        match row {
            Some(row) if row.access != Access::Write => {
                let _ = row.keys(request, |i, _| self.keys.push(request.arg(i).into()));
                self.all |= self.keys.len() > MAX_KEYS;
            }
            row => self.add(shared, row, request),
        }
    }

    /// Takes in the keys of `other`, without its announcements.
    pub(super) fn add_keys(&mut self, other: &Touched) {
        self.barrier = self.barrier.max(other.barrier);
        self.all |= other.all || self.keys.len() + other.keys.len() > MAX_KEYS;
        match self.all {
            true => self.keys.clear(),
            false => self.keys.extend_from_slice(&other.keys),
        }
    }

    /// Makes the announcements of writes that are done.
    pub(super) fn announce_later(self, worker: &Rc<Worker>) {
        if self.announcements > 0 {
            worker.shared.metrics.announcements.add(self.announcements as u64);
            worker.announce(self.publish.freeze(), self.announcements);
        }
    }

    /// What the request leaves on its connection, if the server accepts it.
    pub(super) fn leave(&mut self, leaves: Box<Leaves>) {
        self.leaves = Some(leaves);
    }

    fn announce(&mut self, shared: &Shared, key: &[u8], event: Event) {
        let Some(namespace) = shared.namespaces.find(key) else { return };
        let Some(bare) = namespace.bare(key) else { return };
        encode::command(&mut self.publish, &[b"PUBLISH", namespace.channel(event), bare]);
        self.announcements += 1;
    }

    pub(super) fn fence(&self, shared: &Shared, now: Micros) -> CacheFence {
        if self.all {
            return shared.cache.fence_all(Reason::Write);
        }
        shared.cache.fence(self.keys.iter().map(|key| &**key), Reason::Write, now)
    }

    /// The fence; or the keys that are to be invalidated by the reply.
    fn hold(&self, shared: &Shared, now: Micros) -> (Option<CacheFence>, Vec<Box<[u8]>>) {
        match self.waits {
            true => (None, self.keys.clone()),
            false => (Some(self.fence(shared, now)), Vec::new()),
        }
    }

    /// Takes the fence and sends the write with its announcements; the reply goes to `to`.
    pub(super) fn send(
        mut self,
        shared: &Shared,
        link: &Link<Peer>,
        ident: &Ident,
        now: Micros,
        to: To,
        raw: Raw<'_>,
    ) {
        let number = link.client().number;
        let own = ident.user.is_none();
        let refills = refill::wanted(shared, link, ident, &self, now);
        let (fence, popped) = self.hold(shared, now);
        shared.metrics.announcements.add(self.announcements as u64);
        let mut echoed = Vec::new();
        if own && number != NO_LINK && self.announcements > 0 {
            echoed = std::mem::take(&mut self.keys);
            echoed.retain(|key| shared.namespaces.find(key).is_some());
        }
        let announced = if own { self.announcements } else { 0 };
        let announce =
            (!own && self.announcements > 0).then(|| (self.publish.clone().freeze(), self.announcements));
        let write = |out: &mut Outgoing| {
            raw.write(out);
            if own {
                out.copy(&self.publish);
            }
        };
        echoed.iter().for_each(|key| shared.cache.expect_echo(key, number));
        let leases = refill::lease(shared, link, &refills, now);
        let leaves = self.leaves.take();
        let what = What::Write(Box::new(Write {
            to: Some(to),
            fence,
            popped,
            barrier: self.barrier,
            announced,
            echoed,
            announce,
            leaves,
        }));
        if send_on(link, now, write, what) {
            refill::send(shared, link, leases, now);
        }
    }

    /// Sends a write whose own reply is skipped; its announcements are answered, or if there are none, a
    /// `PING` is.
    pub(super) fn send_skipped(self, shared: &Shared, link: &Link<Peer>, now: Micros, raw: Raw<'_>) {
        let (fence, popped) = self.hold(shared, now);
        shared.metrics.announcements.add(self.announcements as u64);
        let what = What::Write(Box::new(Write {
            to: None,
            fence,
            popped,
            barrier: self.barrier,
            announced: self.announcements.max(1),
            echoed: Vec::new(),
            announce: None,
            leaves: None,
        }));
        let write = |out: &mut Outgoing| {
            raw.write(out);
            match self.announcements {
                0 => out.copy(b"*1\r\n$4\r\nPING\r\n"),
                _ => out.copy(&self.publish),
            }
        };
        let _ = send_on(link, now, write, what);
    }

    /// Sends a write on a connection whose client wants no replies, with announcements that have none
    /// either. The fence is gone at once: nobody is told when the write is done, and what is read before
    /// that is dropped by the announcement or by the upstream's tracking.
    pub(super) fn send_unanswered(self, shared: &Shared, link: &Link<Peer>, now: Micros, raw: Raw<'_>) {
        drop(self.fence(shared, now));
        shared.metrics.announcements.add(self.announcements as u64);
        link.send_unanswered(|out| {
            raw.write(out);
            out.copy(&self.publish);
        });
    }
}

/// What a request may do to keys that are not known.
pub(super) fn barrier(row: Option<&Row>, request: &Request<'_>) -> Option<Barrier> {
    let Some(row) = row else { return Some(Barrier::Anything) };
    (row.keys(request, |_, _| ()) == KeySet::Unknown).then_some(Barrier::Keys)
}
