//! The links that sessions share: one for each identity in use on the worker.
//!
//! Invariants:
//! - An identity has a number, a link among these and a place for its coverage only once the upstream has taken it. What
//!   it refuses (a database that does not exist, a login) takes nothing.
//! - They are at most `max-links`, those aside on which a reply is awaited: for a new one, the idle one that was least
//!   lately used is closed, with what was read on it. A session that still holds that one goes to another when it next
//!   says something. Those of a session that has changed nothing are always kept.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::rc::Rc;

use lru::LruCache;
use tokio::time::Instant;
use tracing::warn;

use super::idents::Ident;
use super::peer::LinkHandler;
use super::worker::{SharedLink, UNUSED, Worker};
use crate::cache::{IdentId, LinkId};
use crate::resp::Protocol;
use crate::upstream::{Link, Login};

/// Identities that are tried at a time, or were just refused. One that was is not tried again before its link's delay is
/// over.
const MAX_TRIED: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// How many links of an identity may be open still that were left.
const MAX_REPLACED: usize = 8;

/// Links of identities that the upstream has not taken yet.
pub(super) struct Trying(LruCache<Ident, (Option<Login>, Link<LinkHandler>)>);

impl Default for Trying {
    fn default() -> Self {
        Self(LruCache::new(MAX_TRIED))
    }
}

impl Trying {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whoever waits for one is to go to another link then.
    fn be_replaced(&mut self) {
        self.0.iter().for_each(|(_, (_, link))| link.client().be_replaced());
        self.0.clear();
    }

    fn get(&mut self, ident: &Ident, login: &Option<Login>) -> Option<Link<LinkHandler>> {
        self.0.get(ident).filter(|(known, _)| known == login).map(|(_, link)| link.clone())
    }

    fn forget(&mut self, link: &Link<LinkHandler>) {
        let known = self.0.iter().find(|(_, (_, known))| known.is(link)).map(|(ident, _)| ident.clone());
        known.and_then(|ident| self.0.pop(&ident));
    }

    /// Closes those that stand though nobody waits for that any more.
    fn drop_unused(&mut self) {
        let unused = self.0.iter().filter(|(_, (_, link))| link.is_up() && !link.is_shared());
        for ident in unused.map(|(ident, _)| ident.clone()).collect::<Vec<_>>() {
            self.0.pop(&ident);
        }
    }
}

impl Worker {
    /// The shared link of an identity that the upstream has taken: this is the one place where the upstream of a request
    /// is chosen.
    pub(super) fn link(self: &Rc<Self>, ident: &Ident, login: &Option<Login>) -> Link<LinkHandler> {
        let number = self.shared.idents.number(ident);
        if let Some(link) = self.shared_link(number, login) {
            return link;
        }
        let link = self.new_link(ident, login);
        self.adopt(number, login, &link);
        link
    }

    /// The link on which it is found out whether the upstream takes an identity: its shared one if it has, else one that is
    /// nobody's yet, but that of all who ask for the same at the time.
    pub(super) fn candidate(self: &Rc<Self>, ident: &Ident, login: &Option<Login>) -> Link<LinkHandler> {
        let number = self.shared.idents.known(ident);
        if let Some(link) = number.and_then(|number| self.shared_link(number, login)) {
            return link;
        }
        let mut trying = self.trying.borrow_mut();
        if let Some(link) = trying.get(ident, login) {
            return link;
        }
        let link = self.new_link(ident, login);
        trying.0.put(ident.clone(), (login.clone(), link.clone()));
        link
    }

    /// The upstream has taken the identity, on this link: it is the identity's from now on, unless that has one that stands.
    pub(super) fn settle(&self, ident: &Ident, login: &Option<Login>, link: &Link<LinkHandler>) {
        self.trying.borrow_mut().forget(link);
        self.fresh.borrow_mut().retain(|fresh| !fresh.is(link));
        let number = self.shared.idents.number(ident);
        // One that was closed meanwhile for another is not taken back: the session goes to a new one.
        if !self.has_link(number, login) && !link.client().is_replaced() {
            self.adopt(number, login, link);
        }
    }

    fn shared_link(&self, ident: IdentId, login: &Option<Login>) -> Option<Link<LinkHandler>> {
        let links = self.links.borrow();
        let known = links.iter().find(|known| known.ident == ident && known.login == *login)?;
        known.used.set(Instant::now());
        Some(known.link.clone())
    }

    /// A shared link of an identity that is in use on this worker; if its user has several passwords, one that stands.
    pub(super) fn known_link(&self, ident: IdentId) -> Option<Link<LinkHandler>> {
        let links = self.links.borrow();
        let mut known = links.iter().filter(|known| known.ident == ident).map(|known| &known.link);
        let up = known.clone().find(|link| link.is_up());
        up.or_else(|| known.next()).cloned()
    }

