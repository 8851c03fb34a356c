//! What the feed asks before it can be trusted, and what becomes of each answer.
//!
//! Invariants:
//! - "Not now" (`-BUSY`, `-LOADING` …) is no answer. What was put off so is asked again, after a delay that grows, and the
//!   feed is not armed before it is answered.
//! - A refusal is the upstream's word for now: the feed does without, says once what that means, and asks again from time to
//!   time and when users were changed. What is allowed later is used from then on, on the same connection.
//! - The look at what nothing else reports (see [`stats`](super::stats)) goes in front of each `PING`. One that was put off
//!   leaves the `PING` behind it without proof; the next compares with the last that was answered.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::commands::commands;
use super::heart::ping;
use super::stats::{Calls, Changes};
use super::{Awaited, FeedClient, Hooks, MAX_DEPTH, REFUSED};
use crate::cache::{Reason, Waiter};
use crate::namespace::Event;
use crate::resp::decode::decode;
use crate::resp::scanner::Kind;
use crate::resp::{Protocol, encode};
use crate::upstream::{Link, Said, ServerId, backoff, server_id};

/// How long to wait before asking again what was put off.
const PUT_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Under what number tracking can redirect here.
    ClientId,
    /// To report changes by prefix.
    Broadcast,
    /// Which server this is.
    Server,
    /// How often each command was called; behind the first one, [`ping`] asks for it.
    Calls,
    Commands,
    Subscribe,
}

impl Question {
    /// As a person would say it.
    fn name(self) -> &'static str {
        match self {
            Question::ClientId => "CLIENT ID",
            Question::Broadcast => "CLIENT TRACKING",
            Question::Server | Question::Calls => "INFO",
            Question::Commands => "COMMAND",
            Question::Subscribe => "SUBSCRIBE",
        }
    }

    /// What it means that it is refused.
    fn without(self) -> &'static str {
        match self {
            Question::ClientId => {
                "links cannot be tracked: only keys in namespaces are cached, by their channels"
            }
            Question::Broadcast => "only keys in namespaces are cached, by their channels",
            Question::Server | Question::Calls => {
                "SWAPDB, and a link to another server than the feed's, are not noticed; \
                 replies to other users are not cached"
            }
            Question::Commands => "the built-in table of commands is used",
            Question::Subscribe => "nothing is cached",
        }
    }
}

/// What of the upstream's refusals was told, over all connections of the feed.
#[derive(Debug, Default)]
pub struct Told {
    no_resp3: Cell<bool>,
    refused: RefCell<Vec<&'static str>>,
}

impl Told {
    pub(super) fn resp3(&self) {
        self.no_resp3.set(false);
    }

    pub(super) fn no_resp3(&self) {
        if !self.no_resp3.replace(true) {
            warn!(
                "the upstream speaks RESP2 only (HELLO): no CLIENT TRACKING, only keys in namespaces are cached"
            );
        }
    }
}

/// What is still to be answered on one connection.
#[derive(Debug, Default)]
pub(super) struct Questions {
    put_off: RefCell<Vec<Question>>,
    refused: RefCell<Vec<Question>>,
    /// When they are asked again: what was put off until the feed is armed, then what was refused.
    due: Cell<Option<Instant>>,
    /// How often in a row they were.
    turns: Cell<u32>,
    /// Told when `due` was set.
    set: Notify,
    subscribed: Cell<bool>,
    /// What was called how often when that was last answered.
    calls: Cell<Option<Calls>>,
    /// It may not look.
    blind: Cell<bool>,
    /// The last look was put off.
    blinded: Cell<bool>,
}

impl Questions {
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.get()
    }

    /// Ends when they are due at another time.
    pub(super) async fn changed(&self) {
        self.set.notified().await;
    }

    pub(super) fn looks(&self) -> bool {
        !self.blind.get()
    }

    /// Whether the last look was put off.
    pub(super) fn is_blinded(&self) -> bool {
        self.blinded.get()
    }

    fn ask_after(&self, delay: Duration) {
        self.due.set(Some(Instant::now() + delay));
        self.set.notify_one();
    }

    fn next(&self, between: (Duration, Duration)) {
        let turns = self.turns.get();
        self.turns.set(turns.saturating_add(1));
        self.ask_after(backoff(between, turns));
    }

    /// Another round, since this one proved nothing.
    pub(super) fn ask_soon(&self) {
        self.next(PUT_OFF);
    }

    /// The feed is armed; from now on what was refused is asked again, if the protocol lets a subscriber ask.
    pub(super) fn armed(&self, protocol: Protocol) {
        self.turns.set(0);
        if protocol == Protocol::Resp3 {
            self.ask_refused_later();
        }
    }

    fn ask_refused_later(&self) {
        if self.due.get().is_none() && !self.refused.borrow().is_empty() {
            self.next(REFUSED);
        }
    }

    /// Rights have changed.
    fn ask_refused_now(&self) {
        if !self.refused.borrow().is_empty() {
            self.turns.set(0);
            self.ask_after(Duration::ZERO);
        }
    }

    /// What is due now.
    fn take(&self, armed: bool) -> Vec<Question> {
        self.due.set(None);
        match armed {
            true => self.refused.take(),
            false => self.put_off.take(),
        }
    }
}

