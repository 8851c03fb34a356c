//! One thread's part of the process: its sessions, its links and its inbox.
//!
//! Invariants: sessions and links of a worker live on its thread and share nothing with other
//! workers but the cache; whatever comes from elsewhere comes through the inbox.

mod seat;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::clients::Present;
use super::connection;
use super::idents::Ident;
use super::links::Trying;
use super::login::Fresh;
use super::peer::LinkHandler;
use super::pool::Pool;
use super::queue::ReplyQueue;
use super::shared::{CachedTable, Shared};
use crate::cache::{IdentId, LinkId, Micros, NO_LINK, Waiter, Wanted};
use crate::resp::Protocol;
use crate::upstream::{Identity, Link, Login, Stream};
use seat::Seat;

/// Heartbeats go on for this long after the last read: an application that reads now and then still hits.
const ACTIVE: Duration = Duration::from_secs(60);

/// A dedicated connection whose server takes no writes is made anew so often at most.
const RENEWED: Duration = Duration::from_secs(10);

/// A shared link that no session has used for this long is closed.
pub(super) const UNUSED: Duration = Duration::from_secs(60);

/// What is said to a worker from outside its thread.
pub enum Message {
    /// A client has connected.
    Client(std::net::TcpStream),
    UnixClient(std::os::unix::net::UnixStream),
    /// A flight came in for a waiting session.
    Served {
        session: u64,
        slot: u64,
        reply: Bytes,
    },
    /// A flight came to nothing.
    Released {
        session: u64,
        slot: u64,
    },
    /// There is something for the session to look at.
    Wake {
        session: u64,
    },
    /// Fetch a reply anew.
    Refresh {
        key: Box<[u8]>,
        wanted: Wanted,
    },
    /// Take no more requests.
    Drain,
}

/// Where a worker's messages are left. Each holds at most as many as there are open requests and clients.
#[derive(Default)]
pub struct Inbox {
    messages: Mutex<Vec<Message>>,
    arrived: Notify,
    /// Clients that the worker has, or will have when it has read its messages.
    clients: AtomicUsize,
}

impl Inbox {
    pub fn send(&self, message: Message) {
        self.messages.lock().push(message);
        self.arrived.notify_one();
    }

    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Hands a client over.
    pub fn send_client(&self, message: Message) {
        self.clients.fetch_add(1, Ordering::Relaxed);
        self.send(message);
    }

    fn client_left(&self, shared: &Shared) {
        self.clients.fetch_sub(1, Ordering::Relaxed);
        shared.metrics.clients.dec();
    }

    async fn take(&self) -> Vec<Message> {
        loop {
            let messages = std::mem::take(&mut *self.messages.lock());
            if !messages.is_empty() {
                return messages;
            }
            self.arrived.notified().await;
        }
    }
}

/// A session's place in another's flight.
pub struct Ticket {
    pub(super) inbox: Arc<Inbox>,
    pub(super) session: u64,
    pub(super) slot: u64,
}

impl Waiter for Ticket {
    fn served(self, reply: Bytes) {
        self.inbox.send(Message::Served { session: self.session, slot: self.slot, reply });
    }

    fn released(self) {
        self.inbox.send(Message::Released { session: self.session, slot: self.slot });
    }
}

/// A link that all sessions of one identity share.
pub(super) struct SharedLink {
    pub(super) ident: IdentId,
    pub(super) login: Option<Login>,
    pub(super) link: Link<LinkHandler>,
    pub(super) used: Cell<Instant>,
}

/// Whose a connection in the pool is.
pub(super) type PoolKey = (IdentId, Option<Login>);

