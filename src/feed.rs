//! The feed: one connection on which the upstream tells what changed.
//!
//! It subscribes to the namespaces' channels, and the data links' `CLIENT TRACKING` redirects to it. Both
//! lead to one function, `Cache::heard`.
//!
//! Invariants:
//! - **The gap rule.** The coverage is armed only when every subscription is confirmed and a `PING` sent
//!   after them is answered, and it ends with the connection. Whatever was filled before is void then, and
//!   nothing is leased or served under it in between.
//! - **The watermark** is the time at which the newest answered `PING` was sent. Replies and messages come in
//!   the order in which the upstream sent them, so everything that it had sent before is applied.
//! - Each `PING` goes behind a look at what nothing else reports, changes of users among it (see [`stats`]): the proof
//!   that it brings covers that too.
//! - A connection that goes dead is given up within the bound: see [`heart`]. A half-open one is not waited for.
//!
//! `server` runs it and connects it to the workers through [`Hooks`].

mod commands;
mod heard;
mod heart;
mod questions;
mod stats;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use heart::heartbeat;
pub use questions::Told;
use questions::{Question, Questions, ask};

use crate::cache::{Cache, CoverageId, CoverageSlot, Micros, Waiter, Wanted};
use crate::command::ServerCommand;
use crate::metrics::Metrics;
use crate::namespace::Namespaces;
use crate::resp::Protocol;
use crate::resp::pubsub::{is_confirmation, is_message, message_word};
use crate::resp::scanner::Kind;
use crate::upstream::{
    At, Backoff, Chunk, ConnectError, Identity, LIVED, Link, Login, Loss, Pings, ReplyHandler, Said,
    ServerId, Settings, backoff, can_connect,
};

/// How the feed reaches the rest of the process.
pub trait Hooks: 'static {
    fn namespaces(&self) -> &Namespaces;

    fn metrics(&self) -> &Metrics;

    /// The feed's coverage.
    fn slot(&self) -> &CoverageSlot;

    /// What the coverages count time in.
    fn now(&self) -> Micros;

    /// The feed is subscribed, on `server`; `client_id` is the connection to which tracking can redirect. Said again
    /// if one of them is learnt later.
    fn up(&self, coverage: CoverageId, client_id: Option<i64>, server: Option<ServerId>);

    /// The feed's coverage has ended.
    fn down(&self);

    /// Whether the upstream tells of all changes of the keys that are tracked by prefix.
    fn broadcasts(&self, granted: bool);

    /// Users or their rules were changed: what was refused may be allowed now.
    fn rights_changed(&self);

    /// Whether changes of users and their rules are seen.
    fn watches_users(&self, sees: bool);

    /// The server was told whom to replicate, or to fail over: it may be no primary any more.
    fn role_changed(&self);

    /// Told when the upstream is left because another server has taken its place.
    fn left(&self) -> watch::Receiver<u64>;

    /// The upstream's own account of its commands.
    fn commands(&self, commands: &[ServerCommand]);

    /// These replies were in use, and an update of their key was announced.
    fn refresh(&self, key: &[u8], wanted: Vec<Wanted>);

    /// Whether reads come in, so that freshness has to be proven.
    fn is_active(&self, now: Micros) -> bool;
}

/// What the feed works on.
pub struct Feed<W: Waiter, H: Hooks> {
    pub cache: Arc<Cache<W>>,
    pub hooks: H,
    pub login: Option<Login>,
    pub settings: Settings,
    /// Within what time it must be known that the connection is dead.
    pub bound: Duration,
    /// Whether data links are to redirect their tracking here.
    pub tracking: bool,
    /// Prefixes of keys of whose changes the upstream is to tell in any case; the empty one is every key's.
    pub broadcast: Vec<Vec<u8>>,
    /// What of the upstream's refusals was told.
    pub told: Told,
}

/// How deep the replies are that the feed reads itself; `COMMAND` is the deepest.
const MAX_DEPTH: usize = 16;

/// How long to wait before looking again whether the upstream can be reached.
const RETRY: Duration = Duration::from_millis(20);

/// How long to wait before asking again for what was refused, by how often it was. Redis counts refusals that are less
/// than a minute apart as one in its `ACL LOG`.
const REFUSED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(45));

