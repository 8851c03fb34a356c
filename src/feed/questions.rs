//! What the feed asks before it can be trusted, and what of that is still to be answered.
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
use tracing::{info, warn};

use super::stats::Calls;
use crate::process::Reports;
use crate::resp::Protocol;
use crate::upstream::{Said, backoff};

/// How long to wait before asking again what was put off.
const PUT_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// How long to wait before asking again for what was refused, by how often it was. Redis counts refusals that are less
/// than a minute apart as one in its `ACL LOG`.
pub(super) const REFUSED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(45));

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Under what number tracking can redirect here.
    ClientId,
    /// To tell the feed of changes in this way.
    Tracking(Reports),
    /// Which server this is.
    Server,
    /// How often each command was called; behind the first one, [`ping`](super::ask::ping) asks for it.
    Calls,
    /// Which hash slots are the node's own; like that, of a node of a cluster.
    Slots,
    Commands,
    Subscribe,
}

impl Question {
    /// As a person would say it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Question::ClientId => "CLIENT ID",
            Question::Tracking(Reports::Prefixes | Reports::All) => "CLIENT TRACKING with BCAST",
            Question::Tracking(Reports::Registered | Reports::Nothing) => "CLIENT TRACKING",
            Question::Server | Question::Calls => "INFO",
            Question::Slots => "CLUSTER NODES and CLUSTER INFO",
            Question::Commands => "COMMAND",
            Question::Subscribe => "SUBSCRIBE",
        }
    }

    /// What it means that it is refused.
    fn without(self) -> &'static str {
        match self {
            Question::ClientId => "links cannot be tracked (redirect)",
            Question::Tracking(_) => {
                "where links are not tracked either, only keys in namespaces are cached, by their channels"
            }
            Question::Server | Question::Calls => {
                "SWAPDB, and a link to another server than the feed's, are not noticed; \
                 replies to other users are not cached"
            }
            Question::Slots => "nothing of what is read from this node of the cluster is cached",
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
                "the upstream speaks RESP2 only: no CLIENT TRACKING, only keys in namespaces are cached; let nearside's user say HELLO \
                 (+hello), or use Redis 6 or later"
            );
        }
    }

    pub(super) fn refused(&self, question: Question, reply: &str) {
        let name = question.name();
        let mut refused = self.refused.borrow_mut();
        if !refused.contains(&name) {
            refused.push(name);
            warn!(
                reply,
                "the upstream does not allow {name}: {}; nearside check --connect says what would allow it",
                question.without()
            );
        }
    }

    pub(super) fn allowed(&self, question: Question) {
        let mut refused = self.refused.borrow_mut();
        if let Some(i) = refused.iter().position(|name| *name == question.name()) {
            refused.swap_remove(i);
            info!("the upstream allows {} now", question.name());
        }
    }
}

/// What the node has said of its hash slots, on one connection.
#[derive(Debug)]
pub(super) struct Ownership {
    /// It was answered, or refused, and the last time it was not put off.
    is_known: Cell<bool>,
    is_refused: Cell<bool>,
    /// What became of the first of both questions, and whether the node's cluster takes requests.
    pub(super) state: Cell<(Said, bool)>,
}

impl Default for Ownership {
    fn default() -> Self {
        let state = Cell::new((Said::NotNow, false));
        Self { is_known: Cell::default(), is_refused: Cell::default(), state }
    }
}

impl Ownership {
    pub(super) fn is_known(&self) -> bool {
        self.is_known.get()
    }

    /// With the next `PING`; not while it is refused.
    pub(super) fn may_ask(&self) -> bool {
        !self.is_refused.get()
    }

    pub(super) fn is(&self, said: Said) {
        self.is_known.set(said != Said::NotNow);
        if said != Said::NotNow {
            self.is_refused.set(said == Said::Refused);
        }
    }

    /// Nothing will be known on this connection.
    pub(super) fn give_up(&self) {
        self.is(Said::Refused);
    }
}

/// What is still to be answered on one connection.
#[derive(Debug, Default)]
pub(super) struct Questions {
    pub(super) put_off: RefCell<Vec<Question>>,
    pub(super) refused: RefCell<Vec<Question>>,
    /// When they are asked again: what was put off until the feed is armed, then what was refused.
    due: Cell<Option<Instant>>,
    /// How often in a row they were.
    turns: Cell<u32>,
    /// Told when `due` was set.
    set: Notify,
    pub(super) subscribed: Cell<bool>,
    /// What was called how often when that was last answered.
    pub(super) calls: Cell<Option<Calls>>,
    /// It may not look.
    pub(super) blind: Cell<bool>,
    /// The last look was put off.
    pub(super) blinded: Cell<bool>,
    pub(super) ownership: Ownership,
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

    pub(super) fn ask_after(&self, delay: Duration) {
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

    pub(super) fn ask_refused_later(&self) {
        if self.due.get().is_none() && !self.refused.borrow().is_empty() {
            self.next(REFUSED);
        }
    }

    /// Rights have changed.
    pub(super) fn ask_refused_now(&self) {
        if !self.refused.borrow().is_empty() {
            self.turns.set(0);
            self.ask_after(Duration::ZERO);
        }
    }

    /// What is due now.
    pub(super) fn take(&self, armed: bool) -> Vec<Question> {
        self.due.set(None);
        match armed {
            true => self.refused.take(),
            false => self.put_off.take(),
        }
    }
}
