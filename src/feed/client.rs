//! The feed's connection: what is known of it, and what it awaits.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use bytes::BytesMut;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use super::hooks::{Feed, Hooks};
use super::questions::{Question, Questions};
use crate::cache::{Micros, Waiter, Wanted};
use crate::process::Registration;
use crate::resp::Protocol;
use crate::upstream::{LIVED, Pings, ServerId};

/// How deep the replies are that the feed reads itself; `COMMAND` is the deepest.
pub(super) const MAX_DEPTH: usize = 16;

pub(super) enum Awaited {
    /// The answer to a question.
    Asked(Question),
    /// How often each command was called.
    Calls,
    /// Whether the node's cluster takes requests, and then which hash slots it says are its own.
    ClusterState,
    ClusterNodes,
    /// That these keys are registered.
    Registered(Vec<Registration>),
    /// Confirmations to come.
    Subscribed(usize),
    Pong {
        sent: Micros,
        /// It is the first behind what is asked before the feed can be trusted.
        arms: bool,
        /// It stands behind a look at what nothing else reports.
        looks: bool,
    },
}

pub(super) struct FeedClient<W: Waiter, H: Hooks> {
    pub(super) feed: Rc<Feed<W, H>>,
    pub(super) protocol: Protocol,
    pub(super) client_id: Cell<Option<i64>>,
    pub(super) server: Cell<Option<ServerId>>,
    pub(super) pings: Pings,
    /// When the last answered `PING` was sent.
    pub(super) previous: Cell<Micros>,
    /// When it was last looked at what nothing else reports.
    pub(super) looked: Cell<Micros>,
    /// Told when a `PING` was answered and a barrier asks for another.
    pub(super) unheard: Notify,
    /// What is still to be answered.
    pub(super) questions: Questions,
    /// When the connection was made.
    pub(super) since: Cell<Instant>,
    /// Told when the connection is of no more use.
    pub(super) ended: Notify,
    /// The present frame, while it comes in pieces.
    pub(super) held: RefCell<BytesMut>,
    /// All was answered, and its subscriptions were all confirmed. If its coverage has ended all the same, a data link
    /// has found that the upstream does not know it.
    pub(super) armed: Cell<bool>,
    /// A subscription was refused: whatever it answers else, it is no feed.
    pub(super) turned_away: Cell<bool>,
    /// Questions for keys to be registered that are under way.
    pub(super) registering: Cell<u32>,
    /// Keys that are to be registered one by one, for of all of them together it was refused.
    pub(super) alone: RefCell<Vec<Registration>>,
    /// What tracking has dropped though it was in use. The announcement that asks for a refresh follows
    /// behind, when there is nothing in the cache any more that would tell.
    pub(super) awaited: RefCell<HashMap<Vec<u8>, Vec<Wanted>>>,
}

impl<W: Waiter, H: Hooks> FeedClient<W, H> {
    pub(super) fn new(feed: Rc<Feed<W, H>>, protocol: Protocol) -> Self {
        Self {
            feed,
            protocol,
            client_id: Cell::default(),
            server: Cell::default(),
            pings: Pings::default(),
            previous: Cell::default(),
            looked: Cell::default(),
            unheard: Notify::new(),
            questions: Questions::default(),
            since: Cell::new(Instant::now()),
            ended: Notify::new(),
            held: RefCell::default(),
            armed: Cell::default(),
            turned_away: Cell::default(),
            registering: Cell::default(),
            alone: RefCell::default(),
            awaited: RefCell::default(),
        }
    }

    /// The connection is of no more use. If it had lived for a while, that is news.
    pub(super) fn leave(&self, what: &str, cause: &str) {
        let metrics = self.feed.hooks.metrics();
        if self.since.get().elapsed() >= LIVED {
            metrics.feed_down_told.over();
            metrics.feed_up_told.over();
        }
        self.feed.tell_down(what, cause);
    }

    pub(super) fn tell_up(&self) {
        if let Some(coverage) = self.feed.cache.coverages().current(self.feed.hooks.slot()) {
            self.feed.hooks.up(coverage, self.client_id.get(), self.server.get());
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
                "the upstream does not answer now: it is asked again, and nothing is served from the cache without proof; see \
                 what keeps it busy"
            );
        }
    }
}
