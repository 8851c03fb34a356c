//! The client of a link, shared or dedicated: meets each upstream reply and does what is expected with it.
//!
//! Invariants: a write's fence is released, and what a read past the cache may have overtaken is
//! dropped, just *before* the reply is handed to its slot. From then on the client may act on it.

mod cover;
mod front;
mod place;
mod relayed;
mod written;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Context;

use bytes::{Bytes, BytesMut};
use tracing::{debug, warn};

use cover::Arming;
use front::Front;
use place::Place;

use super::dark::Standing;
use super::errors;
use super::expect::{InFlight, Pending};
use super::login::Answer;
use super::pushes::Pushes;
use super::queue::{ReplyQueue, ReplySlot};
use super::shared::Shared;
use super::worker::Worker;
use crate::cache::{CoverageSlot, LinkId, Micros, NO_LINK};
use crate::resp::Protocol;
use crate::resp::pubsub::message_word;
use crate::resp::scanner::Kind;
use crate::upstream::{At, Chunk, ConnectError, Loss, Pings, ReplyHandler};

/// The client of shared and dedicated links.
pub(super) struct LinkHandler {
    pub(super) shared: Arc<Shared>,
    pub(super) worker: Weak<Worker>,
    /// The link's number; its order is known to itself. [`NO_LINK`] for a dedicated link.
    pub(super) number: LinkId,
    /// The coverage of what is read on the link, from when it first stands; none for a dedicated link.
    pub(super) coverage: RefCell<Option<CoverageSlot>>,
    /// The session of a dedicated link.
    owner: RefCell<Option<Rc<ReplyQueue>>>,
    /// What comes unasked on a dedicated link.
    pub(super) pushes: Pushes,
    /// What the upstream calls the connection, if it told.
    id: Cell<Option<i64>>,
    /// What the connection is called upstream, if it was ever given a session's name.
    name: RefCell<Option<Vec<u8>>>,
    /// It stands, and is counted as standing.
    up: Cell<bool>,
    /// The session has asked for what may be long in coming.
    patient: Cell<bool>,
    /// A reply of ours, as far as it has come.
    read: RefCell<BytesMut>,
    /// Nothing is read for now, because a client does not take its replies.
    held_up: Cell<bool>,
    /// When the bytes came that are handed over now.
    heard: Cell<Micros>,
    /// The heartbeat of a shared link.
    pub(super) pings: Pings,
    /// It gave no answer in time, and has given none since.
    silent: Cell<bool>,
    /// When the server last said that it keeps nothing of the link waiting; 0 if it said otherwise.
    doubted: Cell<Micros>,
    /// Another link has taken its place.
    replaced: Cell<bool>,
    /// Where it leads.
    place: Place,
    /// It may not look (`EVAL`) whether a key is there.
    blind: Cell<bool>,
    /// A write that cannot fail by its arguments was refused: until one is not, what is announced waits for the reply.
    pub(super) careful: Cell<bool>,
    arming: Arming,
    /// Whether what is at the front of a shared link is stuck.
    pub(super) front: Front,
    /// It logs in as nearside itself.
    pub(super) own: bool,
}

impl LinkHandler {
    pub(super) fn new(
        worker: &Rc<Worker>,
        number: LinkId,
        owner: Option<Rc<ReplyQueue>>,
        protocol: Protocol,
    ) -> Self {
        let shared = worker.shared.clone();
        Self {
            shared,
            worker: Rc::downgrade(worker),
            number,
            coverage: RefCell::default(),
            owner: RefCell::new(owner),
            id: Cell::default(),
            name: RefCell::default(),
            up: Cell::default(),
            patient: Cell::default(),
            read: RefCell::default(),
            heard: Cell::default(),
            held_up: Cell::default(),
            pings: Pings::default(),
            silent: Cell::default(),
            doubted: Cell::default(),
            replaced: Cell::default(),
            place: Place::default(),
            blind: Cell::default(),
            careful: Cell::default(),
            arming: Arming::default(),
            front: Front::default(),
            own: false,
            pushes: Pushes::new(protocol),
        }
    }

    /// A reply for `key` was read past the cache on this link.
    pub(super) fn past(&self, key: &[u8], now: Micros) {
        self.shared.cache.note_bypass(key, self.number, now);
    }