impl<W: Waiter, H: Hooks> Feed<W, H> {
    /// Keeps the feed up until the task is dropped. Runs in a `LocalRuntime`.
    pub async fn run(self) {
        let feed = Rc::new(self);
        let mut protocol = Protocol::Resp3;
        let (mut paced, mut refusals) = (Backoff::default(), 0);
        loop {
            let Some(link) = feed.connected(protocol).await else {
                if protocol == Protocol::Resp2 {
                    tokio::time::sleep(paced.failed()).await;
                }
                // Each time anew: the server may be another by then.
                protocol = if protocol == Protocol::Resp3 { Protocol::Resp2 } else { Protocol::Resp3 };
                continue;
            };
            let client = link.client();
            ask(&link, &client.at_first(), true);
            tokio::select! {
                () = client.ended.notified() => {}
                () = heartbeat(&feed, &link) => {}
                () = feed.speaks_resp3(), if protocol == Protocol::Resp2 => {
                    info!("the upstream speaks RESP3 now: the feed connects anew");
                }
            }
            // The link may have told of its loss, and ended the coverage, already.
            let (was_armed, was_refused) = (client.armed.get(), client.turned_away.get());
            let lived = link.lived();
            drop(link);
            feed.lapse();
            if was_refused && !was_armed {
                tokio::time::sleep(backoff(REFUSED, refusals)).await;
                refusals += 1;
            } else {
                refusals = 0;
                tokio::time::sleep(paced.lost(was_armed, lived)).await;
            }
            protocol = Protocol::Resp3;
        }
    }

    /// A link that stands; `None` if another protocol is to be tried. While the upstream is away, it waits.
    async fn connected(self: &Rc<Self>, protocol: Protocol) -> Option<Link<FeedClient<W, H>>> {
        let identity = Identity { login: self.login.clone(), db: 0, protocol };
        let client = FeedClient::new(self.clone(), protocol);
        let link = Link::new(client, identity, Rc::new(self.settings.clone()));
        while let Err(loss) = poll_fn(|cx| link.poll_ready(cx)).await {
            if protocol == Protocol::Resp3 && knows_no_hello(&loss.cause) {
                self.told.no_resp3();
                return None;
            }
            self.tell_down("the feed cannot connect", &loss.cause.to_string());
            if protocol == Protocol::Resp2 {
                return None;
            }
            tokio::time::sleep(RETRY).await;
        }
        if protocol == Protocol::Resp3 {
            self.told.resp3();
        }
        Some(link)
    }

    fn tell_down(&self, what: &str, cause: &str) {
        if let Some(untold) = self.hooks.metrics().feed_down_told.now() {
            warn!(upstream = %self.settings.address, untold, cause, "{what}");
        }
    }

    /// Ends when the upstream, which did not, speaks RESP3: it was upgraded in place, or the user was given the right.
    async fn speaks_resp3(&self) {
        let identity = Identity { login: self.login.clone(), db: 0, protocol: Protocol::Resp3 };
        for turn in 0.. {
            tokio::time::sleep(backoff(REFUSED, turn)).await;
            if can_connect(&self.settings, &identity).await {
                return;
            }
        }
    }

    fn lapse(&self) {
        let coverages = self.cache.coverages();
        let was_up = coverages.current(self.hooks.slot()).is_some();
        coverages.end(self.hooks.slot(), self.hooks.now());
        self.hooks.metrics().feed_up.set(0);
        if was_up {
            self.hooks.metrics().feed_lapses.inc();
            self.hooks.down();
        }
    }
}

/// Whether that is what `HELLO` was answered, and not `AUTH`.
fn knows_no_hello(cause: &ConnectError) -> bool {
    let ConnectError::Refused(raw) = cause else { return false };
    let said = String::from_utf8_lossy(raw).to_ascii_lowercase();
    let no_right = said.starts_with("-noperm") && said.contains("hello");
    no_right || said.contains("unknown command") || said.starts_with("-noproto")
}

enum Awaited {
    /// The answer to a question.
    Asked(Question),
    /// How often each command was called.
    Calls,
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

struct FeedClient<W: Waiter, H: Hooks> {
    feed: Rc<Feed<W, H>>,
    protocol: Protocol,
    client_id: Cell<Option<i64>>,
    server: Cell<Option<ServerId>>,
    pings: Pings,
    /// When the last answered `PING` was sent.
    previous: Cell<Micros>,
    /// When it was last looked at what nothing else reports.
    looked: Cell<Micros>,
    /// Told when a `PING` was answered and a barrier asks for another.
    unheard: Notify,
    /// What is still to be answered.
    questions: Questions,
    /// When the connection was made.
    since: Cell<Instant>,
    /// Told when the connection is of no more use.
    ended: Notify,
    /// The present frame, while it comes in pieces.
    held: RefCell<BytesMut>,
    /// All was answered, and its subscriptions were all confirmed. If its coverage has ended all the same, a data link
    /// has found that the upstream does not know it.
    armed: Cell<bool>,
    /// A subscription was refused: whatever it answers else, it is no feed.
    turned_away: Cell<bool>,
    /// What tracking has dropped though it was in use. The announcement that asks for a refresh follows
    /// behind, when there is nothing in the cache any more that would tell.
    awaited: RefCell<HashMap<Vec<u8>, Vec<Wanted>>>,
}

impl<W: Waiter, H: Hooks> ReplyHandler for FeedClient<W, H> {
    type InFlight = Awaited;

