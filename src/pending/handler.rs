//! What becomes of the replies on a link, and of a link that comes or goes.
//!
//! Invariants: a write's fence is released, and what a read past the cache may have overtaken is
//! dropped, just *before* the reply is handed to its slot. From then on the client may act on it.

use std::task::Context;

use bytes::{Bytes, BytesMut};
use tracing::{debug, warn};

use super::asked::Answer;
use super::changed::redirected;
use super::in_flight::{Bypass, InFlight, Pending};
use super::link_handler::LinkHandler;
use super::standing::Standing;
use super::upcalls::LinkEvent;
use crate::cache::{Micros, NO_LINK};
use crate::io::Outgoing;
use crate::process::errors;
use crate::reply::ReplySlot;
use crate::resp::pubsub::message_word;
use crate::resp::scanner::Kind;
use crate::upstream::{self, At, Chunk, ConnectError, Loss, ReplyHandler};

/// A link of ours.
pub type Link = upstream::Link<LinkHandler>;

/// Sends on `link`, with what is in flight from then on. If the link is away, whoever waits is told at once, and the answer
/// is false.
pub fn send(link: &Link, since: Micros, write: impl FnOnce(&mut Outgoing), pending: Pending) -> bool {
    let handler = link.client();
    handler.process.metrics.upstream_requests.inc();
    let Err((request, loss)) = link.send(write, InFlight { since, pending }) else { return true };
    handler.process.metrics.upstream_refused.inc();
    // Its announcements were not sent: who waited for their echoes would miss those of others.
    request.pending.echoed().iter().for_each(|key| handler.process.cache.no_echo(key, since));
    let text = errors::lost(&handler.node.upstream.address, &loss);
    if let Pending::Answers(answers) = &request.pending {
        answers.lose(&text);
    }
    if let Some(to) = handler.lost_with(request.pending, &loss).and_then(Pending::give_up) {
        to.error(&text);
    }
    false
}

impl Drop for LinkHandler {
    fn drop(&mut self) {
        // If it stands, it is closed from our side.
        self.note_standing(false);
        self.lead_to(None);
        self.leave_place();
    }
}

impl ReplyHandler for LinkHandler {
    type InFlight = InFlight;

    fn heard(&self) {
        self.heard.set(self.process.now());
    }

    fn front(&self, front: Option<&InFlight>) {
        let sent = front.map_or(0, |request| request.since);
        if self.front.is_stuck(self.heard.get()) {
            // It is not any more: who waits for another way can take this one.
            self.tell(LinkEvent::Changed);
        }
        let writes = |request: &InFlight| matches!(request.pending, Pending::Write(_) | Pending::Said(_));
        self.front.is(front.map(writes), sent.max(self.heard.get()));
    }

    fn is_push(&self, front: Option<&InFlight>, kind: Kind, start: &[u8]) -> bool {
        if self.id != NO_LINK {
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
            if self.follows(&chunk) {
                return;
            }
        }
        match &*self.owner.borrow() {
            Some(owner) if at.first && at.last && message_word(&chunk) == b"tracking-redir-broken" => {
                let who = owner.client.who();
                owner.queue.push(redirected(&who, BytesMut::from(&chunk[..])).freeze());
            }
            Some(owner) if self.pushes.is_raw() && at.kind != Kind::Push => {
                owner.queue.push_reply(chunk.into_bytes());
            }
            Some(owner) => owner.queue.push(chunk.into_bytes()),
            None => debug!("a push came on a shared link"),
        }
    }

