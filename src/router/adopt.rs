//! How links come among those that are shared, and how they leave.
//!
//! Invariants: for a link beyond `max-links`, the idle one that was least lately used is closed, with what was read on it. A
//! session that still holds that one goes to another when it next says something. Those of a session that has changed nothing
//! are always kept.

use std::cell::Cell;

use tokio::time::Instant;
use tracing::warn;

use super::arm::arm;
use super::key::LinkKey;
use super::links::{Router, SharedLink, UNUSED};
use crate::cache::{IdentId, LinkId};
use crate::pending::Link;
use crate::process::NodeId;
use crate::resp::Protocol;

/// How many links of an identity may be open still that were left.
pub(super) const MAX_REPLACED: usize = 8;

impl Router {
    /// Makes `link` the one that sessions of this identity and login share from now on. Those that have another go to it when
    /// nothing is expected on theirs, which is closed then.
    pub(super) fn adopt(&self, ident: IdentId, key: &LinkKey, link: &Link) {
        let mut links = self.links.borrow_mut();
        if links.iter().any(|known| known.is(ident, key) && known.link.is(link)) {
            return;
        }
        let before: Vec<_> = links.extract_if(.., |known| known.is(ident, key)).collect();
        let used = Cell::new(Instant::now());
        let (node, login) = (key.node.id, key.login.clone());
        links.push(SharedLink { node, ident, login, link: link.clone(), used });
        drop(links);
        for before in before {
            before.link.client().be_replaced();
            if before.link.is_up() {
                self.is_left(before);
            }
        }
        self.keep_to_bound(Some(link));
        if link.is_up() {
            arm(link);
        }
    }

    /// Makes another link in the place of this one. A spare one is made anew when it is wanted.
    pub(super) fn leave_link(&self, id: LinkId) {
        let is = |known: &SharedLink| known.link.client().id == id;
        let spare = self.spares.borrow_mut().extract_if(.., |known| is(known)).next();
        if let Some(spare) = spare {
            spare.link.client().be_replaced();
            return self.is_left(spare);
        }
        let Some(key) = self.key_of(id) else { return };
        let (ident, another) = (self.process.idents.number(&key.ident), self.new_link(&key));
        self.adopt(ident, &key, &another);
        another.reconnect();
        let mut replaced = self.replaced.borrow_mut();
        let is = |left: &SharedLink| left.node == key.node.id && left.ident == ident;
        let of_it = replaced.iter().filter(|left| is(left)).count();
        let oldest = replaced.iter().position(|left| is(left) && of_it > MAX_REPLACED);
        let oldest = oldest.map(|i| replaced.remove(i));
        drop(replaced);
        if let Some(oldest) = oldest {
            oldest.link.close("others have taken its place again and again, and it has not answered all");
        }
    }

    /// The node is none any more: its links are made anew by nobody, and end when all is answered that was asked there.
    pub fn leave_node(&self, node: NodeId) {
        let mut of_it: Vec<_> = self.links.borrow_mut().extract_if(.., |known| known.node == node).collect();
        of_it.extend(self.spares.borrow_mut().extract_if(.., |known| known.node == node));
        for left in of_it {
            left.link.client().be_replaced();
            if left.link.is_up() {
                self.is_left(left);
            }
        }
        self.wake_undecided();
    }

    /// Whose the shared link of this number is.
    pub(super) fn key_of(&self, id: LinkId) -> Option<LinkKey> {
        let links = self.links.borrow();
        let known = links.iter().find(|known| known.link.client().id == id)?;
        let ident = self.process.idents.get(known.ident)?;
        Some(LinkKey { node: known.link.client().node.clone(), ident, login: known.login.clone() })
    }

    /// The identities of sessions that have changed nothing.
    fn defaults(&self) -> [Option<IdentId>; 2] {
        [Protocol::Resp2, Protocol::Resp3]
            .map(|protocol| self.process.idents.known(&self.default_key(protocol).ident))
    }

    /// Closes idle links while there are too many, the newest aside: those that no session holds first.
    fn keep_to_bound(&self, newest: Option<&Link>) {
        let max = self.process.settings.max_links.get();
        if self.links.borrow().len() <= max {
            return;
        }
        let (defaults, mut closed) = (self.defaults(), Vec::new());
        let mut links = self.links.borrow_mut();
        while links.len() > max {
            let idle = links.iter().enumerate().filter(|(_, known)| {
                !known.link.awaits(|request| !request.pending.is_of_the_link())
                    && !newest.is_some_and(|newest| known.link.is(newest))
                    && !defaults.contains(&Some(known.ident))
            });
            let first = idle.min_by_key(|(_, known)| (known.link.is_shared(), known.used.get()));
            let Some((i, _)) = first else { break };
            closed.push(links.swap_remove(i).link);
        }
        drop(links);
        for link in closed {
            self.process.metrics.links_closed.inc();
            if let Some(untold) = self.process.metrics.links_closed_told.now() {
                warn!(
                    max,
                    untold,
                    "more users and databases than max-links are in use: the idle connection that was least lately \
                     used is closed, with what was cached by it; raise max-links"
                );
            }
            // It is none of the shared ones any more, so nobody makes it anew.
            link.client().be_replaced();
            link.client().leave_place();
            link.close("it was idle, and max-links are in use");
        }
    }

    /// Closes links that nobody uses.
    pub(super) fn drop_unused(&self) {
        self.trying.borrow_mut().drop_unused();
        self.keep_to_bound(None);
        let expired = self.pool.borrow_mut().expired();
        drop(expired);
        let default = self.process.idents.number(&self.default_key(Protocol::Resp2).ident);
        let mut unused = Vec::new();
        let mut links = self.links.borrow_mut();
        for i in (0..links.len()).rev() {
            let known = &links[i];
            if known.link.is_shared() || known.link.in_flight() > 0 {
                known.used.set(Instant::now());
            } else if known.ident != default && known.used.get().elapsed() > UNUSED {
                unused.push(links.swap_remove(i));
            }
        }
        drop(links);
        self.drop_unused_spares();
    }

    /// Closes spare links that were not used for a while, though idle sessions still hold them.
    fn drop_unused_spares(&self) {
        let links = self.links.borrow();
        let unused = |spare: &mut SharedLink| {
            let in_flight = spare.link.in_flight() > 0;
            if in_flight {
                spare.used.set(Instant::now());
            }
            let alone = !links.iter().any(|first| first.is_as(spare));
            spare.used.get().elapsed() > UNUSED || alone && !in_flight
        };
        let unused: Vec<_> = self.spares.borrow_mut().extract_if(.., unused).collect();
        drop(links);
        unused.iter().for_each(|spare| spare.link.close("it was not used for a while"));
    }
}
