//! The links of one worker: those that sessions share, one for each identity in use, and those that wait to be.
//!
//! Invariants:
//! - An identity has a number, a link among these and a place for its coverage only once the upstream has taken it. What
//!   it refuses (a database that does not exist, a login) takes nothing.
//! - They are at most `max-links`, those aside on which a reply is awaited: for a new one the idle one that was least lately used is closed.
//! - All of it lives on the worker's thread; a borrow never reaches over a call that may end a link, for what ends with a
//!   link may call back.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tokio::time::{Duration, Instant};

use super::fresh::Fresh;
use super::key::LinkKey;
use super::pool::Pool;
use super::trying::Trying;
use crate::cache::{IdentId, LinkId};
use crate::pending::{Link, LinkHandler, Origin, Owner, Upcalls};
use crate::process::{Ident, NodeId, Process};
use crate::reply::ReplyQueue;
use crate::resp::Protocol;
use crate::upstream::Login;

/// A shared link that no session has used for this long is closed.
pub const UNUSED: Duration = Duration::from_secs(60);

/// A link that all sessions of one identity share.
pub(super) struct SharedLink {
    pub(super) node: NodeId,
    pub(super) ident: IdentId,
    pub(super) login: Option<Login>,
    pub(super) link: Link,
    pub(super) used: Cell<Instant>,
}

/// Whose a connection in the pool is.
pub(super) type PoolKey = (NodeId, IdentId, Option<Login>);

/// See the [module](self).
pub struct Router {
    pub(super) process: Arc<Process>,
    upcalls: Weak<dyn Upcalls>,
    pub(super) links: RefCell<Vec<SharedLink>>,
    /// Used while the first of an identity is stuck; at most one of each.
    pub(super) spares: RefCell<Vec<SharedLink>>,
    /// Links that gave no answer and were replaced: they end with what is in flight on them. A few of
    /// an identity at most.
    pub(super) replaced: RefCell<Vec<SharedLink>>,
    /// How many there were.
    pub(super) left: Cell<u64>,
    /// Links by which it is found out whether the upstream takes an identity.
    pub(super) trying: RefCell<Trying>,
    /// Links that log in for a session.
    pub(super) fresh: RefCell<Fresh>,
    pub(super) pool: RefCell<Pool<PoolKey, Link>>,
    /// Sessions that wait to know which way their writes go.
    undecided: RefCell<HashMap<u64, Rc<ReplyQueue>>>,
}

impl Router {
    /// `upcalls` is what the replies on its links call.
    pub fn new(process: Arc<Process>, upcalls: Weak<dyn Upcalls>) -> Self {
        Self {
            process,
            upcalls,
            links: RefCell::default(),
            spares: RefCell::default(),
            replaced: RefCell::default(),
            left: Cell::default(),
            trying: RefCell::default(),
            fresh: RefCell::default(),
            pool: RefCell::default(),
            undecided: RefCell::default(),
        }
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Closes all links.
    pub fn clear(&self) {
        self.links.borrow_mut().clear();
        self.spares.borrow_mut().clear();
        self.replaced.borrow_mut().clear();
        self.fresh.borrow_mut().clear();
        self.trying.borrow_mut().clear();
        self.pool.borrow_mut().clear();
    }

    /// Of a session that has not changed its identity.
    pub fn default_key(&self, protocol: Protocol) -> LinkKey {
        let settings = &self.process.settings;
        let ident = Ident { db: settings.db, protocol, user: None };
        LinkKey { node: self.process.first_node(), ident, login: None }
    }

    pub(super) fn shared_link(&self, ident: IdentId, key: &LinkKey) -> Option<Link> {
        let links = self.links.borrow();
        let known = links.iter().find(|known| known.is(ident, key))?;
        known.used.set(Instant::now());
        Some(known.link.clone())
    }

    /// The shared link to this node, if there is one, of an identity without a login of its own, whose number is known: to be
    /// asked for each request.
    pub fn link_at(&self, node: NodeId, ident: IdentId) -> Option<Link> {
        let links = self.links.borrow();
        let is = |known: &&SharedLink| known.node == node && known.ident == ident && known.login.is_none();
        let known = links.iter().find(is)?;
        known.used.set(Instant::now());
        Some(known.link.clone())
    }

    /// A shared link of an identity that is in use on this worker, to the node that is asked for; if its user has several
    /// passwords, one that stands.
    pub fn known_link(&self, node: NodeId, ident: IdentId) -> Option<Link> {
        let links = self.links.borrow();
        let of = links.iter().filter(|known| known.node == node && known.ident == ident);
        let mut known = of.map(|known| &known.link);
        let up = known.clone().find(|link| link.is_up());
        up.or_else(|| known.next()).cloned()
    }

    /// Whether the identity has a link that stands, with this login.
    pub fn has_link(&self, ident: IdentId, key: &LinkKey) -> bool {
        self.links.borrow().iter().any(|known| known.is(ident, key) && known.link.is_up())
    }

    /// The shared link of this number, spare ones too.
    pub fn link_of(&self, id: LinkId) -> Option<Link> {
        let (links, spares) = (self.links.borrow(), self.spares.borrow());
        let found = links.iter().chain(&*spares).find(|known| known.link.client().id == id);
        found.map(|known| known.link.clone())
    }

    /// All shared links, spare ones too, and whose they are.
    pub(super) fn shared_links(&self) -> Vec<(NodeId, IdentId, Link)> {
        let (links, spares) = (self.links.borrow(), self.spares.borrow());
        links.iter().chain(&*spares).map(|known| (known.node, known.ident, known.link.clone())).collect()
    }

    /// A shared link that nobody shares yet.
    pub(super) fn new_link(&self, key: &LinkKey) -> Link {
        self.connect(LinkId::next(), key, None)
    }

    /// A link of this identity; `owner` has it alone.
    pub(super) fn connect(&self, id: LinkId, key: &LinkKey, owner: Option<Owner>) -> Link {
        let LinkKey { node, ident, .. } = key;
        let origin =
            Origin { process: self.process.clone(), node: node.clone(), upcalls: self.upcalls.clone() };
        let settings = if owner.is_some() { node.upstream.clone() } else { node.upstream.without_limit() };
        let mut handler = LinkHandler::new(&origin, id, owner, ident.protocol);
        handler.own = ident.user.is_none();
        let identity = key.identity(&self.process.settings.upstream.own);
        Link::new(handler, identity, Rc::new(settings))
    }

    /// Another has taken the place of this link, on which something may be awaited.
    pub(super) fn is_left(&self, link: SharedLink) {
        self.left.set(self.left.get() + 1);
        self.replaced.borrow_mut().push(link);
    }

    /// Grows whenever another link takes the place of one on which something may be awaited: who has sent to several nodes does
    /// not know on which links.
    pub fn links_left(&self) -> u64 {
        self.left.get()
    }

    /// Wakes the session when a link has answered, or is lost.
    pub fn wake_when_known(&self, session: u64, queue: &Rc<ReplyQueue>) {
        self.undecided.borrow_mut().insert(session, queue.clone());
    }

    pub(super) fn wake_undecided(&self) {
        let undecided = std::mem::take(&mut *self.undecided.borrow_mut());
        undecided.values().for_each(|queue| queue.wake());
    }
}

impl SharedLink {
    /// Whether both are shared by the same.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.node == other.node && self.ident == other.ident && self.login == other.login
    }

    /// Whether that is whose it is.
    pub(super) fn is(&self, ident: IdentId, key: &LinkKey) -> bool {
        self.node == key.node.id && self.ident == ident && self.login == key.login
    }
}