    /// Whether the identity has a link that stands, with this login.
    pub(super) fn has_link(&self, ident: IdentId, login: &Option<Login>) -> bool {
        let is = |known: &SharedLink| known.ident == ident && known.login == *login && known.link.is_up();
        self.links.borrow().iter().any(is)
    }

    /// A shared link that nobody shares yet.
    pub(super) fn new_link(self: &Rc<Self>, ident: &Ident, login: &Option<Login>) -> Link<LinkHandler> {
        self.connect(LinkHandler::new(self, LinkId::next(), None, ident.protocol), ident, login)
    }

    /// Makes `link` the one that sessions of this identity and login share from now on. Those that have another go to it when
    /// nothing is expected on theirs, which is closed then.
    pub(super) fn adopt(&self, ident: IdentId, login: &Option<Login>, link: &Link<LinkHandler>) {
        let mut links = self.links.borrow_mut();
        let same = |known: &SharedLink| known.ident == ident && known.login == *login;
        if links.iter().any(|known| same(known) && known.link.is(link)) {
            return;
        }
        for before in links.extract_if(.., |known| same(known)) {
            before.link.client().be_replaced();
            if before.link.is_up() {
                self.replaced.borrow_mut().push((ident, before.link));
            }
        }
        let used = Cell::new(Instant::now());
        links.push(SharedLink { ident, login: login.clone(), link: link.clone(), used });
        drop(links);
        self.keep_to_bound(Some(link));
        if link.is_up() {
            self.arm(link);
        }
    }

    /// Makes another link in the place of this one. A spare one is made anew when it is wanted.
    pub(super) fn leave_link(self: &Rc<Self>, number: LinkId) {
        let is = |known: &SharedLink| known.link.client().number == number;
        let spare = self.spares.borrow_mut().extract_if(.., |known| is(known)).next();
        if let Some(spare) = spare {
            spare.link.client().be_replaced();
            return self.replaced.borrow_mut().push((spare.ident, spare.link));
        }
        let links = self.links.borrow();
        let known = links.iter().find(|known| is(known));
        let Some((ident, login)) = known.map(|known| (known.ident, known.login.clone())) else { return };
        drop(links);
        let Some(who) = self.shared.idents.get(ident) else { return };
        let another = self.new_link(&who, &login);
        self.adopt(ident, &login, &another);
        another.reconnect();
        let mut replaced = self.replaced.borrow_mut();
        let of_it = replaced.iter().filter(|(of, _)| *of == ident).count();
        let oldest = replaced.iter().position(|(of, _)| *of == ident && of_it > MAX_REPLACED);
        let oldest = oldest.map(|i| replaced.remove(i));
        drop(replaced);
        if let Some((_, link)) = oldest {
            link.close("others have taken its place again and again, and it has not answered all");
        }
    }

    /// Leaves all connections but those that hold state of a session, whenever the upstream is left.
    pub(super) async fn follow_role(self: &Rc<Self>) {
        let mut left = self.shared.role.left();
        while left.changed().await.is_ok() {
            let unused = std::mem::take(&mut *self.pool.borrow_mut());
            drop(unused);
            self.trying.borrow_mut().be_replaced();
            self.fresh.borrow_mut().drain(..).for_each(|fresh| fresh.be_replaced());
            let links = self.shared_links();
            // One that is down connects anew as it is.
            for (_, link) in links.iter().filter(|(_, link)| link.client().is_of_old() && !link.is_down()) {
                self.leave_link(link.client().number);
            }
        }
    }

    /// The identities of sessions that have changed nothing.
    fn defaults(&self) -> [Option<IdentId>; 2] {
        [Protocol::Resp2, Protocol::Resp3]
            .map(|protocol| self.shared.idents.known(&self.default_ident(protocol)))
    }

    /// Closes idle links while there are too many, the newest aside: those that no session holds first.
    fn keep_to_bound(&self, newest: Option<&Link<LinkHandler>>) {
        let max = self.shared.settings.max_links;
        if self.links.borrow().len() <= max {
            return;
        }
        let (defaults, mut closed) = (self.defaults(), Vec::new());
        let mut links = self.links.borrow_mut();
        while links.len() > max {
            let idle = links.iter().enumerate().filter(|(_, known)| {
                !known.link.awaits(|expect| !expect.pending.is_of_the_link())
                    && !newest.is_some_and(|newest| known.link.is(newest))
                    && !defaults.contains(&Some(known.ident))
            });
            let first = idle.min_by_key(|(_, known)| (known.link.is_shared(), known.used.get()));
            let Some((i, _)) = first else { break };
            closed.push(links.swap_remove(i).link);
        }
        drop(links);
        for link in closed {
            self.shared.metrics.links_closed.inc();
            if let Some(untold) = self.shared.metrics.links_closed_told.now() {
                warn!(
                    max,
                    untold,
                    "more users and databases than max-links are in use: the idle connection that was least lately \
                     used is closed, with what was cached by it"
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
        self.drop_expired();
        let default = self.shared.idents.number(&self.default_ident(Protocol::Resp2));
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
}