    /// From now on a reply may be long in coming.
    pub(super) fn exempt_from_timeout(&self) {
        self.patient.set(true);
    }

    pub(super) fn own(&self, owner: &Rc<ReplyQueue>) {
        self.patient.set(false);
        self.place.change_hands();
        self.owner.replace(Some(owner.clone()));
    }

    pub(super) fn disown(&self) {
        self.owner.replace(None);
    }

    pub(super) fn id(&self) -> Option<i64> {
        self.id.get()
    }

    /// Notes that the connection is called `name` from now on; false if it is already.
    pub(super) fn call(&self, name: &[u8]) -> bool {
        let known = self.name.borrow().as_deref() == Some(name);
        if !known {
            self.name.replace(Some(name.to_vec()));
        }
        !known
    }

    /// What the cache may serve, by `stale-if-error`, for a read that was lost with its link.
    fn instead<'e>(&self, pending: &'e Pending) -> Option<(&'e ReplySlot, Bytes)> {
        if !self.shared.settings.stale_if_error {
            return None;
        }
        let (to, name) = match pending {
            Pending::Bypass(to, past) => (to, past.instead.as_ref()?.borrow()),
            Pending::Fill(fill) => (fill.to()?, fill.name()?),
            _ => return None,
        };
        // Part of the upstream's reply may have been passed on.
        let untouched = !to.queue.has_begun(to.slot);
        let reply = self.shared.cache.stale(&name, self.shared.now()).filter(|_| untouched)?;
        Some((to, reply))
    }

    pub(super) fn count_failed(&self, chunk: &[u8]) {
        self.shared.metrics.announcements_failed.inc();
        if let Some(untold) = self.shared.metrics.announcements_failed_told.now() {
            let reply = String::from_utf8_lossy(chunk);
            let reply = reply.trim_end();
            warn!(reply, untold, "an announcement failed: other sidecars may serve the old value");
        }
    }

    /// Whether the upstream may be asked to look whether a key is there.
    pub(super) fn may_look(&self) -> bool {
        !self.blind.get()
    }

    pub(super) fn forbid_looks(&self) {
        self.blind.set(true);
    }
}

impl Drop for LinkHandler {
    fn drop(&mut self) {
        if self.up.get() {
            // Closed from our side.
            self.shared.metrics.upstream_links.dec();
        }
        self.leave_place();
    }
}

impl ReplyHandler for LinkHandler {
    type InFlight = InFlight;

    fn heard(&self) {
        self.heard.set(self.shared.now());
    }

    fn front(&self, front: Option<&InFlight>) {
        let sent = front.map_or(0, |expect| expect.since);
        if self.front.is_stuck(self.heard.get()) {
            // It is not any more: who waits for another way can take this one.
            self.worker.upgrade().iter().for_each(|worker| worker.wake_undecided());
        }
        self.front.is(front, sent.max(self.heard.get()));
    }

    fn is_push(&self, front: Option<&InFlight>, kind: Kind, start: &[u8]) -> bool {
        if self.number != NO_LINK {
            return kind == Kind::Push;
        }
        let awaited = match front {
            Some(InFlight { pending: Pending::Subscribe(_, awaited), .. }) => Some(awaited),
            _ => None,
        };
        self.pushes.is_push(awaited, kind, start)
    }

    fn push(&self, chunk: Chunk<'_>, at: At) {
        if at.first && at.last {
            self.pushes.note(&chunk);
            self.note_announcement(&chunk);
        }
        match &*self.owner.borrow() {
            Some(owner) if at.first && at.last && message_word(&chunk) == b"tracking-redir-broken" => {
                let who = owner.session().who();
                owner.push(super::clients::redirected(&who, BytesMut::from(&chunk[..])).freeze());
            }
            Some(owner) => owner.push(chunk.into_bytes()),
            None => debug!("a push came on a shared link"),
        }
    }

