//! What becomes of each answer to the feed's questions.

use std::time::Duration;

use memchr::memmem;
use tracing::{debug, info};

use super::client::{FeedClient, MAX_DEPTH};
use super::commands::commands;
use super::hooks::Hooks;
use super::questions::Question;
use super::stats::{Calls, Changes};
use crate::cache::{Reason, Waiter};
use crate::process::Reports;
use crate::resp::Protocol;
use crate::resp::decode::decode;
use crate::resp::scanner::Kind;
use crate::upstream::{Said, ServerId};

/// For how long it is believed that no key can be registered.
const UNREGISTRABLE: Duration = Duration::from_secs(60);

impl<W: Waiter, H: Hooks> FeedClient<W, H> {
    /// What is asked first. A RESP2 connection that is subscribed may say nothing but `PING`, so it subscribes last.
    pub(super) fn at_first(&self) -> Vec<Question> {
        let feed = &self.feed;
        feed.hooks.metrics().feed_connects.inc();
        let mut first = Vec::new();
        feed.hooks.report(Reports::Nothing);
        if self.protocol == Protocol::Resp3 && feed.redirects {
            first.push(Question::ClientId);
        }
        if self.protocol == Protocol::Resp3 {
            if !feed.hooks.is_redirect_refused() {
                feed.registering_first.set(false);
            }
            let way = self.ways().first().copied();
            first.extend(way.filter(|way| self.may_ask(*way)).map(Question::Tracking));
        }
        first.extend([Question::Server, Question::Commands]);
        if self.protocol == Protocol::Resp2 {
            // A subscriber may not ask.
            feed.hooks.watches_users(false);
            self.questions.blind.set(true);
            self.questions.ownership.give_up();
            feed.hooks.slots_said(None);
        } else if self.wants_channels() {
            first.push(Question::Subscribe);
        }
        first
    }

    /// To be told of every key's changes is dear: not where links are tracked.
    fn may_ask(&self, way: Reports) -> bool {
        way != Reports::All || self.feed.hooks.is_redirect_refused()
    }

    /// The ways in the order in which they are asked for.
    fn ways(&self) -> Vec<Reports> {
        let (mut ways, first) = (self.feed.ways.clone(), Reports::Registered);
        if self.feed.unregistrable.get().is_some_and(|since| since.elapsed() < UNREGISTRABLE) {
            ways.retain(|way| *way != first);
        }
        match self.feed.registering_first.get() && ways.contains(&first) {
            true => std::iter::once(first).chain(ways.iter().copied().filter(|way| *way != first)).collect(),
            false => ways,
        }
    }

    /// The way behind one that was refused, if that may be asked for.
    fn way_behind(&self, refused: Reports) -> Option<Reports> {
        let behind = self.ways().into_iter().skip_while(|way| *way != refused).nth(1);
        behind.filter(|way| self.may_ask(*way))
    }

    /// Whether the feed is told of prefixes while links, which are to be tracked, are not: one connection cannot be told of
    /// prefixes and of registered keys, and the latter are enough for both. Tried once for each time that links are refused.
    pub(super) fn had_better_register(&self) -> bool {
        let feed = &self.feed;
        feed.hooks.reports() == Reports::Prefixes
            && feed.redirects
            && feed.ways.contains(&Reports::Registered)
            && feed.hooks.is_redirect_refused()
            && !feed.registering_first.replace(true)
    }

    fn wants_channels(&self) -> bool {
        !self.questions.subscribed.get() && self.feed.hooks.namespaces().iter().next().is_some()
    }

    /// Whether something is still to be answered before the feed can be armed; if so it is asked soon.
    pub(super) fn ask_the_rest(&self) -> bool {
        let questions = &self.questions;
        if !questions.put_off.borrow().is_empty() {
            questions.ask_soon();
            return true;
        }
        if self.wants_channels() {
            questions.put_off.borrow_mut().push(Question::Subscribe);
            questions.ask_after(Duration::ZERO);
            return true;
        }
        false
    }

    pub(super) fn answered(&self, question: Question, frame: &[u8], kind: Kind) {
        match Said::of(kind, frame) {
            Said::NotNow => self.put_off(question, frame),
            Said::Refused => self.refuse(question, frame),
            Said::Answer => self.take_in(question, frame),
        }
    }

    fn take_in(&self, question: Question, frame: &[u8]) {
        let hooks = &self.feed.hooks;
        self.feed.told.allowed(question);
        match question {
            Question::ClientId => self.client_id.set(decode(frame, 0).ok().and_then(|id| id.as_int())),
            Question::Server => {
                self.server.set(ServerId::of(frame));
                hooks.server_said(frame);
            }
            Question::Tracking(way) => hooks.report(way),
            Question::Commands => match decode(frame, MAX_DEPTH) {
                Ok(reply) => hooks.commands(&commands(&reply)),
                Err(wrong) => debug!(%wrong, "the reply to COMMAND was not understood"),
            },
            Question::Subscribe => self.questions.subscribed.set(true),
            Question::Calls | Question::Slots => {}
        }
        if self.armed.get() && matches!(question, Question::ClientId | Question::Server) {
            self.tell_up();
        }
    }

