//! What a worker sends of its own accord: announcements that a reply has decided, those that are owed, and refreshes.
//!
//! Invariants: what was written, or may have been, and could not be said is made up for by a `delete` once the upstream is
//! there again: that makes everybody read anew. What is owed is bounded; beyond that the oldest is given up, and counted.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use bytes::BytesMut;

use super::refresh::refresh;
use crate::cache::{LinkId, NO_LINK, Wanted};
use crate::command::Say;
use crate::pending::{InFlight, Key, Link, LinkEvent, Pending, Said, Upcalls, write_announcement};
use crate::process::{Ident, Inbox, Node, Process};
use crate::resp::Protocol;
use crate::router::{LinkKey, Router};

/// Keys of which a `delete` is owed, at most.
const MAX_OWED: usize = 1 << 14;

/// See the [module](self).
pub struct Outbound {
    pub process: Arc<Process>,
    pub router: Rc<Router>,
    /// Where those leave word that the worker's sessions wait for.
    pub inbox: Arc<Inbox>,
    /// Connections that requests in parts have for themselves, at present.
    pub own_parts: Rc<Cell<usize>>,
    /// Keys of which a `delete` is to be announced when the upstream is there again.
    owed: RefCell<VecDeque<Key>>,
}

impl Outbound {
    /// With a router whose replies call it.
    pub fn new(process: Arc<Process>, inbox: Arc<Inbox>) -> Rc<Self> {
        Rc::new_cyclic(|this: &Weak<Self>| {
            let router = Rc::new(Router::new(process.clone(), this.clone()));
            Self { process, router, inbox, own_parts: Rc::default(), owed: RefCell::default() }
        })
    }
}

impl Upcalls for Outbound {
    fn link(&self, link: LinkId, event: LinkEvent) {
        self.router.told(link, event);
        if event == LinkEvent::Up {
            self.pay();
        }
    }

    fn announce(&self, via: LinkId, db: u32, said: Vec<(Key, Say)>) {
        self.say(via, db, said);
    }

    fn owe(&self, keys: Vec<Key>) {
        Outbound::owe(self, keys.into_iter());
    }

    fn refresh(&self, key: &[u8], wanted: &Wanted) {
        refresh(&self.inbox, &self.router, key, wanted);
    }
}

impl Outbound {
    /// Announces what is said of these keys of the database: on the link of this number, if it is a shared one of
    /// nearside's own, so that they come behind their write; else on another of nearside's own.
    pub fn say(&self, via: LinkId, db: u32, said: Vec<(Key, Say)>) {
        if said.is_empty() {
            return;
        }
        if let Some(link) = Some(via).filter(|via| *via != NO_LINK).and_then(|via| self.router.link_of(via)) {
            return self.say_on(&link, db, said);
        }
        let topology = self.process.topology();
        for node in topology.nodes() {
            let theirs: Vec<_> = match topology.is_single() {
                true => said.clone(),
                false => said.iter().filter(|(key, _)| topology.owner(key).id == node.id).cloned().collect(),
            };
            if !theirs.is_empty() {
                self.say_on(&self.link_of(node, db), db, theirs);
            }
        }
    }

    /// Nearside's own, in that database of the node.
    fn link_of(&self, node: &Arc<Node>, db: u32) -> Link {
        let key = self.router.default_key(Protocol::Resp2);
        let ident = Ident { db, ..key.ident };
        self.router.link(&LinkKey { node: node.clone(), ident, login: key.login })
    }

    fn say_on(&self, link: &Link, db: u32, said: Vec<(Key, Say)>) {
        let (process, handler, mut out) = (&self.process, link.client(), BytesMut::new());
        let mut keys = VecDeque::with_capacity(said.len());
        for (key, say) in said {
            let say = if say == Say::Look && !handler.may_look() { Say::Delete } else { say };
            if write_announcement(&mut out, process, &key, say) {
                process.cache.expect_echo(&key, handler.id);
                keys.push_back((key, say));
            }
        }
        process.metrics.announcements.add(keys.len() as u64);
        let request = InFlight { since: process.now(), pending: Pending::Said(Box::new(Said { keys, db })) };
        if let Err((request, _)) = link.send(|to| to.append(out.freeze()), request)
            && let Pending::Said(said) = request.pending
        {
            let now = process.now();
            said.keys.iter().for_each(|(key, _)| process.cache.no_echo(key, now));
            self.owe(said.keys.into_iter().map(|(key, _)| key));
        }
    }

    /// These keys may have been written, and nothing was said of them.
    pub fn owe(&self, keys: impl Iterator<Item = Key>) {
        let mut owed = self.owed.borrow_mut();
        for key in keys.filter(|key| self.process.namespaces.find(key).is_some()) {
            self.process.metrics.announcements_owed.inc();
            if owed.len() == MAX_OWED {
                owed.pop_front();
                self.process.metrics.announcements_failed.inc();
            }
            owed.push_back(key);
        }
        drop(owed);
        self.pay();
    }

    /// Says what is owed, if nearside's own links stand.
    pub fn pay(&self) {
        if self.owed.borrow().is_empty() {
            return;
        }
        let (topology, db) = (self.process.topology(), self.process.settings.db);
        for node in topology.nodes() {
            let link = self.link_of(node, db);
            if !link.is_up() {
                continue;
            }
            let theirs = |key: &Key| topology.is_single() || topology.owner(key).id == node.id;
            let (paid, left) = std::mem::take(&mut *self.owed.borrow_mut()).into_iter().partition(theirs);
            *self.owed.borrow_mut() = left;
            let paid: VecDeque<Key> = paid;
            if !paid.is_empty() {
                self.say_on(&link, db, paid.into_iter().map(|key| (key, Say::Delete)).collect());
            }
        }
    }
}