    fn reply(&self, expect: InFlight, chunk: Chunk<'_>, at: At) -> Option<InFlight> {
        if at.first {
            self.front.answered(at.kind == Kind::Error && chunk.starts_with(b"-BUSY"), self.heard.get());
            if at.kind == Kind::Error {
                self.note_refusal(&chunk);
            }
        }
        let InFlight { since, pending } = expect;
        let again = |pending| Some(InFlight { since, pending });
        match pending {
            Pending::Relay(to) => self.relay(to, since, chunk, at).and_then(|to| again(Pending::Relay(to))),
            Pending::Bypass(to, past) => {
                if at.last {
                    let now = self.shared.now();
                    past.keys.iter().for_each(|key| self.past(key, now));
                }
                self.relay(to, since, chunk, at).and_then(|to| again(Pending::Bypass(to, past)))
            }
            Pending::Write(write) => self.write_reply(write, since, chunk, at).and_then(again),
            Pending::Fill(fill) => {
                let more = fill.reply(self, chunk, at).map(Pending::Fill);
                if more.is_none() {
                    self.proven(since);
                    self.observe(since);
                }
                more.and_then(again)
            }
            Pending::MgetAssembly(gather) => {
                let more = gather.reply(self, chunk, at).map(Pending::MgetAssembly);
                if more.is_none() {
                    self.proven(since);
                    self.observe(since);
                }
                more.and_then(again)
            }
            Pending::Changed(to, mut changed) => {
                changed.held.extend_from_slice(&chunk);
                if !at.last {
                    return again(Pending::Changed(to, changed));
                }
                self.observe(since);
                self.change(&to, changed.held, at.kind, changed.change);
                None
            }
            Pending::Leave(to, mut leaves) => {
                leaves.reply(&chunk, at, &self.pushes);
                self.relay(to, since, chunk, at).and_then(|to| again(Pending::Leave(to, leaves)))
            }
            Pending::Subscribe(to, awaited) => {
                // An error, or `QUEUED` in a transaction: that is all that comes.
                if !matches!(at.kind, Kind::Push | Kind::Aggregate) {
                    return self
                        .relay(to, since, chunk, at)
                        .and_then(|to| again(Pending::Subscribe(to, awaited)));
                }
                if !at.last {
                    to.piece(chunk.into_bytes(), false);
                    return again(Pending::Subscribe(to, awaited));
                }
                let left = self.pushes.confirmed(awaited, &chunk);
                to.piece(chunk.into_bytes(), left.is_none());
                left.and_then(|left| again(Pending::Subscribe(to, left)))
            }
            Pending::Multi(to, transaction) => {
                if at.first {
                    transaction.borrow_mut().answer(at.kind == Kind::Error, &self.shared);
                }
                self.relay(to, since, chunk, at).and_then(|to| again(Pending::Multi(to, transaction)))
            }
            Pending::Monitor(to) => {
                if at.kind != Kind::Error {
                    self.pushes.be_raw();
                }
                self.relay(to, since, chunk, at).and_then(|to| again(Pending::Monitor(to)))
            }
            Pending::Said(said) => self.said(said, &chunk, at).and_then(again),
            Pending::Ping => {
                self.front.took(self.heard.get().saturating_sub(since));
                self.proven(since);
                self.answered();
                None
            }
            Pending::Audit(audit) => audit.reply(&self.shared, chunk, at).map(Pending::Audit).and_then(again),
            Pending::Login(asked) => {
                // An error's text is short, and comes whole.
                asked.answer(match at.kind {
                    Kind::Error => Answer::Refused(chunk.into_bytes()),
                    _ => Answer::Accepted,
                });
                None
            }
            Pending::Name => {
                if at.kind == Kind::Error {
                    self.name.replace(None);
                }
                None
            }
            Pending::Answers(answers) => match answers.take(&chunk, at) {
                true => None,
                false => again(Pending::Answers(answers)),
            },
            Pending::Server(feed, server) => {
                self.front.took(self.heard.get().saturating_sub(since));
                self.read.borrow_mut().extend_from_slice(&chunk);
                if !at.last {
                    return again(Pending::Server(feed, server));
                }
                let reply = self.read.take();
                self.leads(feed, server, &reply, at.kind);
                None
            }
            Pending::Arm(feed) => {
                self.front.took(self.heard.get().saturating_sub(since));
                self.armed(feed, since, &chunk, at.kind);
                None
            }
            Pending::Standing(number) => {
                self.read.borrow_mut().extend_from_slice(&chunk);
                if !at.last {
                    return again(Pending::Standing(number));
                }
                let standing = Standing::of(at.kind, &self.read.take());
                if let (Some(standing), Some(worker)) = (standing, self.worker.upgrade()) {
                    worker.stands(number, standing);
                }
                None
            }
        }
    }