/// Sends these questions and, if the answer to what stands behind them may arm the feed, a `PING`.
pub(super) fn ask<W: Waiter, H: Hooks>(link: &Link<FeedClient<W, H>>, questions: &[Question], arms: bool) {
    let feed = &link.client().feed;
    let send = |command: &[&[u8]], expect| {
        let _ = link.send(|out| out.with(|tail| encode::command(tail, command)), expect);
    };
    for &question in questions {
        match question {
            Question::ClientId => send(&[b"CLIENT", b"ID"], Awaited::Asked(question)),
            Question::Server => drop(link.send(|out| out.copy(server_id::ASK), Awaited::Asked(question))),
            Question::Calls => send(&[b"INFO", b"commandstats"], Awaited::Calls),
            Question::Commands => send(&[b"COMMAND"], Awaited::Asked(question)),
            Question::Broadcast => {
                let prefixes = feed.broadcast.iter().filter(|prefix| !prefix.is_empty());
                let options = prefixes.flat_map(|prefix| [&b"PREFIX"[..], prefix]);
                let on: [&[u8]; 4] = [b"CLIENT", b"TRACKING", b"ON", b"BCAST"];
                send(&on.into_iter().chain(options).collect::<Vec<_>>(), Awaited::Asked(question));
            }
            Question::Subscribe => {
                let namespaces = feed.hooks.namespaces().iter();
                let channels = namespaces.flat_map(|n| [n.channel(Event::Update), n.channel(Event::Delete)]);
                let command: Vec<&[u8]> = [&b"SUBSCRIBE"[..]].into_iter().chain(channels).collect();
                send(&command, Awaited::Subscribed(command.len() - 1));
            }
        }
    }
    if arms {
        ping(link, true);
    }
}

/// Asks what is due.
pub(super) fn ask_again<W: Waiter, H: Hooks>(link: &Link<FeedClient<W, H>>) {
    let client = link.client();
    let armed = client.armed.get();
    ask(link, &client.questions.take(armed), !armed);
}

impl<W: Waiter, H: Hooks> FeedClient<W, H> {
    /// What is asked first. A RESP2 connection that is subscribed may say nothing but `PING`, so it subscribes last.
    pub(super) fn at_first(&self) -> Vec<Question> {
        let feed = &self.feed;
        feed.hooks.metrics().feed_connects.inc();
        let mut first = Vec::new();
        if self.protocol == Protocol::Resp3 && feed.tracking {
            first.push(Question::ClientId);
        }
        if self.protocol == Protocol::Resp3 && !feed.broadcast.is_empty() {
            first.push(Question::Broadcast);
        } else {
            feed.hooks.broadcasts(false);
        }
        first.extend([Question::Server, Question::Commands]);
        if self.protocol == Protocol::Resp2 {
            // A subscriber may not ask.
            feed.hooks.watches_users(false);
            self.questions.blind.set(true);
        } else if self.wants_channels() {
            first.push(Question::Subscribe);
        }
        first
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
        self.allowed(question);
        match question {
            Question::ClientId => self.client_id.set(decode(frame, 0).ok().and_then(|id| id.as_int())),
            Question::Server => self.server.set(ServerId::of(frame)),
            Question::Broadcast => hooks.broadcasts(true),
            Question::Commands => match decode(frame, MAX_DEPTH) {
                Ok(reply) => hooks.commands(&commands(&reply)),
                Err(wrong) => debug!(%wrong, "the reply to COMMAND was not understood"),
            },
            Question::Subscribe => self.questions.subscribed.set(true),
            Question::Calls => {}
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
        self.allowed(Question::Calls);
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

    fn void(&self, reason: Reason) {
        self.feed.hooks.metrics().heard_flushes.inc();
        self.feed.cache.flush(reason);
    }

    fn put_off(&self, question: Question, frame: &[u8]) {
        self.tell_put_off(question.name(), frame);
        let questions = &self.questions;
        match self.armed.get() {
            true if question == Question::Calls && !questions.blind.get() => {}
            true => {
                questions.refused.borrow_mut().push(question);
                questions.ask_refused_later();
            }
            // It goes with the next `PING` anyhow.
            false if question == Question::Calls => {}
            false => questions.put_off.borrow_mut().push(question),
        }
    }

    /// What was asked was answered by "not now".
    pub(super) fn tell_put_off(&self, question: &str, frame: &[u8]) {
        let metrics = self.feed.hooks.metrics();
        metrics.put_off.inc();
        if let Some(untold) = metrics.put_off_told.now() {
            let reply = String::from_utf8_lossy(frame);
            warn!(
                question,
                reply = reply.trim_end(),
                untold,
                "the upstream does not answer now: it is asked again, and nothing is served from the cache without proof"
            );
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
        let mut told = self.feed.told.refused.borrow_mut();
        if !told.contains(&question.name()) {
            told.push(question.name());
            let (name, without) = (question.name(), question.without());
            warn!(reply = reply.trim_end(), "the upstream does not allow {name}: {without}");
        }
        drop(told);
        match question {
            Question::Broadcast => hooks.broadcasts(false),
            Question::Commands => hooks.commands(&[]),
            Question::Subscribe => {
                self.turned_away.set(true);
                self.ended.notify_one();
            }
            Question::ClientId | Question::Server | Question::Calls => {}
        }
        self.questions.refused.borrow_mut().push(question);
        if self.armed.get() {
            self.questions.ask_refused_later();
        }
    }

    fn allowed(&self, question: Question) {
        let mut told = self.feed.told.refused.borrow_mut();
        if let Some(i) = told.iter().position(|name| *name == question.name()) {
            told.swap_remove(i);
            info!("the upstream allows {} now", question.name());
        }
    }
}