    fn is_push(&self, front: Option<&Awaited>, kind: Kind, start: &[u8]) -> bool {
        let word = match kind {
            Kind::Push | Kind::Aggregate => message_word(start),
            _ => return false,
        };
        match is_confirmation(word) {
            true => !matches!(front, Some(Awaited::Subscribed(_))),
            false => kind == Kind::Push || is_message(word),
        }
    }

    fn push(&self, chunk: Chunk<'_>, at: At) {
        if let Some(frame) = self.whole(chunk, at) {
            self.message(&frame);
        }
    }

    fn reply(&self, expect: Awaited, chunk: Chunk<'_>, at: At) -> Option<Awaited> {
        let Some(frame) = self.whole(chunk, at) else { return Some(expect) };
        match expect {
            Awaited::Asked(question) => self.answered(question, &frame, at.kind),
            Awaited::Calls => self.looked(&frame, at.kind),
            Awaited::Subscribed(left) if left > 1 && at.kind != Kind::Error => {
                return Some(Awaited::Subscribed(left - 1));
            }
            Awaited::Subscribed(_) => self.answered(Question::Subscribe, &frame, at.kind),
            Awaited::Pong { sent, arms, looks } => self.pong(sent, arms, looks, &frame, at.kind),
        }
        None
    }

    fn lost(&self, _expect: Awaited, _loss: &Loss) {}

    fn attempt(&self) {
        self.feed.hooks.metrics().feed_attempts.inc();
    }

    fn up(&self, _id: Option<i64>) {
        self.since.set(Instant::now());
    }

    fn down(&self, was_up: bool, loss: &Loss) {
        if was_up {
            self.leave("the feed is lost", &loss.cause.to_string());
            self.feed.lapse();
            self.ended.notify_one();
        }
    }

    fn may_wait(&self, _expect: &Awaited) -> bool {
        // The heartbeat has a bound of its own.
        true
    }
}

impl<W: Waiter, H: Hooks> FeedClient<W, H> {
    fn new(feed: Rc<Feed<W, H>>, protocol: Protocol) -> Self {
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
            awaited: RefCell::default(),
        }
    }

    /// The answer to a `PING`: all that the upstream had sent before `sent` is applied.
    fn pong(&self, sent: Micros, arms: bool, looks: bool, frame: &[u8], kind: Kind) {
        self.pings.answered();
        if self.turned_away.get() {
            return;
        }
        if !Said::proves(kind, frame) {
            self.tell_put_off("PING", frame);
        }
        let loading = &self.feed.hooks.metrics().loading;
        match kind == Kind::Error && frame.starts_with(b"-LOADING") {
            true => loading.say(String::from_utf8_lossy(&frame[1..]).trim_end()),
            false => loading.unsay(),
        }
        // A server that is busy or loading has not said yet what it is about to tell, and a look that was not answered
        // leaves open what only it would tell.
        if !Said::proves(kind, frame) || self.questions.is_blinded() {
            if arms {
                self.questions.ask_soon();
            }
            return;
        }
        if arms && self.ask_the_rest() {
            return;
        }
        let (coverages, slot) = (self.feed.cache.coverages(), self.feed.hooks.slot());
        // What is tracked by prefix is told at the end of the upstream's turn, behind the replies of
        // that turn: only the answer to the next `PING` proves that it has come.
        let proven = match self.feed.broadcast.is_empty() {
            true => sent,
            false => self.previous.replace(sent),
        };
        if !arms {
            match looks {
                true => coverages.advance(slot, proven),
                false => coverages.hear(slot, proven),
            }
            if proven <= self.feed.cache.barrier() {
                self.unheard.notify_one();
            }
            return;
        }
        self.feed.cache.forget_echoes();
        if coverages.arm(slot, None, sent).is_some() {
            if let Some(untold) = self.feed.hooks.metrics().feed_up_told.now() {
                info!(upstream = %self.feed.settings.address, untold, "the feed is subscribed");
            }
            self.armed.set(true);
            self.questions.armed(self.protocol);
            self.feed.hooks.metrics().feed_up.set(1);
            self.tell_up();
        }
    }

    /// The connection is of no more use. If it had lived for a while, that is news.
    fn leave(&self, what: &str, cause: &str) {
        let metrics = self.feed.hooks.metrics();
        if self.since.get().elapsed() >= LIVED {
            metrics.feed_down_told.over();
            metrics.feed_up_told.over();
        }
        self.feed.tell_down(what, cause);
    }

    fn tell_up(&self) {
        if let Some(coverage) = self.feed.cache.coverages().current(self.feed.hooks.slot()) {
            self.feed.hooks.up(coverage, self.client_id.get(), self.server.get());
        }
    }

    /// Gathers a frame; gives it when it is whole.
    fn whole(&self, chunk: Chunk<'_>, at: At) -> Option<BytesMut> {
        let mut held = self.held.borrow_mut();
        held.extend_from_slice(&chunk);
        at.last.then(|| held.split())
    }
}