    /// A reply to `INFO commandstats`.
    pub(super) fn looked(&self, frame: &[u8], kind: Kind) {
        let (questions, hooks) = (&self.questions, &self.feed.hooks);
        match Said::of(kind, frame) {
            Said::NotNow => {
                questions.blinded.set(true);
                return self.put_off(Question::Calls, frame);
            }
            Said::Refused => {
                questions.blinded.set(false);
                questions.blind.set(true);
                hooks.watches_users(false);
                return self.refuse(Question::Calls, frame);
            }
            Said::Answer => questions.blinded.set(false),
        }
        self.feed.told.allowed(Question::Calls);
        hooks.watches_users(true);
        let (was_blind, calls) = (questions.blind.replace(false), Calls::of(frame));
        let before = questions.calls.replace(Some(calls));
        let Changes { swapped, users, role } = before.map(|before| calls.since(&before)).unwrap_or_default();
        if was_blind && before.is_none() && self.armed.get() {
            info!(
                "what was done upstream while INFO was not allowed is not known: everything cached is void"
            );
            self.void(Reason::Tracking);
        }
        if swapped {
            info!("databases were swapped: everything cached is void");
            self.void(Reason::Tracking);
        }
        if users {
            info!("users or their rules were changed upstream: everything cached is void");
            self.void(Reason::Users);
            questions.ask_refused_now();
            hooks.rights_changed();
        }
        if role {
            hooks.role_changed();
        }
    }

    /// A reply to `CLUSTER INFO`; what it means is decided together with what stands behind it.
    pub(super) fn cluster_state(&self, frame: &[u8], kind: Kind) {
        let said = Said::of(kind, frame);
        self.questions.ownership.state.set((said, memmem::find(frame, b"cluster_state:ok").is_some()));
        match said {
            Said::Answer => {}
            Said::NotNow => self.put_off(Question::Slots, frame),
            Said::Refused => self.refuse(Question::Slots, frame),
        }
    }

    /// A reply to `CLUSTER NODES`, which stands behind that. The order matters: what is lost is the node's no more and is being
    /// voided when this is over, and then the `PING` behind it is answered, which proves the rest.
    pub(super) fn cluster_nodes(&self, frame: &[u8], kind: Kind) {
        let (ownership, hooks) = (&self.questions.ownership, &self.feed.hooks);
        let ((first, is_ok), second) = (ownership.state.get(), Said::of(kind, frame));
        match (first, second) {
            (Said::Answer, Said::NotNow) => self.put_off(Question::Slots, frame),
            (Said::Answer | Said::NotNow, Said::Refused) => self.refuse(Question::Slots, frame),
            _ => {}
        }
        let said = match (first, second) {
            (Said::Refused, _) | (_, Said::Refused) => Said::Refused,
            (Said::NotNow, _) | (_, Said::NotNow) => Said::NotNow,
            (Said::Answer, Said::Answer) => Said::Answer,
        };
        ownership.is(said);
        match said {
            Said::NotNow => {}
            Said::Refused => hooks.slots_said(None),
            Said::Answer => {
                self.feed.told.allowed(Question::Slots);
                hooks.slots_said(Some((is_ok, frame)));
            }
        }
    }

    fn void(&self, reason: Reason) {
        self.feed.hooks.metrics().heard_flushes.inc();
        self.feed.cache.flush_of(self.feed.hooks.slot(), reason);
    }

    /// The upstream does not tell in this way. The first is asked for again later, with what else was refused.
    fn ask_another_way(&self, refused: Reports) {
        let questions = &self.questions;
        match (self.way_behind(refused), self.armed.get()) {
            (Some(next), false) => questions.put_off.borrow_mut().push(Question::Tracking(next)),
            (Some(next), true) => {
                questions.refused.borrow_mut().push(Question::Tracking(next));
                questions.ask_after(Duration::ZERO);
            }
            (None, armed) => {
                let first = self.ways().first().copied().unwrap_or(refused);
                questions.refused.borrow_mut().push(Question::Tracking(first));
                if armed {
                    questions.ask_refused_later();
                }
            }
        }
    }

    fn put_off(&self, question: Question, frame: &[u8]) {
        self.tell_put_off(question.name(), frame);
        let questions = &self.questions;
        match self.armed.get() {
            true if question == Question::Calls && !questions.blind.get() => {}
            true if question == Question::Slots && questions.ownership.may_ask() => {}
            true => {
                questions.refused.borrow_mut().push(question);
                questions.ask_refused_later();
            }
            // It goes with the next `PING` anyhow.
            false if matches!(question, Question::Calls | Question::Slots) => {}
            false => questions.put_off.borrow_mut().push(question),
        }
    }

    fn refuse(&self, question: Question, frame: &[u8]) {
        let (hooks, reply) = (&self.feed.hooks, String::from_utf8_lossy(frame));
        if !self.armed.get() {
            match question {
                Question::Server => hooks.metrics().server_unchecked.inc(),
                Question::Calls => hooks.metrics().swaps_unchecked.inc(),
                _ => {}
            }
        }
        self.feed.told.refused(question, reply.trim_end());
        match question {
            Question::Tracking(way) => return self.ask_another_way(way),
            Question::Server => hooks.server_said(frame),
            Question::Commands => hooks.commands(&[]),
            Question::Subscribe => {
                self.turned_away.set(true);
                self.ended.notify_one();
            }
            Question::ClientId | Question::Calls | Question::Slots => {}
        }
        self.questions.refused.borrow_mut().push(question);
        if self.armed.get() {
            self.questions.ask_refused_later();
        }
    }
}
