//! Writes: the keys that a request touches, their fence and their announcements.
//!
//! Invariants: the fence is taken before the write is sent. What is to be announced whatever the reply says follows
//! the write on the same connection in the same packet; the rest is decided by the reply, and sent when it comes. A
//! session with a login of its own announces over nearside's own link, when its write is answered: it may be allowed
//! to write and not to publish.

use std::rc::Rc;

use bytes::BytesMut;

use super::announce::{self, Saying};
use super::core::{Raw, send_on};
use super::expect::{Barrier, CacheFence, Pending, Write};
use super::idents::Ident;
use super::peer::LinkHandler;
use super::queue::ReplySlot;
use super::refill;
use super::shared::Shared;
use super::state::Leaves;
use super::worker::Worker;
use crate::cache::{Micros, NO_LINK, Reason};
use crate::command::{Access, KeySet, KeyUse, Row, Say, Tells};
use crate::resp::request::Request;
use crate::upstream::{Link, Outgoing, PING};

/// Keys that one request or transaction touches, at most; with more of them everything is fenced.
const MAX_KEYS: usize = 1 << 16;

/// The keys that are written, or read past the cache, by one request or one transaction.
#[derive(Default)]
pub(super) struct WriteSet {
    pub(super) keys: Vec<Box<[u8]>>,
    /// A write of a string: `GET` reads what it leaves behind.
    pub(super) string: bool,
    /// Anything may be another afterwards, or there are too many keys.
    all: bool,
    /// Keys that are not known may be written.
    barrier: Option<Barrier>,
    /// It may wait at the server before it does anything.
    waits: bool,
    /// What is said of all keys in namespaces, whatever the reply is; and what the reply decides.
    publish: BytesMut,
    certain: usize,
    sayings: Vec<Saying>,
    /// The database, if it is another than that of the session's identity.
    pub(super) db: Option<u32>,
    leaves: Option<Box<Leaves>>,
}

impl WriteSet {
    /// For a request that is likely to write one key.
    pub(super) fn of_one() -> Self {
        Self { keys: Vec::with_capacity(1), ..Self::default() }
    }

    pub(super) fn add(&mut self, shared: &Shared, row: Option<&Row>, request: &Request<'_>) {
        self.add_at(shared, row, request, None);
    }