/// See the [module](self).
pub struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) links: RefCell<Vec<SharedLink>>,
    /// Used while the first of an identity is stuck; at most one of each.
    pub(super) spares: RefCell<Vec<SharedLink>>,
    /// Sessions that wait to know which way their writes go.
    pub(super) undecided: RefCell<HashSet<u64>>,
    /// Links that gave no answer and were replaced: they end with what is in flight on them. A few of
    /// an identity at most.
    pub(super) replaced: RefCell<Vec<(IdentId, Link<LinkHandler>)>>,
    /// Links by which it is found out whether the upstream takes an identity.
    pub(super) trying: RefCell<Trying>,
    /// Links that log in for a session.
    pub(super) fresh: RefCell<Vec<Fresh>>,
    pub(super) pool: RefCell<Pool<PoolKey, Link<LinkHandler>>>,
    sessions: RefCell<HashMap<u64, Rc<ReplyQueue>>>,
    /// The read buffer of whichever session is reading, so that idle sessions need none.
    pub(super) scratch: RefCell<BytesMut>,
    /// Likewise for replies: the buffer of whichever session answers.
    pub(super) spare: RefCell<BytesMut>,
    pub(super) table: RefCell<CachedTable>,
    /// Keys of which a `delete` is to be announced when the upstream is there again.
    pub(super) owed: RefCell<VecDeque<Box<[u8]>>>,
    draining: Cell<bool>,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, inbox: Arc<Inbox>) -> Rc<Self> {
        Rc::new(Self {
            table: RefCell::new(shared.cached_table()),
            shared,
            inbox,
            links: RefCell::default(),
            spares: RefCell::default(),
            undecided: RefCell::default(),
            replaced: RefCell::default(),
            fresh: RefCell::default(),
            trying: RefCell::default(),
            pool: RefCell::default(),
            sessions: RefCell::default(),
            scratch: RefCell::default(),
            spare: RefCell::default(),
            owed: RefCell::default(),
            draining: Cell::new(false),
        })
    }

    /// Serves until it is told to drain, and then until the last session is gone. Runs in a `LocalRuntime`.
    ///
    /// `audits` is how often it compares a cached reply with the upstream's; one worker does.
    pub async fn run(self: Rc<Self>, audits: Option<Duration>) {
        // The link that nearly everybody will use: connected, and tracked, before the first client comes.
        self.own_link().reconnect();
        let this = self.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn_local(async move { this.follow_feed().await });
        let this = self.clone();
        tasks.spawn_local(async move { this.heartbeat().await });
        let this = self.clone();
        tasks.spawn_local(async move { this.follow_role().await });
        if let Some(pause) = audits {
            tasks.spawn_local(super::audit::run(self.clone(), pause));
        }
        let gone = Rc::new(Notify::new());
        loop {
            tokio::select! {
                messages = self.inbox.take() => {
                    messages.into_iter().for_each(|message| self.handle(message, &gone));
                }
                () = gone.notified() => {}
                // Without one of them the worker would serve on and notice nothing: it ends, and with it the process.
                Some(Err(fault)) = tasks.join_next() => {
                    if let Ok(panic) = fault.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
            }
            if self.draining.get() && self.sessions.borrow().is_empty() {
                break;
            }
        }
        drop(tasks);
        self.links.borrow_mut().clear();
        self.spares.borrow_mut().clear();
        self.replaced.borrow_mut().clear();
        self.fresh.borrow_mut().clear();
        self.trying.borrow_mut().clear();
        self.pool.borrow_mut().clear();
    }

    fn handle(self: &Rc<Self>, message: Message, gone: &Rc<Notify>) {
        match message {
            Message::Client(stream) => {
                let stream = tokio::net::TcpStream::from_std(stream).map(Stream::Tcp);
                self.accept(stream, gone);
            }
            Message::UnixClient(stream) => {
                let stream = tokio::net::UnixStream::from_std(stream).map(Stream::Unix);
                self.accept(stream, gone);
            }
            Message::Served { session, slot, reply } => {
                if let Some(queue) = self.sessions.borrow().get(&session) {
                    queue.served(slot, reply);
                }
            }
            Message::Released { session, slot } => {
                if let Some(queue) = self.sessions.borrow().get(&session) {
                    queue.release(slot);
                }
            }
            Message::Wake { session } => {
                if let Some(queue) = self.sessions.borrow().get(&session) {
                    queue.wake();
                }
            }
            Message::Refresh { key, wanted } => super::refresh::refresh(self, &key, &wanted),
            Message::Drain => {
                self.draining.set(true);
                self.sessions.borrow().values().for_each(|queue| queue.wake());
            }
        }
    }

    fn accept(self: &Rc<Self>, stream: std::io::Result<Stream>, gone: &Rc<Notify>) {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a client's socket cannot be used");
                self.inbox.client_left(&self.shared);
                return;
            }
        };
        let session = self.shared.clients.enter(stream.ends(), self.inbox.clone(), self.shared.now());
        let (id, present) = (session.id, Present::new(self.shared.clone(), session.clone()));
        let queue = Rc::new(ReplyQueue::new(self.shared.settings.output_limit, session));
        self.sessions.borrow_mut().insert(id, queue.clone());
        let seat = Seat { worker: self.clone(), id, queue, gone: gone.clone() };
        tokio::task::spawn_local(async move {
            connection::serve(seat.worker.clone(), present, seat.queue.clone(), stream).await;
            drop(seat);
        });
    }

    /// Wakes the session when a link has answered, or is lost.
    pub(super) fn wake_when_known(&self, session: u64) {
        self.undecided.borrow_mut().insert(session);
    }

    pub(super) fn wake_undecided(&self) {
        let undecided = std::mem::take(&mut *self.undecided.borrow_mut());
        let sessions = self.sessions.borrow();
        undecided.iter().filter_map(|id| sessions.get(id)).for_each(|queue| queue.wake());
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// The identity of a session that has not changed it.
    pub(super) fn default_ident(&self, protocol: Protocol) -> Ident {
        Ident { db: self.shared.settings.db, protocol, user: None }
    }

    /// Of nearside's own login.
    pub(super) fn own_link(self: &Rc<Self>) -> Link<LinkHandler> {
        let ident = self.default_ident(Protocol::Resp2);
        self.link(&ident, &self.shared.settings.login)
    }

    /// A connection for one session alone.
    pub(super) fn dedicated(
        self: &Rc<Self>,
        ident: &Ident,
        login: &Option<Login>,
        owner: &Rc<ReplyQueue>,
    ) -> Link<LinkHandler> {
        let number = self.shared.idents.number(ident);
        while let Some(link) = self.pooled(&(number, login.clone())) {
            if link.is_up() {
                link.client().own(owner);
                return link;
            }
        }
        self.connect(LinkHandler::new(self, NO_LINK, Some(owner.clone()), ident.protocol), ident, login)
    }

    /// Takes back a dedicated connection that holds no state of its session.
    pub(super) fn give_back(&self, ident: IdentId, login: &Option<Login>, link: Link<LinkHandler>) {
        // Where one leads whose server takes no writes, new ones may not, though the links and the feed are where they do.
        let peer = link.client();
        let is_wrong = || self.shared.role.leads_to_primary() || link.lived() >= RENEWED;
        let is_old = peer.is_of_old() || peer.is_readonly() && is_wrong();
        if link.is_up() && !is_old {
            link.client().disown();
            self.pool.borrow_mut().put((ident, login.clone()), link);
        }
    }

    /// Closes connections that nobody has taken from the pool for long.
    pub(super) fn drop_expired(&self) {
        let expired = self.pool.borrow_mut().expired();
        drop(expired);
    }

    fn pooled(&self, of: &PoolKey) -> Option<Link<LinkHandler>> {
        self.pool.borrow_mut().take(of)
    }

    pub(super) fn connect(
        &self,
        mut peer: LinkHandler,
        ident: &Ident,
        login: &Option<Login>,
    ) -> Link<LinkHandler> {
        peer.own = ident.user.is_none();
        let identity = Identity { login: login.clone(), db: ident.db, protocol: ident.protocol };
        let settings = &self.shared.settings.upstream;
        let settings = if peer.number == NO_LINK { settings.clone() } else { settings.without_limit() };
        Link::new(peer, identity, Rc::new(settings))
    }

    /// A shared link was lost: it is made anew without waiting for somebody to ask.
    pub(super) fn link_lost(&self, number: LinkId) {
        if let Some(link) = self.link_of(number) {
            tokio::task::spawn_local(async move { link.reconnect() });
        }
    }
}

/// Whether reads came in lately.
pub fn is_active(shared: &Shared, now: Micros) -> bool {
    now.saturating_sub(shared.cache.last_lookup()) < ACTIVE.as_micros() as Micros
}
