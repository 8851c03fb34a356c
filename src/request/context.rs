//! In whose name a request is sent, on which link, and where its reply goes.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::combine::How;
use super::gathers::Gathers;
use super::outbound::Outbound;
use super::raw::Raw;
use crate::cache::{Bounds, IdentId, Micros};
use crate::command::{Asks, Row};
use crate::io::Outgoing;
use crate::namespace::Namespace;
use crate::pending::{Link, Owner, Pending, Route, node_at, send};
use crate::process::{Node, Present, Process, Topology};
use crate::reply::{ReplyQueue, ReplySlot};
use crate::resp::request::Request;
use crate::resp::{Redirection, encode, key_slot};
use crate::router::{Keys, LinkKey, Target};

/// What requests of one session are made with. The session alone changes it.
pub struct Context {
    pub process: Arc<Process>,
    pub outbound: Rc<Outbound>,
    pub queue: Rc<ReplyQueue>,
    pub client: Present,
    /// What the client calls itself.
    pub name: Vec<u8>,
    /// By what its requests are routed. It takes over the process' newer one only when nothing that it has sent is
    /// unanswered, so two of its requests for one key are never at two nodes at the same time.
    pub topology: Arc<Topology>,
    /// What is under way in parts.
    pub gathers: Gathers,
    /// As whom it speaks, and to which node what has no keys goes.
    pub key: LinkKey,
    /// The identity's number in the cache.
    pub ident: IdentId,
    /// The link that it shares with others of its kind.
    pub link: Link,
    /// When the present request was read.
    pub now: Micros,
    /// The present request is one that is sent again.
    pub again: Option<Resent>,
    /// A link to another node than its own on which so much waits to be written that the session is to hold back.
    pub crowded: RefCell<Option<Link>>,
}

/// A request that a cluster did not execute, and that is sent again.
pub struct Resent {
    /// Where its reply goes.
    pub slot: u64,
    /// It goes to a node that does not own its keys.
    pub asks: bool,
}

impl Context {
    /// The slot of this number.
    pub fn slot(&self, slot: u64) -> ReplySlot {
        ReplySlot { queue: self.queue.clone(), slot }
    }

    /// Opens a slot for the reply to the next request.
    pub fn open(&self) -> ReplySlot {
        self.slot(self.queue.open())
    }

    /// Likewise for the reply to this request, which may have to be sent again if it goes to a cluster. If it is, gives the
    /// slot that it has.
    #[inline]
    pub fn open_for(&self, raw: &Raw<'_>) -> ReplySlot {
        if self.topology.is_single() { self.open() } else { self.open_kept(raw) }
    }

    /// A request was answered here. In front of a cluster it is kept if its reply waits for those before it, for it may have to be
    /// answered anew.
    #[inline]
    pub fn keep_answered(&self, raw: impl FnOnce() -> Bytes) {
        if !self.topology.is_single() && self.again.is_none() && self.queue.waiting() > 0 {
            self.queue.keep(self.queue.next() - 1, raw());
        }
    }

    fn open_kept(&self, raw: &Raw<'_>) -> ReplySlot {
        if let Some(again) = &self.again {
            return self.slot(again.slot);
        }
        let slot = self.queue.open();
        self.queue.keep(slot, raw.to_bytes());
        self.slot(slot)
    }

    /// Sends a request on the shared link; `pending` says what is done with its reply.
    pub fn forward(&self, raw: Raw<'_>, pending: impl FnOnce(ReplySlot) -> Pending) {
        self.forward_on(&self.link, raw, pending);
    }

    /// Likewise on another link.
    pub fn forward_on(&self, link: &Link, raw: Raw<'_>, pending: impl FnOnce(ReplySlot) -> Pending) {
        let pending = pending(self.open_for(&raw));
        let _ = send(link, self.now, |out| raw.write(out), pending);
    }

    /// Sends on the shared link; if that is away, the client is told at once.
    pub fn send(&self, write: impl FnOnce(&mut Outgoing), pending: Pending) {
        let _ = send(&self.link, self.now, write, pending);
    }

    /// The link to this target; `None` is the session's own. There is none to several nodes at once.
    #[inline]
    pub fn link_to(&self, target: Target) -> Result<Option<Link>, CrossSlot> {
        match target {
            Target::Any => Ok(None),
            Target::Node(node) => Ok(self.link_to_node(&node)),
            Target::Split | Target::All | Target::Scan | Target::CrossSlot => Err(CrossSlot),
        }
    }

