//! Which of an identity's links a request goes on: the first, or while that is stuck a spare one.
//!
//! Invariants:
//! - An identity has at most one spare link on a worker. It is tracked, asked for life signs and counted like the first,
//!   and closed when it was not used for a while.
//! - A session changes its link only while nothing of it is open on one (the session sees to that), so its
//!   order is kept. What two links answer about one key is kept in order by the cache, as for two workers: a reply read
//!   past it drops what was read before on another link, and of one name only one flight stands.
//! - While the server pauses writes, one of them is stuck at the front. Others queue behind it, and not on the spare
//!   link: that is for the reads. If it is a script that does not end, the server answers everything with `-BUSY`, so
//!   they go there and are told.

use std::cell::Cell;

use tokio::time::Instant;

use super::key::LinkKey;
use super::links::{Router, SharedLink};
use super::ping::ping;
use crate::cache::{EntryKey, EntryKeyBuf, IdentId, Micros};
use crate::pending::{Link, Pending};

impl Router {
    /// The link on which a session that has nothing open sends next. `None` if that is not known yet: a spare link has to be
    /// made, and behind a write that is stuck, another is paused like it, unless the server is busy with a script; then it says so on a link of which
    /// nothing is stuck.
    pub fn route(&self, key: &LinkKey, writes: bool, now: Micros) -> Option<Link> {
        let first = self.link(key);
        if !is_stuck(&first, now) {
            return Some(first);
        }
        let Some(spare) = self.spare_link(key) else { return Some(first) };
        if spare.is_down() && !spare.is_refused() {
            // There are no connections to be had: better late than never.
            spare.reconnect();
            return Some(first);
        }
        if !spare.is_refused() && !spare.client().front.is_ready() {
            return None;
        }
        if writes && first.client().front.is_write() && !spare.is_refused() {
            return match spare.client().front.is_busy(now) {
                Some(true) => Some(spare),
                Some(false) => Some(first),
                None => {
                    ask_whether_busy(&spare, now);
                    None
                }
            };
        }
        if is_stuck(&spare, now) && (!first.client().front.is_write() || spare.client().front.is_write()) {
            return Some(first);
        }
        if !is_stuck(&spare, now) {
            self.let_go(&first, now);
        }
        Some(spare)
    }

    /// Whether a write must not go on `link`, a spare one, because it would be paused there.
    pub fn keeps_writes_off(&self, ident: IdentId, link: &Link, now: Micros) -> bool {
        let is_spare = self.spares.borrow().iter().any(|spare| spare.link.is(link));
        let first = self.known_link(link.client().node.id, ident).filter(|_| is_spare);
        first.is_some_and(|first| is_stuck(&first, now) && first.client().front.is_write())
    }

    fn spare_link(&self, key: &LinkKey) -> Option<Link> {
        let ident = self.process.idents.number(&key.ident);
        let mut spares = self.spares.borrow_mut();
        if let Some(known) = spares.iter().find(|spare| spare.is(ident, key)) {
            known.used.set(Instant::now());
            return Some(known.link.clone());
        }
        if spares.len() >= self.process.settings.max_links.get() {
            return None;
        }
        let link = self.new_link(key);
        link.client().front.pass();
        let used = Cell::new(Instant::now());
        let (node, login) = (key.node.id, key.login.clone());
        spares.push(SharedLink { node, ident, login, link: link.clone(), used });
        drop(spares);
        self.process.metrics.spare_links.inc();
        link.reconnect();
        Some(link)
    }

    /// Lets go those who wait for a read that is stuck behind the front of `link`. For the front itself they wait on: it
    /// is what the server is working at, and they would make it do that once more.
    fn let_go(&self, link: &Link, now: Micros) {
        if !link.client().front.lets_go(now) {
            return;
        }
        let front = link.with_front(|request| match &request.pending {
            Pending::Fill(fill) => fill.name().map(|name| vec![EntryKeyBuf::new(&name)]).unwrap_or_default(),
            Pending::MgetAssembly(assembly) => assembly.names().map(|name| EntryKeyBuf::new(&name)).collect(),
            _ => Vec::new(),
        });
        let front = front.unwrap_or_default();
        let is_front = |name: &EntryKey<'_>| front.iter().any(|known| known.borrow() == *name);
        self.process.cache.let_go(link.client().id, is_front);
    }

    /// Likewise of all links whose sessions have another way to go.
    pub(super) fn let_go_of_stuck(&self, now: Micros) {
        let links = self.shared_links();
        for (node, ident, link) in links.iter().filter(|(_, _, link)| is_stuck(link, now)) {
            let mut others =
                links.iter().filter(|(to, of, other)| (to, of) == (node, ident) && !other.is(link));
            if others.all(|(_, _, other)| !is_stuck(other, now)) {
                self.let_go(link, now);
            }
        }
    }
}
fn ask_whether_busy(spare: &Link, now: Micros) {
    if spare.client().pings.oldest().is_none() {
        ping(spare, now);
    }
}

/// Not while it connects: that is no reason to make another connection.
fn is_stuck(link: &Link, now: Micros) -> bool {
    link.client().front.is_stuck(now) && link.is_up()
}