    fn reply(&self, request: InFlight, chunk: Chunk<'_>, at: At) -> Option<InFlight> {
        if at.first {
            self.front.answered(at.kind == Kind::Error && chunk.starts_with(b"-BUSY"), self.heard.get());
        }
        let InFlight { since, pending } = request;
        let pending = if at.first && at.kind == Kind::Error || self.astray.keeps_any() {
            match self.take_in(pending, &chunk, at) {
                Ok(pending) => pending,
                Err(more) => return more.map(|pending| InFlight { since, pending }),
            }
        } else {
            pending
        };
        let more = match pending {
            Pending::Relay(to) => self.relay(to, since, chunk, at).map(Pending::Relay),
            Pending::Bypass(to, mut bypass) => {
                self.go_ahead(&mut bypass, &chunk, at);
                if at.last {
                    let now = self.process.now();
                    bypass.keys.iter().for_each(|key| self.past(key, now));
                }
                let traced = if at.last { bypass.traced.take() } else { None };
                let more = self.relay(to, since, chunk, at).map(|to| Pending::Bypass(to, bypass));
                if let Some(traced) = traced {
                    traced.answered(&self.node, self.heard.get());
                }
                more
            }
            Pending::Write(write) => self.write_reply(write, since, chunk, at).map(Pending::Write),
            Pending::Fill(fill) => {
                let more = fill.reply(self, chunk, at).map(Pending::Fill);
                self.read_done(since, more.is_none());
                more
            }
            Pending::MgetAssembly(assembly) => {
                let more = assembly.reply(self, chunk, at).map(Pending::MgetAssembly);
                self.read_done(since, more.is_none());
                more
            }
            Pending::Asking => (!at.last).then_some(Pending::Asking),
            Pending::Said(said) => self.said(said, &chunk, at).map(Pending::Said),
            Pending::Audit(audit) => audit.reply(&self.process, chunk, at).map(Pending::Audit),
            pending if pending.is_of_the_link() => self.answered_itself(pending, since, &chunk, at),
            pending => self.state_reply(pending, since, chunk, at),
        };
        more.map(|pending| InFlight { since, pending })
    }

    fn lost(&self, request: InFlight, loss: &Loss) {
        let Some(pending) = self.sift_lost(request.pending, loss) else { return };
        if let Some((to, reply)) = self.instead(&pending) {
            return to.piece(reply, true);
        }
        let Some(mut pending) = self.lost_with(pending, loss) else { return };
        match &mut pending {
            Pending::Write(write) => self.unanswered_write(write, loss.sent),
            Pending::Said(said) => self.owe(said.keys.drain(..).map(|(key, _)| key).collect()),
            Pending::Login(asked) => return asked.lost(loss),
            _ => {}
        }
        let text = || errors::lost(&self.node.upstream.address, loss);
        if let Pending::Answers(answers) = &pending {
            self.process.metrics.upstream_lost.inc();
            return answers.lose(&text());
        }
        if let Some(to) = pending.give_up() {
            self.process.metrics.upstream_lost.inc();
            to.error(&text());
        }
    }

    fn attempt(&self) {
        self.process.metrics.link_attempts.inc();
        self.place.attempt(self.node.role.era());
    }

    fn up(&self, id: Option<i64>) {
        self.heard();
        self.place.reach(self.heard.get());
        self.upstream_id.set(id);
        if let Some(owner) = &*self.owner.borrow() {
            owner.client.is_on(self.node.id, id);
        }
        self.take_place();
        self.process.metrics.upstream_connects.inc();
        self.note_standing(true);
        self.tell(LinkEvent::Up);
    }

    fn down(&self, was_up: bool, carries_on: bool, loss: &Loss) {
        let is_shared = self.id != NO_LINK;
        self.disarm();
        if is_shared {
            self.process.cache.no_echoes_of(self.id, self.process.now());
            if carries_on {
                // The next connection may lead elsewhere, and that is asked behind them: they fill nothing.
                self.process.cache.let_go(self.id, |_| false);
            }
        }
        self.forget_connection();
        self.tell(LinkEvent::Changed);
        let metrics = &self.process.metrics;
        if was_up {
            metrics.upstream_disconnects.inc();
            self.note_standing(false);
            if is_shared {
                self.tell(LinkEvent::Lost);
            }
        }
        // A refusal is told to whoever asked for the identity.
        let refused = matches!(loss.cause, ConnectError::Refused(_));
        if is_shared
            && !refused
            && let Some(untold) = metrics.links_down_told.of(&loss.cause.to_string())
        {
            let upstream = &self.node.upstream.address;
            warn!(
                %upstream,
                link = self.id.0,
                untold,
                cause = %loss.cause,
                "link is down, and is tried again: see whether the upstream runs and can be reached"
            );
        }
        if let Some(owner) = &*self.owner.borrow() {
            owner.client.is_on(self.node.id, None);
            if !carries_on {
                owner.queue.lose_link();
            }
        }
    }

