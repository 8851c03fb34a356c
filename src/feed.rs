//! The feed: one connection on which the upstream tells what changed.
//!
//! It subscribes to the namespaces' channels, and the data links' `CLIENT TRACKING` redirects to it. Both
//! lead to one function, `Cache::heard`.
//!
//! What always holds:
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
mod stats;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use commands::commands;
use stats::{Calls, Changes};

use crate::cache::{Cache, CoverageId, CoverageSlot, Micros, Reason, Waiter, Wanted};
use crate::command::ServerCommand;
use crate::metrics::Metrics;
use crate::namespace::{Event, Namespaces, OnUpdate};
use crate::resp::decode::{Value, decode};
use crate::resp::pubsub::{is_confirmation, is_message, message_word};
use crate::resp::scanner::Kind;
use crate::resp::{Protocol, encode};
use crate::upstream::{
    At, Chunk, Client, ConnectError, Identity, Link, Login, Loss, Pings, ServerId, Settings, server_id,
};

mod heart;

use heart::{heartbeat, ping};

/// How the feed reaches the rest of the process.
pub trait Hooks: 'static {
    fn namespaces(&self) -> &Namespaces;

    fn metrics(&self) -> &Metrics;

    /// The feed's coverage.
    fn slot(&self) -> &CoverageSlot;

    /// What the coverages count time in.
    fn now(&self) -> Micros;

    /// The feed is subscribed, on `server`; `client_id` is the connection to which tracking can redirect.
    fn up(&self, coverage: CoverageId, client_id: Option<i64>, server: Option<ServerId>);

    /// The feed's coverage has ended.
    fn down(&self);

    /// Whether the upstream tells of all changes of the keys that are tracked by prefix.
    fn broadcasts(&self, granted: bool);

    /// Whether changes of users and their rules are seen.
    fn watches_users(&self, sees: bool);

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
    /// The upstream has refused the subscriptions, and that was told.
    pub refused: Cell<bool>,
    /// The upstream has refused `INFO`, and that was told.
    pub blind: Cell<bool>,
}

/// How deep the replies are that the feed reads itself; `COMMAND` is the deepest.
const MAX_DEPTH: usize = 16;

/// Keys for which an announcement is awaited, at most: those of one large write.
const MAX_AWAITED: usize = 1024;

/// And replies of one of them.
const MAX_AWAITED_REPLIES: usize = 256;

/// How long to wait before looking again whether the upstream can be reached.
const RETRY: Duration = Duration::from_millis(20);

/// How long to wait before asking again for what was refused.
const REFUSED: Duration = Duration::from_secs(5);