    fn add_at(&mut self, shared: &Shared, row: Option<&Row>, request: &Request<'_>, place: Option<usize>) {
        let Some(row) = row else {
            self.barrier = Some(Barrier::Anything);
            return;
        };
        self.string = refill::is_string_write(&row.name);
        // Asked only for a key in a namespace.
        let (mut tells, mut said) = (None, Vec::new());
        let set = row.keys(request, |i, usage| {
            if usage == KeyUse::Read {
                return;
            }
            let key = request.arg(i);
            if shared.namespaces.find(key).is_some() {
                let tells = *tells.get_or_insert_with(|| row.tells(request));
                if tells == Tells::Certain && place.is_none() {
                    self.certain += usize::from(announce::write(&mut self.publish, shared, key, Say::Update));
                } else {
                    said.push((key.into(), usage));
                }
            }
            self.keys.push(key.into());
        });
        if let Some(tells) = tells.filter(|_| !said.is_empty()) {
            self.sayings.push(Saying { tells, keys: said, place });
        }
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
    /// `place` is where its reply stands in that of the transaction.
    pub(super) fn add_queued(
        &mut self,
        shared: &Shared,
        row: Option<&Row>,
        request: &Request<'_>,
        place: usize,
    ) {
        match row {
            Some(row) if row.access != Access::Write => {
                let _ = row.keys(request, |i, _| self.keys.push(request.arg(i).into()));
                self.all |= self.keys.len() > MAX_KEYS;
            }
            row => self.add_at(shared, row, request, Some(place)),
        }
    }

    /// Takes in the keys of `other`, without its announcements.
    pub(super) fn add_keys(&mut self, other: &WriteSet) {
        self.barrier = self.barrier.max(other.barrier);
        self.all |= other.all || self.keys.len() + other.keys.len() > MAX_KEYS;
        match self.all {
            true => self.keys.clear(),
            false => self.keys.extend_from_slice(&other.keys),
        }
    }

    /// Announces writes that are done, of which no reply has told.
    pub(super) fn announce_later(self, worker: &Rc<Worker>, db: u32) {
        let keys = self.sayings.into_iter().flat_map(|saying| saying.keys);
        worker.say(NO_LINK, db, keys.map(|(key, _)| (key, Say::Look)).collect());
    }

    /// The keys in namespaces, all of which were written with one outcome.
    fn saying(&mut self, shared: &Shared, tells: Tells) {
        let keys = self.keys.iter().filter(|key| shared.namespaces.find(key).is_some());
        let keys = keys.map(|key| (key.clone(), KeyUse::Update)).collect();
        (self.certain, self.sayings) = (0, vec![Saying { tells, keys, place: None }]);
    }

    /// What the request leaves on its connection, if the server accepts it.
    pub(super) fn leave(&mut self, leaves: Box<Leaves>) {
        self.leaves = Some(leaves);
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
        link: &Link<LinkHandler>,
        ident: &Ident,
        now: Micros,
        to: ReplySlot,
        raw: Raw<'_>,
    ) {
        let peer = link.client();
        let (number, own) = (peer.number, ident.user.is_none());
        let refills = refill::wanted(shared, link, ident, &self, now);
        let (fence, popped) = self.hold(shared, now);
        if self.certain > 0 && (!own || peer.careful.get()) {
            self.saying(shared, Tells::There);
        }
        // The read behind it is deaf to what is said before it.
        let look = !refills.is_empty() && !self.sayings.is_empty() && peer.may_look();
        if look {
            self.look_behind(shared);
        }
        let (behind, say) = (self.certain, if look { Say::Look } else { Say::Update });
        let mut echoed = Vec::new();
        if behind > 0 {
            echoed = std::mem::take(&mut self.keys);
            echoed.retain(|key| shared.namespaces.find(key).is_some());
            echoed.iter().for_each(|key| shared.cache.expect_echo(key, number));
        }
        shared.metrics.announcements.add(behind as u64);
        let write = |out: &mut Outgoing| {
            raw.write(out);
            if behind > 0 {
                out.copy(&self.publish);
            }
        };
        let leases = refill::lease(shared, link, &refills, now);
        let pending = Pending::Write(Box::new(Write {
            fence,
            popped,
            barrier: self.barrier,
            announced: behind,
            say: if behind > 0 { say } else { Say::Nothing },
            echoed,
            sayings: self.sayings,
            via: if own { number } else { NO_LINK },
            db: self.db.unwrap_or(ident.db),
            leaves: self.leaves,
            ..Write::new(Some(to))
        }));
        if send_on(link, now, write, pending) {
            refill::send(shared, link, leases, now);
        }
    }

    /// Lets the upstream look behind the write whether its keys are there.
    fn look_behind(&mut self, shared: &Shared) {
        self.sayings.clear();
        self.publish.clear();
        self.keys.sort_unstable();
        self.keys.dedup();
        let publish = &mut self.publish;
        self.certain =
            self.keys.iter().filter(|key| announce::write(publish, shared, key, Say::Look)).count();
    }

    /// Sends a write whose own reply is skipped; a `PING` behind it is answered. What the write has done is not told.
    pub(super) fn send_skipped(
        mut self,
        shared: &Shared,
        link: &Link<LinkHandler>,
        ident: &Ident,
        now: Micros,
        raw: Raw<'_>,
    ) {
        let (fence, popped) = self.hold(shared, now);
        if self.certain > 0 {
            self.saying(shared, Tells::Open);
        }
        let mut sayings = self.sayings;
        sayings.iter_mut().for_each(|saying| (saying.tells, saying.place) = (Tells::Open, None));
        let pending = Pending::Write(Box::new(Write {
            fence,
            popped,
            barrier: self.barrier,
            announced: 1,
            sayings,
            db: self.db.unwrap_or(ident.db),
            ..Write::new(None)
        }));
        let write = |out: &mut Outgoing| {
            raw.write(out);
            out.copy(PING);
        };
        let _ = send_on(link, now, write, pending);
    }

    /// Sends a write on a connection whose client wants no replies, with announcements that have none
    /// either. The fence is gone at once: nobody is told when the write is done, and what is read before
    /// that is dropped by the announcement or by the upstream's tracking. Another user may not be allowed to look,
    /// of which nobody would be told.
    pub(super) fn send_unanswered(
        mut self,
        shared: &Shared,
        link: &Link<LinkHandler>,
        ident: &Ident,
        now: Micros,
        raw: Raw<'_>,
    ) {
        drop(self.fence(shared, now));
        if self.certain == 0 {
            let say = if ident.user.is_none() && link.client().may_look() { Say::Look } else { Say::Delete };
            let keys = self.sayings.iter().flat_map(|saying| &saying.keys);
            self.certain =
                keys.filter(|(key, _)| announce::write(&mut self.publish, shared, key, say)).count();
        }
        shared.metrics.announcements.add(self.certain as u64);
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