    fn is_of_the_link(&self, request: &InFlight) -> bool {
        request.pending.is_of_the_link()
    }

    fn carried(&self, request: &InFlight) {
        if let Pending::Ping = request.pending {
            self.pings.sent(request.since);
        }
    }

    fn has_room(&self, front: Option<&InFlight>, cx: &mut Context<'_>) -> bool {
        let room = self.room(front, cx);
        self.held_up.set(!room);
        room
    }

    fn reconnects(&self) -> bool {
        self.id != NO_LINK
    }

    fn may_wait(&self, _request: &InFlight) -> bool {
        self.patient.get()
    }

    fn may_log_in(&self) -> bool {
        self.takes_login()
    }

    fn logged_in(&self, refusal: Option<&[u8]>) {
        self.process.metrics.logged_in_again(refusal);
        self.settled();
    }

    fn settled(&self) {
        if let Some(owner) = &*self.owner.borrow() {
            // It may wait for all to be answered that is in flight.
            owner.queue.wake();
        }
    }
}

impl LinkHandler {
    /// A refusal came, or a piece of a reply to a session that may have to ask elsewhere: gives back what is still to be done
    /// with it, or what is still awaited.
    #[cold]
    fn take_in(&self, pending: Pending, chunk: &[u8], at: At) -> Result<Pending, Option<Pending>> {
        if !(at.first && at.kind == Kind::Error) {
            return self.sift(pending, chunk, at);
        }
        self.note_refusal(chunk);
        match self.redirected(pending, chunk, at) {
            Ok(more) => Err(more),
            Err(theirs) => self.sift(theirs, chunk, at),
        }
    }

    /// A piece of a reply came that tells of the session's state, or is changed before it is handed over.
    fn state_reply(&self, pending: Pending, since: Micros, chunk: Chunk<'_>, at: At) -> Option<Pending> {
        match pending {
            Pending::Changed(to, mut changed) => {
                changed.held.extend_from_slice(&chunk);
                if !at.last {
                    return Some(Pending::Changed(to, changed));
                }
                self.observe(since);
                self.change(&to, changed.held, at.kind, changed.change);
                None
            }
            Pending::Leave(to, mut leaves) => {
                leaves.reply(&chunk, at, &self.pushes, &to);
                self.relay(to, since, chunk, at).map(|to| Pending::Leave(to, leaves))
            }
            Pending::Subscribe(to, awaited) => {
                // An error, or `QUEUED` in a transaction: that is all that comes.
                if !matches!(at.kind, Kind::Push | Kind::Aggregate) {
                    return self.relay(to, since, chunk, at).map(|to| Pending::Subscribe(to, awaited));
                }
                if !at.last {
                    to.confirmation(chunk.into_bytes(), false);
                    return Some(Pending::Subscribe(to, awaited));
                }
                let left = self.pushes.confirmed(awaited, &chunk);
                to.confirmation(self.pushes.counted(chunk.into_bytes()), left.is_none());
                left.map(|left| Pending::Subscribe(to, left))
            }
            Pending::Multi(to, transaction) => {
                if at.first {
                    let refusal = (at.kind == Kind::Error).then(|| Bytes::copy_from_slice(&chunk));
                    transaction.borrow_mut().answer(refusal, &self.process);
                }
                self.relay(to, since, chunk, at).map(|to| Pending::Multi(to, transaction))
            }
            Pending::Monitor(to) => {
                if at.kind != Kind::Error {
                    self.pushes.be_raw();
                }
                self.relay(to, since, chunk, at).map(Pending::Monitor)
            }
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
            Pending::Script(script) => {
                // A user who may not is not asked to say it again.
                if at.kind == Kind::Error && !chunk.starts_with(b"-NOPERM") {
                    self.told.forget_one(&script);
                }
                (!at.last).then_some(Pending::Script(script))
            }
            Pending::Answers(answers) => (!answers.take(&chunk, at)).then_some(Pending::Answers(answers)),
            _ => None,
        }
    }

