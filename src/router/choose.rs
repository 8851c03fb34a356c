//! Which link is whose: the one place where the upstream of a request is chosen, and of a session that logs in or needs a
//! connection for itself.
//!
//! Invariants: `AUTH` of a user on a link of that user changes nothing there, whatever it says: accepted it is
//! who it was, and refused as well. So the other sessions on it are not touched. And a link that has just logged in is
//! the one that those with this login use from then on, unless the one that they have stands: a link that was refused
//! once (the user was deleted, say, and made anew) is no reason to refuse those whom the upstream lets in. Sessions
//! that gave another password of the same user keep links of their own: one of these may be the only right one soon.

use std::sync::Arc;

use tokio::time::Duration;

use super::key::LinkKey;
use super::links::Router;
use crate::cache::NO_LINK;
use crate::pending::{Link, Owner};
use crate::process::Node;
use crate::resp::Protocol;
use crate::upstream::Login;

/// A dedicated connection whose server takes no writes is made anew so often at most.
const RENEWED: Duration = Duration::from_secs(10);

impl Router {
    /// Of nearside's own login, to that node.
    pub fn own_link_to(&self, node: &Arc<Node>) -> Link {
        self.link(&LinkKey { node: node.clone(), ..self.default_key(Protocol::Resp2) })
    }

    /// The shared link of an identity that the upstream has taken.
    pub fn link(&self, key: &LinkKey) -> Link {
        let ident = self.process.idents.number(&key.ident);
        if let Some(link) = self.shared_link(ident, key) {
            return link;
        }
        let link = self.new_link(key);
        self.adopt(ident, key, &link);
        link
    }

    /// The link on which it is found out whether the upstream takes an identity: its shared one if it has, else one that is
    /// nobody's yet, but that of all who ask for the same at the time.
    pub fn candidate(&self, key: &LinkKey) -> Link {
        let ident = self.process.idents.known(&key.ident);
        if let Some(link) = ident.and_then(|ident| self.shared_link(ident, key)) {
            return link;
        }
        let mut trying = self.trying.borrow_mut();
        if let Some(link) = trying.get(key) {
            return link;
        }
        let link = self.new_link(key);
        trying.put(key, &link);
        link
    }

    /// The upstream has taken the identity, on this link: it is the identity's from now on, unless that has one that stands.
    pub fn settle(&self, key: &LinkKey, link: &Link) {
        self.trying.borrow_mut().forget(link);
        self.fresh.borrow_mut().forget(link);
        let ident = self.process.idents.number(&key.ident);
        // One that was closed meanwhile for another is not taken back: the session goes to a new one.
        if !self.has_link(ident, key) && !link.client().is_replaced() {
            self.adopt(ident, key, link);
        }
    }

    /// A link on which this login can be asked for: one of the same user that stands, or one that is logging in with
    /// the very same.
    pub fn link_to_ask(&self, key: &LinkKey) -> Option<Link> {
        let (links, own) = (self.links.borrow(), &self.process.settings.upstream.own);
        let user = |login: Option<&Login>| login.map_or(own.user(), Login::user).to_vec();
        let asked = user(key.login.as_ref());
        let mut known = links.iter().filter(|known| {
            // One without a login may not be logged in at all.
            (known.login.is_some() || own.logs_in())
                && known.node == key.node.id
                && user(known.login.as_ref()) == asked
                && known.link.is_up()
                && !known.link.client().is_silent()
        });
        let found = known.next().map(|known| known.link.clone());
        found.or_else(|| self.fresh.borrow_mut().get(key))
    }

    /// For a login that was accepted: the identity's link if it stands and has it; else one that logs in with it now.
    pub fn link_of_login(&self, key: &LinkKey) -> Link {
        let ident = self.process.idents.known(&key.ident);
        match ident.is_some_and(|ident| self.has_link(ident, key)) {
            true => self.link(key),
            false => self.fresh_link(key),
        }
    }

    /// A link that logs in with this login now.
    pub fn fresh_link(&self, key: &LinkKey) -> Link {
        let mut fresh = self.fresh.borrow_mut();
        if let Some(known) = fresh.get(key) {
            return known;
        }
        let link = self.new_link(key);
        fresh.put(key, &link);
        link
    }

    /// A connection for one session alone.
    pub fn dedicated(&self, key: &LinkKey, owner: Owner) -> Link {
        let of = (key.node.id, self.process.idents.number(&key.ident), key.login.clone());
        loop {
            let Some(link) = self.pool.borrow_mut().take(&of) else { break };
            if link.is_up() {
                link.client().own(owner);
                link.hand_over();
                return link;
            }
        }
        self.connect(NO_LINK, key, Some(owner))
    }

    /// Takes back a dedicated connection that holds no state of its session.
    pub fn give_back(&self, key: &LinkKey, link: Link) {
        // Where one leads whose server takes no writes, new ones may not, though the links and the feed are where they do.
        let handler = link.client();
        let is_wrong = || handler.node.role.leads_to_primary() || link.lived() >= RENEWED;
        let is_old = handler.is_of_old() || handler.is_readonly() && is_wrong();
        if link.is_up() && !is_old {
            handler.disown();
            let of = (key.node.id, self.process.idents.number(&key.ident), key.login.clone());
            let given_up = self.pool.borrow_mut().put(of, link);
            drop(given_up);
        }
    }
}