impl<W: Waiter, H: Hooks> Feed<W, H> {
    /// Keeps the feed up until the task is dropped. Runs in a `LocalRuntime`.
    pub async fn run(self) {
        let feed = Rc::new(self);
        let mut protocol = Protocol::Resp3;
        let mut told = false;
        loop {
            let ended = Rc::new(Notify::new());
            let client = FeedClient {
                feed: feed.clone(),
                client_id: Cell::new(None),
                server: Cell::new(None),
                pings: Pings::default(),
                previous: Cell::new(0),
                protocol,
                calls: Cell::new(None),
                blind: Cell::new(false),
                ended: ended.clone(),
                held: RefCell::default(),
                armed: Cell::new(false),
                turned_away: Cell::new(false),
                awaited: RefCell::default(),
            };
            let identity = Identity { login: feed.login.clone(), db: 0, protocol };
            let link = Link::new(client, identity, Rc::new(feed.settings.clone()));
            while let Err(loss) = poll_fn(|cx| link.poll_ready(cx)).await {
                if protocol == Protocol::Resp3 && knows_no_hello(&loss.cause) {
                    info!("the upstream speaks RESP2 only: no CLIENT TRACKING, only namespaces are cached");
                    protocol = Protocol::Resp2;
                    break;
                }
                if !std::mem::replace(&mut told, true) {
                    warn!(upstream = %feed.settings.address, cause = %loss.cause, "the feed cannot connect");
                }
                tokio::time::sleep(RETRY).await;
            }
            if !link.is_up() {
                continue;
            }
            told = false;
            subscribe(&link, protocol);
            tokio::select! {
                () = ended.notified() => {}
                () = heartbeat(&feed, &link) => {}
            }
            // The link may have told of its loss, and ended the coverage, already.
            let was_armed = link.client().armed.get();
            drop(link);
            feed.lapse();
            if feed.refused.get() {
                tokio::time::sleep(REFUSED).await;
            } else if !was_armed {
                // It connects and then comes to nothing: not a loss to be mended at once.
                tokio::time::sleep(RETRY).await;
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

fn knows_no_hello(cause: &ConnectError) -> bool {
    let ConnectError::Refused(raw) = cause else { return false };
    let said = String::from_utf8_lossy(raw).to_ascii_lowercase();
    said.contains("unknown command") || said.starts_with("-noproto")
}

/// Asks for everything that the feed needs, in an order that RESP2 allows: once subscribed, only `PING` is.
fn subscribe<W: Waiter, H: Hooks>(link: &Link<FeedClient<W, H>>, protocol: Protocol) {
    let feed = &link.client().feed;
    feed.hooks.metrics().feed_connects.inc();
    let send = |command: &[&[u8]], expect| {
        let _ = link.send(|out| out.with(|tail| encode::command(tail, command)), expect);
    };
    if protocol == Protocol::Resp3 && feed.tracking {
        send(&[b"CLIENT", b"ID"], Expect::ClientId);
    }
    if protocol == Protocol::Resp3 && !feed.broadcast.is_empty() {
        let prefixes = feed.broadcast.iter().filter(|prefix| !prefix.is_empty());
        let options = prefixes.flat_map(|prefix| [&b"PREFIX"[..], prefix]);
        let on: [&[u8]; 4] = [b"CLIENT", b"TRACKING", b"ON", b"BCAST"];
        send(&on.into_iter().chain(options).collect::<Vec<_>>(), Expect::Broadcasts);
    } else {
        feed.hooks.broadcasts(false);
    }
    if protocol == Protocol::Resp2 {
        // A subscriber may not ask.
        feed.hooks.watches_users(false);
    }
    let _ = link.send(|out| out.copy(server_id::ASK), Expect::Server);
    send(&[b"COMMAND"], Expect::Commands);
    let namespaces = feed.hooks.namespaces();
    let channels: Vec<&[u8]> =
        namespaces.iter().flat_map(|n| [n.channel(Event::Update), n.channel(Event::Delete)]).collect();
    if !channels.is_empty() {
        let command: Vec<&[u8]> = [&b"SUBSCRIBE"[..]].into_iter().chain(channels.iter().copied()).collect();
        send(&command, Expect::Subscribed(channels.len()));
    }
    ping(link, true);
}

enum Expect {
    ClientId,
    Server,
    Broadcasts,
    Commands,
    /// How often each command was called.
    Calls,
    /// Confirmations to come.
    Subscribed(usize),
    Pong {
        sent: Micros,
        /// It is the first behind the subscriptions.
        arms: bool,
    },
}

struct FeedClient<W: Waiter, H: Hooks> {
    feed: Rc<Feed<W, H>>,
    client_id: Cell<Option<i64>>,
    server: Cell<Option<ServerId>>,
    pings: Pings,
    /// When the last answered `PING` was sent.
    previous: Cell<Micros>,
    protocol: Protocol,
    /// What was called how often when it was last looked at.
    calls: Cell<Option<Calls>>,
    /// It may not look.
    blind: Cell<bool>,
    /// Told when the connection is of no more use.
    ended: Rc<Notify>,
    /// The present frame, while it comes in pieces.
    held: RefCell<BytesMut>,
    /// Its subscriptions were all confirmed. If its coverage has ended all the same, a data link has found that
    /// the upstream does not know it.
    armed: Cell<bool>,
    /// A subscription was refused: whatever it answers else, it is no feed.
    turned_away: Cell<bool>,
    /// What tracking has dropped though it was in use. The announcement that asks for a refresh follows
    /// behind, when there is nothing in the cache any more that would tell.
    awaited: RefCell<HashMap<Vec<u8>, Vec<Wanted>>>,
}

impl<W: Waiter, H: Hooks> Client for FeedClient<W, H> {
    type Expect = Expect;

    fn is_push(&self, front: Option<&Expect>, kind: Kind, start: &[u8]) -> bool {
        let word = match kind {
            Kind::Push | Kind::Aggregate => message_word(start),
            _ => return false,
        };
        match is_confirmation(word) {
            true => !matches!(front, Some(Expect::Subscribed(_))),
            false => kind == Kind::Push || is_message(word),
        }
    }

    fn push(&self, chunk: Chunk<'_>, at: At) {
        if let Some(frame) = self.whole(chunk, at) {
            self.message(&frame);
        }
    }

    fn reply(&self, expect: Expect, chunk: Chunk<'_>, at: At) -> Option<Expect> {
        let Some(frame) = self.whole(chunk, at) else { return Some(expect) };
        match expect {
            Expect::ClientId => {
                self.client_id.set(decode(&frame, 0).ok().and_then(|id| id.as_int()));
                None
            }
            Expect::Server | Expect::Calls if at.kind == Kind::Error => {
                let of_calls = matches!(expect, Expect::Calls);
                if of_calls {
                    self.feed.hooks.watches_users(false);
                }
                self.refused_info(&frame, of_calls);
                None
            }
            Expect::Server => {
                self.server.set(ServerId::of(&frame));
                None
            }
            Expect::Broadcasts => {
                let granted = at.kind != Kind::Error;
                if !granted {
                    let said = String::from_utf8_lossy(&frame);
                    warn!(
                        reply = said.trim_end(),
                        "the upstream does not allow CLIENT TRACKING: only keys in namespaces are cached"
                    );
                }
                self.feed.hooks.broadcasts(granted);
                None
            }
            Expect::Commands => {
                match decode(&frame, MAX_DEPTH) {
                    Ok(reply) => self.feed.hooks.commands(&commands(&reply)),
                    Err(wrong) => debug!(%wrong, "the reply to COMMAND was not understood"),
                }
                None
            }
            Expect::Calls => {
                self.feed.hooks.watches_users(true);
                let calls = Calls::of(&frame);
                let changes = self.calls.replace(Some(calls)).map(|before| calls.since(&before));
                let Changes { swapped, users } = changes.unwrap_or_default();
                if swapped {
                    info!("databases were swapped: everything cached is void");
                    self.feed.hooks.metrics().heard_flushes.inc();
                    self.feed.cache.flush(Reason::Tracking);
                }
                if users {
                    info!("users or their rules were changed upstream: everything cached is void");
                    self.feed.hooks.metrics().heard_flushes.inc();
                    self.feed.cache.flush(Reason::Users);
                }
                None
            }
            Expect::Subscribed(_) if at.kind == Kind::Error => {
                let said = String::from_utf8_lossy(&frame);
                if !self.feed.refused.get() {
                    warn!(reply = said.trim_end(), "the upstream refuses SUBSCRIBE: nothing is cached");
                }
                self.feed.refused.set(true);
                self.turned_away.set(true);
                self.ended.notify_one();
                None
            }
            Expect::Subscribed(left) => (left > 1).then_some(Expect::Subscribed(left - 1)),
            Expect::Pong { sent, arms } => {
                self.pings.answered();
                let (coverages, slot) = (self.feed.cache.coverages(), self.feed.hooks.slot());
                if self.turned_away.get() {
                    return None;
                }
                if arms {
                    self.feed.cache.forget_echoes();
                }
                // What is tracked by prefix is told at the end of the upstream's turn, behind the replies of
                // that turn: only the answer to the next `PING` proves that it has come.
                let proven = match self.feed.broadcast.is_empty() {
                    true => sent,
                    false => self.previous.replace(sent),
                };
                if !arms {
                    coverages.advance(slot, proven);
                } else if let Some(coverage) = coverages.arm(slot, None, sent) {
                    info!(upstream = %self.feed.settings.address, "the feed is subscribed");
                    self.feed.refused.set(false);
                    self.armed.set(true);
                    self.feed.hooks.metrics().feed_up.set(1);
                    self.feed.hooks.up(coverage, self.client_id.get(), self.server.get());
                }
                None
            }
        }
    }

    fn lost(&self, _expect: Expect, _loss: &Loss) {}

    fn down(&self, was_up: bool, loss: &Loss) {
        if was_up {
            warn!(upstream = %self.feed.settings.address, cause = %loss.cause, "the feed is lost");
            self.feed.lapse();
            self.ended.notify_one();
        }
    }

    fn may_wait(&self, _expect: &Expect) -> bool {
        // The heartbeat has a bound of its own.
        true
    }
}

impl<W: Waiter, H: Hooks> FeedClient<W, H> {
    /// Gathers a frame; gives it when it is whole.
    fn whole(&self, chunk: Chunk<'_>, at: At) -> Option<BytesMut> {
        let mut held = self.held.borrow_mut();
        held.extend_from_slice(&chunk);
        at.last.then(|| held.split())
    }

    /// Without `INFO` nothing tells of `SWAPDB`, nor that a link leads to another server than the feed. It is not
    /// asked again on this connection: each refusal stands in the upstream's `ACL LOG`.
    fn refused_info(&self, said: &[u8], swaps: bool) {
        let metrics = self.feed.hooks.metrics();
        match swaps {
            true => metrics.swaps_unchecked.inc(),
            false => metrics.server_unchecked.inc(),
        }
        self.blind.set(true);
        if !self.feed.blind.replace(true) {
            let reply = String::from_utf8_lossy(said);
            warn!(
                reply = reply.trim_end(),
                "the upstream does not allow INFO: SWAPDB, and a link to another server than the feed's, are not noticed"
            );
        }
    }

    fn message(&self, frame: &[u8]) {
        let Ok(frame) = decode(frame, MAX_DEPTH) else { return };
        let Some(parts) = frame.as_array() else { return };
        match (parts.first().and_then(Value::as_bytes), parts) {
            (Some(b"message"), [_, channel, payload]) => {
                if let (Some(channel), Some(payload)) = (channel.as_bytes(), payload.as_bytes()) {
                    self.announced(channel, payload);
                }
            }
            (Some(b"invalidate"), [_, keys]) => self.tracked(keys),
            (word, _) => debug!(?word, "the feed heard what it does not know"),
        }
    }

    fn announced(&self, channel: &[u8], bare: &[u8]) {
        let feed = &self.feed;
        let Some((namespace, event)) = feed.hooks.namespaces().heard(channel) else { return };
        let (key, now) = (namespace.key(bare), feed.hooks.now());
        match event {
            Event::Delete => {
                self.awaited.borrow_mut().remove(&key);
                feed.hooks.metrics().heard_deletes.inc();
                feed.cache.heard(&key, Reason::Delete, now);
            }
            Event::Update => {
                feed.hooks.metrics().heard_updates.inc();
                match namespace.rules.on_update {
                    OnUpdate::Invalidate => feed.cache.heard(&key, Reason::Update, now),
                    OnUpdate::Refresh => {
                        let mut wanted = feed.cache.heard_for_refresh(&key, Reason::Update, now);
                        wanted.extend(self.awaited.borrow_mut().remove(&key).unwrap_or_default());
                        if !wanted.is_empty() {
                            feed.hooks.refresh(&key, wanted);
                        }
                    }
                }
            }
        }
    }

    fn tracked(&self, keys: &Value) {
        let feed = &self.feed;
        let now = feed.hooks.now();
        let Some(keys) = keys.as_array() else {
            self.awaited.borrow_mut().clear();
            feed.hooks.metrics().heard_flushes.inc();
            feed.cache.flush(Reason::Tracking);
            return;
        };
        feed.hooks.metrics().heard_tracking.add(keys.len() as u64);
        for key in keys.iter().filter_map(Value::as_bytes) {
            match feed.hooks.namespaces().find(key).map(|namespace| namespace.rules.on_update) {
                Some(OnUpdate::Refresh) => self.drop_and_await(key, now),
                _ => feed.cache.heard(key, Reason::Tracking, now),
            }
        }
    }

    fn drop_and_await(&self, key: &[u8], now: Micros) {
        let mut wanted = self.feed.cache.heard_for_refresh(key, Reason::Tracking, now);
        if wanted.is_empty() {
            return;
        }
        let mut awaited = self.awaited.borrow_mut();
        if awaited.len() >= MAX_AWAITED {
            awaited.clear();
        }
        let known = awaited.entry(key.to_vec()).or_default();
        wanted.retain(|wanted| !known.iter().any(|known| known.is(wanted)));
        known.extend(wanted);
        known.truncate(MAX_AWAITED_REPLIES);
    }
}
