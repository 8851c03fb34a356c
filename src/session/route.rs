//! Which of an identity's links a request goes on: the first, or while that is stuck a spare one.
//!
//! Invariants:
//! - An identity has at most one spare link on a worker. It is tracked, asked for life signs and counted like the first,
//!   and closed when it was not used for a while.
//! - A session changes its link only while nothing of it is open on one ([`Core::settle`](super::core::Core)), so its
//!   order is kept. What two links answer about one key is kept in order by the cache, as for two workers: a reply read
//!   past it drops what was read before on another link, and of one name only one flight stands.
//! - While the server pauses writes, one of them is stuck at the front. Others queue behind it, and not on the spare
//!   link: that is for the reads. If it is a script that does not end, the server answers everything with `-BUSY`, so
//!   they go there and are told.

use std::cell::Cell;
use std::rc::Rc;

use tokio::time::Instant;

use super::expect::Pending;
use super::heart::ping;
use super::idents::Ident;
use super::peer::LinkHandler;
use super::worker::{SharedLink, UNUSED, Worker};
use crate::cache::{EntryKey, IdentId, Micros};
use crate::upstream::{Link, Login};

impl Worker {
    /// All shared links, spare ones too.
    pub(super) fn shared_links(&self) -> Vec<(IdentId, Link<LinkHandler>)> {
        let (links, spares) = (self.links.borrow(), self.spares.borrow());
        links.iter().chain(&*spares).map(|known| (known.ident, known.link.clone())).collect()
    }

    /// The link on which a session that has nothing open sends next. `None` if that is not known yet: a spare link has to be
    /// made, and behind a write that is stuck, another is paused like it, unless the server is busy with a script; then it says so on a link of which
    /// nothing is stuck.
    pub(super) fn route(
        self: &Rc<Self>,
        ident: &Ident,
        login: &Option<Login>,
        writes: bool,
        now: Micros,
    ) -> Option<Link<LinkHandler>> {
        let first = self.link(ident, login);
        if !is_stuck(&first, now) {
            return Some(first);
        }
        let Some(spare) = self.spare_link(ident, login) else { return Some(first) };
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
                    self.ask_whether_busy(&spare, now);
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

    fn ask_whether_busy(&self, spare: &Link<LinkHandler>, now: Micros) {
        if spare.client().pings.oldest().is_none() {
            ping(spare, now);
        }
    }

    /// Whether a write must not go on `link`, a spare one, because it would be paused there.
    pub(super) fn keeps_writes_off(&self, ident: IdentId, link: &Link<LinkHandler>, now: Micros) -> bool {
        let number = |link: &Link<LinkHandler>| link.client().number;
        let is_spare = self.spares.borrow().iter().any(|spare| number(&spare.link) == number(link));
        let first = self.known_link(ident).filter(|_| is_spare);
        first.is_some_and(|first| is_stuck(&first, now) && first.client().front.is_write())
    }

    fn spare_link(self: &Rc<Self>, ident: &Ident, login: &Option<Login>) -> Option<Link<LinkHandler>> {
        let number = self.shared.idents.number(ident);
        let mut spares = self.spares.borrow_mut();
        if let Some(known) = spares.iter().find(|spare| spare.ident == number && spare.login == *login) {
            known.used.set(Instant::now());
            return Some(known.link.clone());
        }
        if spares.len() >= self.shared.settings.max_links {
            return None;
        }
        let link = self.new_link(ident, login);
        link.client().front.pass();
        let used = Cell::new(Instant::now());
        spares.push(SharedLink { ident: number, login: login.clone(), link: link.clone(), used });
        drop(spares);
        self.shared.metrics.spare_links.inc();
        link.reconnect();
        Some(link)
    }

    /// Lets go those who wait for a read that is stuck behind the front of `link`. For the front itself they wait on: it
    /// is what the server is working at, and they would make it do that once more.
    pub(super) fn let_go(&self, link: &Link<LinkHandler>, now: Micros) {
        if !link.client().front.lets_go(now) {
            return;
        }
        let front = link.with_front(|expect| match &expect.pending {
            Pending::Fill(fill) => fill.name().map(|name| vec![owned(&name)]).unwrap_or_default(),
            Pending::MgetAssembly(gather) => gather.names().map(|name| owned(&name)).collect(),
            _ => Vec::new(),
        });
        let front = front.unwrap_or_default();
        let is_front = |name: &EntryKey<'_>| front.iter().any(|known| known.borrow() == *name);
        self.shared.cache.let_go(link.client().number, is_front);
    }

    /// Likewise of all links whose sessions have another way to go.
    pub(super) fn let_go_of_stuck(&self, now: Micros) {
        let links = self.shared_links();
        for (ident, link) in links.iter().filter(|(_, link)| is_stuck(link, now)) {
            let number = link.client().number;
            let mut others =
                links.iter().filter(|(of, other)| of == ident && other.client().number != number);
            if others.all(|(_, other)| !is_stuck(other, now)) {
                self.let_go(link, now);
            }
        }
    }

    /// Closes spare links that were not used for a while, though idle sessions still hold them.
    pub(super) fn drop_unused_spares(&self) {
        let links = self.links.borrow();
        let unused = |spare: &mut SharedLink| {
            let in_flight = spare.link.in_flight() > 0;
            if in_flight {
                spare.used.set(Instant::now());
            }
            let alone = !links.iter().any(|first| first.ident == spare.ident && first.login == spare.login);
            spare.used.get().elapsed() > UNUSED || alone && !in_flight
        };
        let unused: Vec<_> = self.spares.borrow_mut().extract_if(.., unused).collect();
        drop(links);
        unused.iter().for_each(|spare| spare.link.close("it was not used for a while"));
    }
}

fn owned(name: &EntryKey<'_>) -> crate::cache::EntryKeyBuf {
    crate::cache::EntryKeyBuf::new(name)
}

/// Not while it connects: that is no reason to make another connection.
fn is_stuck(link: &Link<LinkHandler>, now: Micros) -> bool {
    link.client().front.is_stuck(now) && link.is_up()
}
