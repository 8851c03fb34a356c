//! The sessions of the process, as `CLIENT LIST`, `KILL` and `UNBLOCK`, and `NEARSIDE CLIENTS`, speak of them.
//!
//! Invariants: a session is known here from before its first request until its end. Its id is never one that
//! the upstream gives to a client, so an id says by itself of whom it speaks. Nothing here is asked on a hit:
//! what changes with the requests is noted once for a batch, with relaxed stores that nobody else writes.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::inbox::{Inbox, Message};
use super::node_id::NodeId;
use crate::cache::Micros;
use crate::io::Ends;
use crate::resp::Protocol;

/// Ids begin here: no upstream, which counts from 1, comes so far, and all below 2^53 are exact in JavaScript.
const FIRST: u64 = 1 << 52;

/// So many ids are one process' own; which ones is drawn, so that the sidecars of one upstream differ.
const EACH: u32 = 30;

/// No row of the command table has this number.
const NO_COMMAND: u16 = u16::MAX;

/// It is to end.
const KILLED: u8 = 1;

/// Its [calls](Client::calls) are to be answered.
const CALLED: u8 = 2;

/// The session has a connection of its own, of which the id is not known (yet).
const UNTOLD: i64 = -1;

/// Where the node stands, above the id of the connection: ids count connections, and the number of a node has 16 bits.
const NODE: u32 = 47;
const ID: i64 = (1 << NODE) - 1;

/// All sessions of the process; as many as there are clients.
pub struct Clients {
    known: Mutex<BTreeMap<u64, Arc<Client>>>,
    next: AtomicU64,
}

impl Default for Clients {
    fn default() -> Self {
        let drawn = RandomState::new().hash_one(FIRST) % (FIRST >> EACH);
        Self { known: Mutex::default(), next: AtomicU64::new(FIRST + (drawn << EACH) + 1) }
    }
}

impl Clients {
    /// A client has come.
    pub fn enter(&self, ends: Ends, inbox: Arc<Inbox>, now: Micros) -> Arc<Client> {
        let session = self.make(ends, inbox, now, false);
        self.known.lock().insert(session.id, session.clone());
        session
    }

    /// Nearside itself is to be a client, of which nobody is told.
    pub fn own(&self, inbox: Arc<Inbox>, now: Micros) -> Arc<Client> {
        self.make(Ends::default(), inbox, now, true)
    }

    fn make(&self, ends: Ends, inbox: Arc<Inbox>, now: Micros, is_own: bool) -> Arc<Client> {
        Arc::new(Client {
            is_own,
            id: self.next.fetch_add(1, Ordering::Relaxed),
            ends,
            since: Instant::now(),
            inbox,
            last: AtomicU64::new(now),
            command: AtomicU16::new(NO_COMMAND),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            orders: AtomicU8::new(0),
            calls: Mutex::default(),
            leads: AtomicUsize::new(0),
            upstream: AtomicI64::new(0),
            who: Mutex::default(),
        })
    }

    /// The session of this id, if it is there and was not killed.
    pub fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.known.lock().get(&id).filter(|session| !session.is_killed()).cloned()
    }

    /// It is gone.
    pub(super) fn leave(&self, id: u64) {
        self.known.lock().remove(&id);
    }

    /// All that are there, by id.
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.known.lock().values().filter(|session| !session.is_killed()).cloned().collect()
    }
}

/// The upstream gives it to nobody.
pub const NOBODY: i64 = i64::MAX;

/// A session asks another for the id of its own connection.
pub struct Call {
    /// 0 until it is answered.
    answer: AtomicI64,
    inbox: Arc<Inbox>,
    caller: u64,
}

impl Call {
    /// Of the session `caller`, whose worker has this inbox.
    pub fn new(inbox: Arc<Inbox>, caller: u64) -> Arc<Self> {
        Arc::new(Self { answer: AtomicI64::new(0), inbox, caller })
    }

    /// What was answered, once it was.
    pub fn answered(&self) -> Option<i64> {
        Some(self.answer.load(Ordering::Acquire)).filter(|id| *id != 0)
    }