    #[inline]
    fn link_to_node(&self, node: &Arc<Node>) -> Option<Link> {
        if node.id == self.key.node.id {
            return None;
        }
        let link = self.link_at(node.clone());
        if link.is_crowded() {
            self.crowded.replace(Some(link.clone()));
        }
        Some(link)
    }

    /// The link that it shares with others of its kind, to this node.
    pub fn link_at(&self, node: Arc<Node>) -> Link {
        let router = &self.outbound.router;
        let known = if self.key.login.is_none() { router.link_at(node.id, self.ident) } else { None };
        known.unwrap_or_else(|| router.link(&LinkKey { node, ..self.key.clone() }))
    }

    /// The node that an `ASK` leads to, if that is known.
    pub fn asked(&self, said: &Redirection) -> Option<Arc<Node>> {
        let Redirection::Ask { to, .. } = said else { return None };
        node_at(&self.process, &self.topology, to).cloned()
    }

    /// The link to that node, on which the next request may be for what it does not own yet.
    pub fn asking_link(&self, node: Arc<Node>) -> Link {
        let link = self.link_at(node);
        let asking = |tail: &mut bytes::BytesMut| encode::command(tail, &[b"ASKING"]);
        send(&link, self.now, |out| out.with(asking), Pending::Asking);
        link
    }

    /// The link to the node of this key; `None` is the session's own.
    #[inline]
    pub fn link_of(&self, key: &[u8]) -> Option<Link> {
        self.route(key).1
    }

    /// Likewise, and before it why, unless there is but one node.
    #[inline]
    pub fn route(&self, key: &[u8]) -> (Option<Route>, Option<Link>) {
        if self.topology.is_single() {
            return (None, None);
        }
        let slot = key_slot(key);
        let owner = self.topology.owner_of(slot);
        let route = owner.map(|_| Route { slot, epoch: self.topology.epoch });
        (route, self.link_to_node(owner.unwrap_or_else(|| self.topology.to_ask(slot))))
    }

    /// Where a request goes, by its keys.
    #[inline]
    pub fn target(&self, row: Option<&Row>, request: &Request<'_>) -> Target {
        if self.topology.is_single() {
            return Target::Any;
        }
        let Some(row) = row.filter(|row| row.takes(request.len())) else { return Target::Any };
        let splits = row.policy.asks == Asks::MultiShard && self.process.settings.cluster.splits;
        let mut keys = Keys::new(&self.topology, splits);
        let _ = row.keys(request, |i, _| keys.add(request.arg(i)));
        if row.name == "spublish" {
            // A shard channel is no key, and is a slot's all the same.
            keys.add(request.arg(1));
        }
        keys.target().unwrap_or_else(|| match row.policy.asks {
            Asks::All if How::of(row.policy, &row.name).is_some() => Target::All,
            Asks::Special if row.name == "scan" => Target::Scan,
            _ => Target::Any,
        })
    }

    /// Under what conditions a read of this key, in this namespace, may be served.
    #[inline]
    pub fn bounds(&self, namespace: Option<&Namespace>, key: &[u8]) -> Bounds {
        let unreachable = self.process.settings.stale_if_error.get() && !self.is_reached(key);
        let group = namespace.map_or(0, Namespace::number);
        Bounds { max_staleness: self.process.max_staleness(namespace), unreachable, group }
    }

    /// Whether the link to the key's node stands.
    #[inline(never)]
    fn is_reached(&self, key: &[u8]) -> bool {
        self.link_of(key).as_ref().unwrap_or(&self.link).is_up()
    }

    /// For a link that the session has for itself.
    pub fn owner(&self) -> Owner {
        Owner { queue: self.queue.clone(), client: (*self.client).clone() }
    }
}

/// The keys of a request are of several slots, and it cannot be divided.
pub struct CrossSlot;

/// The keys of a request, copied.
pub fn keys_of(row: Option<&Row>, request: &Request<'_>) -> SmallVec<[Box<[u8]>; 1]> {
    let mut keys = SmallVec::new();
    if let Some(row) = row {
        let _ = row.keys(request, |i, _| keys.push(request.arg(i).into()));
    }
    keys
}