    /// A piece of a reply came that is not kept, but serves those who wait for the same.
    fn go_ahead(&self, bypass: &mut Bypass, chunk: &[u8], at: At) {
        let Some((ahead, reply)) = &mut bypass.ahead else { return };
        if at.kind == Kind::Error || reply.len() + chunk.len() > self.process.cache.max_value() {
            if at.kind == Kind::Error {
                bypass.traced.iter_mut().for_each(|traced| traced.failed(chunk));
            }
            bypass.ahead = None;
            return;
        }
        reply.extend_from_slice(chunk);
        if at.last {
            let namespace = bypass.keys.first().and_then(|key| self.process.namespaces.find(key));
            ahead.serve(reply, self.process.now(), self.process.max_staleness(namespace));
        }
    }

    /// A piece of an answer came to a question about the link itself.
    fn answered_itself(&self, pending: Pending, since: Micros, chunk: &[u8], at: At) -> Option<Pending> {
        if matches!(pending, Pending::Server(..) | Pending::Standing(_)) {
            self.read.borrow_mut().extend_from_slice(chunk);
        }
        if !matches!(pending, Pending::Standing(_)) {
            self.front.took(self.heard.get().saturating_sub(since));
        }
        match pending {
            Pending::Ping => {
                self.proven(since);
                self.answered();
            }
            Pending::Arm(feed) => self.armed(feed, since, chunk, at.kind),
            pending if !at.last => return Some(pending),
            Pending::Server(feed, server) => self.leads(feed, server, &self.read.take(), at.kind),
            Pending::Standing(link) => {
                let standing = Standing::of(at.kind, &self.read.take());
                if let (Some(standing), Some(upcalls)) = (standing, self.upcalls()) {
                    upcalls.link(link, LinkEvent::Stands(standing));
                }
            }
            _ => {}
        }
        None
    }

    /// A reply came to what was read at `since` into the cache; it was the last, or not.
    fn read_done(&self, since: Micros, last: bool) {
        if last {
            self.proven(since);
            self.observe(since);
        }
    }

    /// What the cache may serve, by `stale-if-error`, for a read that was lost with its link.
    fn instead<'e>(&self, pending: &'e Pending) -> Option<(&'e ReplySlot, Bytes)> {
        if !self.process.settings.stale_if_error.get() {
            return None;
        }
        let (to, name) = match pending {
            Pending::Bypass(to, past) => (to, past.instead.as_ref()?.borrow()),
            Pending::Fill(fill) => (fill.to()?, fill.name()?),
            _ => return None,
        };
        // Part of the upstream's reply may have been passed on.
        let untouched = !to.queue.has_begun(to.slot);
        let reply = self.process.cache.stale(&name, self.process.now()).filter(|_| untouched)?;
        Some((to, reply))
    }

    /// Whether whoever reads what is at the front can take more.
    fn room(&self, front: Option<&InFlight>, cx: &mut Context<'_>) -> bool {
        if let Some(owner) = &*self.owner.borrow() {
            return owner.queue.has_room(cx);
        }
        let to = match front.map(|request| &request.pending) {
            Some(Pending::Relay(to) | Pending::Bypass(to, _)) => Some(to),
            Some(Pending::Fill(fill)) => fill.to(),
            Some(Pending::MgetAssembly(assembly)) => assembly.to(),
            Some(Pending::Write(write)) => write.to.as_ref(),
            _ => None,
        };
        to.is_none_or(|to| to.queue.has_shared_room(cx))
    }
}