    /// `None`: it has none, and will get none.
    pub fn answer(&self, id: Option<i64>) {
        self.answer.store(id.unwrap_or(NOBODY), Ordering::Release);
        self.inbox.send(Message::Wake { session: self.caller });
    }
}

/// One client, as others may know it: what is known of its session, and what they ask of that.
pub struct Client {
    pub id: u64,
    pub ends: Ends,
    pub since: Instant,
    /// It is nearside itself.
    pub is_own: bool,
    inbox: Arc<Inbox>,
    /// When its last request was handled, and the number of that one's row.
    last: AtomicU64,
    command: AtomicU16,
    /// Requests that the cache has answered, and reads that it could not: its session alone counts.
    hits: AtomicU64,
    misses: AtomicU64,
    /// What others have asked of it, one bit each.
    orders: AtomicU8,
    calls: Mutex<Vec<Arc<Call>>>,
    /// Whose tracking redirects to it, or is to.
    leads: AtomicUsize,
    /// What the upstream calls the connection that is the session's own, and above that at which node; 0 if there is none.
    upstream: AtomicI64,
    who: Mutex<Who>,
}

/// As whom a session speaks.
#[derive(Clone, Default)]
pub struct Who {
    pub name: Vec<u8>,
    pub user: Vec<u8>,
    pub db: u32,
    pub protocol: Protocol,
    /// What `CLIENT SETINFO` has said.
    pub library: Vec<u8>,
    pub version: Vec<u8>,
    /// Where its tracking redirects to: what the upstream calls that, and the session.
    pub redirects: Option<(i64, u64)>,
}

impl Who {
    /// The session that the upstream means with this number, or the number.
    pub fn redirected(&self, upstream: i64) -> i64 {
        let session = self.redirects.filter(|(id, _)| *id == upstream);
        session.map_or(upstream, |(_, session)| session as i64)
    }
}

impl Client {
    pub fn who(&self) -> Who {
        self.who.lock().clone()
    }

    pub fn change(&self, change: impl FnOnce(&mut Who)) {
        change(&mut self.who.lock());
    }

    /// `CLIENT SETINFO` has named what its client is made with.
    pub fn is_made_with(&self, attribute: &[u8], value: Vec<u8>) {
        match &*attribute.to_ascii_lowercase() {
            b"lib-name" => self.change(|who| who.library = value),
            b"lib-ver" => self.change(|who| who.version = value),
            _ => {}
        }
    }

    /// A request was handled; `command` is the number of its row, if it has one.
    #[inline]
    pub fn note(&self, now: Micros, command: Option<u16>) {
        self.last.store(now, Ordering::Relaxed);
        self.command.store(command.unwrap_or(NO_COMMAND), Ordering::Relaxed);
    }

    /// So many more of its requests were answered from the cache. Its session alone says so, once for a batch.
    #[inline]
    pub fn note_hits(&self, hits: u64) {
        self.hits.store(self.hits.load(Ordering::Relaxed) + hits, Ordering::Relaxed);
    }