    fn lost(&self, mut expect: InFlight, loss: &Loss) {
        self.written_or_not(&mut expect.pending, loss.sent);
        if let Pending::Login(asked) = &expect.pending {
            return asked.lost(loss);
        }
        if let Some((to, reply)) = self.instead(&expect.pending) {
            return to.piece(reply, true);
        }
        if let Pending::Answers(answers) = &expect.pending {
            self.shared.metrics.upstream_lost.inc();
            return answers.lose(&errors::lost(&self.shared.settings.upstream.address, loss));
        }
        if let Some(to) = expect.pending.give_up() {
            self.shared.metrics.upstream_lost.inc();
            to.error(&errors::lost(&self.shared.settings.upstream.address, loss));
        }
    }

    fn attempt(&self) {
        self.shared.metrics.link_attempts.inc();
        self.place.attempt(self.shared.role.era());
    }

    fn up(&self, id: Option<i64>) {
        self.heard();
        self.place.reach(self.heard.get());
        self.id.set(id);
        if let Some(owner) = &*self.owner.borrow() {
            owner.session().is_on(id);
        }
        self.take_place();
        self.shared.metrics.upstream_connects.inc();
        self.shared.metrics.upstream_links.inc();
        self.up.set(true);
        if let Some(worker) = self.worker.upgrade() {
            worker.link_up(self.number);
        }
    }

    fn down(&self, was_up: bool, loss: &Loss) {
        self.disarm();
        if self.number != NO_LINK {
            self.shared.cache.no_echoes_of(self.number, self.shared.now());
        }
        self.name.replace(None);
        self.id.set(None);
        self.read.take();
        self.pings.forget();
        self.silent.set(false);
        self.doubted.set(0);
        self.ask_anew();
        self.front.become_ready(false);
        self.worker.upgrade().iter().for_each(|worker| worker.wake_undecided());
        if was_up {
            self.shared.metrics.upstream_disconnects.inc();
            self.shared.metrics.upstream_links.dec();
            self.up.set(false);
            if let Some(worker) = self.worker.upgrade().filter(|_| self.number != NO_LINK) {
                worker.link_lost(self.number);
            }
        }
        // A refusal is told to whoever asked for the identity.
        let refused = matches!(loss.cause, ConnectError::Refused(_));
        let metrics = &self.shared.metrics;
        if self.number != NO_LINK
            && !refused
            && let Some(untold) = metrics.links_down_told.now()
        {
            let upstream = &self.shared.settings.upstream.address;
            warn!(%upstream, link = self.number.0, untold, cause = %loss.cause, "link is down");
        }
        if let Some(owner) = &*self.owner.borrow() {
            owner.session().is_on(None);
            owner.lose_link();
        }
    }

    fn has_room(&self, front: Option<&InFlight>, cx: &mut Context<'_>) -> bool {
        let room = self.room(front, cx);
        self.held_up.set(!room);
        room
    }

    fn reconnects(&self) -> bool {
        self.number != NO_LINK
    }

    fn may_wait(&self, _expect: &InFlight) -> bool {
        self.patient.get()
    }
}

impl LinkHandler {
    fn room(&self, front: Option<&InFlight>, cx: &mut Context<'_>) -> bool {
        if let Some(owner) = &*self.owner.borrow() {
            return owner.has_room(cx);
        }
        match front.map(|expect| &expect.pending) {
            Some(Pending::Relay(to) | Pending::Bypass(to, _)) => to.queue.has_shared_room(cx),
            Some(Pending::Fill(fill)) => fill.to().is_none_or(|to| to.queue.has_shared_room(cx)),
            Some(Pending::MgetAssembly(gather)) => gather.to().queue.has_shared_room(cx),
            Some(Pending::Write(write)) => write.to.as_ref().is_none_or(|to| to.queue.has_shared_room(cx)),
            _ => true,
        }
    }

    fn observe(&self, since: Micros) {
        let micros = self.heard.get().saturating_sub(since);
        self.front.took(micros);
        self.shared.metrics.upstream_latency.observe(micros, 1);
    }
}