    /// The cache could not answer a read of it. Its session alone says so.
    pub fn note_miss(&self) {
        self.misses.store(self.misses.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    pub fn idle(&self, now: Micros) -> Duration {
        Duration::from_micros(now.saturating_sub(self.last.load(Ordering::Relaxed)))
    }

    /// The number of its last command's row.
    pub fn command(&self) -> Option<u16> {
        Some(self.command.load(Ordering::Relaxed)).filter(|command| *command != NO_COMMAND)
    }

    /// Whether others have asked for anything.
    #[inline]
    pub fn has_orders(&self) -> bool {
        self.orders.load(Ordering::Relaxed) != 0
    }

    pub fn is_killed(&self) -> bool {
        self.orders.load(Ordering::Relaxed) & KILLED != 0
    }

    /// Somebody wants to know what the upstream calls the session's own connection.
    pub fn call(&self, call: Arc<Call>) {
        let mut calls = self.calls.lock();
        calls.push(call);
        self.orders.fetch_or(CALLED, Ordering::Relaxed);
        drop(calls);
        self.inbox.send(Message::Wake { session: self.id });
    }

    /// Who has called.
    pub fn calls(&self) -> Vec<Arc<Call>> {
        let mut calls = self.calls.lock();
        self.orders.fetch_and(!CALLED, Ordering::Relaxed);
        std::mem::take(&mut calls)
    }

    /// Tracking leads to it, of one client more or less.
    pub fn is_led_to(&self, more: bool) {
        match more {
            true => self.leads.fetch_add(1, Ordering::Relaxed),
            false => self.leads.fetch_sub(1, Ordering::Relaxed),
        };
    }

    /// Whether anybody's tracking leads to it.
    pub fn is_target(&self) -> bool {
        self.leads.load(Ordering::Relaxed) > 0
    }

    /// Closes it: not another request of it is carried out that was not begun. Says whether it was open.
    pub fn kill(&self) -> bool {
        let open = self.orders.fetch_or(KILLED, Ordering::Relaxed) & KILLED == 0;
        if open {
            self.inbox.send(Message::Wake { session: self.id });
        }
        open
    }

    /// What the upstream calls the connection that is its own; 0 if it has none, and below if that is not known.
    pub fn upstream(&self) -> i64 {
        match self.upstream.load(Ordering::Relaxed) {
            known @ 0.. => known & ID,
            untold => untold,
        }
    }

    /// At which node that is, if it is known.
    pub fn node(&self) -> Option<NodeId> {
        let known = Some(self.upstream.load(Ordering::Relaxed)).filter(|known| *known > 0)?;
        u16::try_from(known >> NODE).ok().map(NodeId)
    }

    /// Likewise what this node calls it: 0 if it calls nothing so.
    pub fn upstream_at(&self, node: NodeId) -> i64 {
        if self.node() == Some(node) { self.upstream() } else { 0 }
    }

    /// It has a connection of its own, which the node calls this.
    pub fn is_on(&self, node: NodeId, upstream: Option<i64>) {
        let known = upstream.map(|id| i64::from(node.0) << NODE | id & ID);
        self.upstream.store(known.unwrap_or(UNTOLD), Ordering::Relaxed);
    }

    /// It shares a link with others.
    pub fn is_on_shared(&self) {
        self.upstream.store(0, Ordering::Relaxed);
    }
}

/// While it stands, the session has a connection of its own.
pub struct Alone(Arc<Client>);

impl Alone {
    pub fn new(session: &Arc<Client>, node: NodeId, upstream: Option<i64>) -> Self {
        session.is_on(node, upstream);
        Self(session.clone())
    }
}

impl Alone {
    /// Whether anybody's tracking leads to the session.
    pub fn is_target(&self) -> bool {
        self.0.is_target()
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.0.is_on_shared();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_exact_in_javascript_and_none_of_the_upstreams() {
        let (one, other) = (Clients::default(), Clients::default());
        let enter = |clients: &Clients| clients.enter(Ends::default(), Arc::default(), 1).id;
        let (a, b, c) = (enter(&one), enter(&one), enter(&other));
        assert_eq!(b, a + 1);
        assert!((FIRST..1 << 53).contains(&a) && (FIRST..1 << 53).contains(&c));
        assert_eq!((one.all().len(), one.get(a).map(|session| session.id)), (2, Some(a)));
    }

    #[test]
    fn a_session_has_a_connection_of_its_own_while_that_stands() {
        let clients = Clients::default();
        let session = clients.enter(Ends::default(), Arc::default(), 1);
        let alone = Alone::new(&session, NodeId(0), None);
        assert_eq!(session.upstream(), UNTOLD);
        session.is_on(NodeId(3), Some(7));
        assert_eq!((session.upstream(), session.node()), (7, Some(NodeId(3))));
        assert_eq!((session.upstream_at(NodeId(3)), session.upstream_at(NodeId(0))), (7, 0));
        drop(alone);
        assert_eq!(session.upstream(), 0);
        assert!(session.kill() && !session.kill() && clients.get(session.id).is_none());
    }
}
