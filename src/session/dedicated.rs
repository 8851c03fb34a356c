//! A session whose state lives on the server: it has a connection of its own until that state is gone.
//!
//! Invariants:
//! - Every request of the session goes to that connection, so the server sees them in order. Reads go past
//!   the cache; writes take their fences and make their announcements all the same. A transaction's are
//!   taken and made with its `EXEC`.
//! - The connection is used again only if nothing of the session is left on it; else it is closed.
//! - What keeps the session here is what the server has accepted: its [`Phase`], and its [`State`].

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context as Task;

use super::errand::Errand;
use super::moving::Moving;
use super::phase::Phase;
use super::pinned::Pinned;
use super::redirect::Lead;
use super::tunnel::Said;
use super::waits::Waits;
use crate::command::{Kind, Local, Row};
use crate::pending::{Became, DEBUG, Link, Pending, Pushes, State, Transaction, send};
use crate::process::{Alone, Node};
use crate::reply::{ReplyQueue, ReplySlot};
use crate::request::Context;
use crate::request::write::announce_later;
use crate::resp::encode;
use crate::router::LinkKey;

/// See the [module](self).
pub struct Dedicated {
    pub(super) link: Link,
    /// The open transaction.
    pub(super) transaction: Option<Rc<RefCell<Transaction>>>,
    /// All else that is left on the connection.
    pub(super) state: Rc<State>,
    pub(super) waits: Waits,
    /// A `MONITOR` was sent, and what came before the next request is not looked at yet.
    pub(super) is_to_monitor: bool,
    /// What a tunnel would have to say again.
    pub(super) said: Said,
    /// It is for one [`Kind::Aside`] alone, and of this identity.
    aside: Option<LinkKey>,
    alone: Alone,
    /// Where the session's tracking leads, if that is another session.
    lead: Option<Lead>,
    /// The place of the reply to what is sent next, where that is sent again.
    pub(super) again: Option<ReplySlot>,
    /// In front of a cluster: what may have to be sent again, to another node.
    pub(super) errand: Option<Box<Errand>>,
    /// Likewise the open transaction, or the one whose `EXEC` is not answered.
    pub(super) pinned: Option<Box<Pinned>>,
    /// Connections for subscriptions, each to another node.
    pub(super) hears: Vec<Link>,
    /// Shard channels that are to be heard elsewhere.
    pub(super) moving: Vec<Moving>,
    /// The hash slot of what is watched.
    pub(super) watched: Option<u16>,
}

impl Dedicated {
    /// Of the session with this context; `aside` if it is for one [`Kind::Aside`] alone, on a connection of that identity.
    pub fn new(cx: &Context, aside: Option<LinkKey>) -> Self {
        let link = cx.outbound.router.dedicated(aside.as_ref().unwrap_or(&cx.key), cx.owner());
        Self { aside, ..Self::on(cx, link) }
    }

    /// To this node.
    pub(super) fn to(cx: &Context, node: Arc<Node>) -> Self {
        let link = cx.outbound.router.dedicated(&LinkKey { node, ..cx.key.clone() }, cx.owner());
        Self::on(cx, link)
    }

    fn on(cx: &Context, link: Link) -> Self {
        Self {
            alone: Alone::new(&cx.client, link.client().node.id, link.client().upstream_id()),
            lead: None,
            link,
            transaction: None,
            state: Rc::default(),
            waits: Waits::default(),
            is_to_monitor: false,
            said: Said::default(),
            aside: None,
            again: None,
            errand: None,
            pinned: None,
            hears: Vec::new(),
            moving: Vec::new(),
            watched: None,
        }
    }

    /// Lets others know what its connection is called.
    pub(super) fn is_here(&self, cx: &Context) {
        let handler = self.link.client();
        cx.client.is_on(handler.node.id, handler.upstream_id());
    }

    /// Where what depends on no other connection is said.
    pub fn link(&self) -> &Link {
        match self.phase() {
            // Where the server knows of it.
            Phase::Subscriber => self.subscriber(),
            _ => &self.link,
        }
    }

    pub(super) fn pushes(&self) -> &Pushes {
        &self.link.client().pushes
    }

    pub(super) fn phase(&self) -> Phase {
        let pushes = self.pushes();
        match () {
            () if self.aside.is_some() => Phase::Aside,
            () if self.transaction.is_some() => Phase::Transaction,
            () if pushes.is_raw() => Phase::Monitor,
            () if self.any(Pushes::is_restricted) => Phase::Subscriber,
            () if self.any(Pushes::is_subscribed) => Phase::Listener,
            () => Phase::Plain,
        }
    }

    /// A connection on which the server knows of a subscription.
    pub(super) fn subscriber(&self) -> &Link {
        let all = std::iter::once(&self.link).chain(&self.hears);
        all.into_iter().find(|link| link.client().pushes.is_subscribed()).unwrap_or(&self.link)
    }

    /// Whether it is so of any of the connections.
    fn any(&self, is: impl Fn(&Pushes) -> bool) -> bool {
        is(self.pushes()) || self.hears.iter().any(|link| is(&link.client().pushes))
    }

    /// Whether any connection holds state of the session.
    pub fn has_state(&self) -> bool {
        let subscribed = |link: &Link| link.client().pushes.is_subscribed();
        self.holds_state() || self.hears.iter().any(subscribed) || !self.moving.is_empty()
    }

    /// Whether the one does that is for all but subscriptions.
    pub(super) fn holds_state(&self) -> bool {
        let pushes = self.pushes();
        let is_told = self.transaction.is_some() || pushes.is_raw() || pushes.is_subscribed();
        is_told || self.state.holds() || self.alone.is_target()
    }

    /// The session's tracking leads there from now on.
    pub fn lead(&mut self, lead: Lead) {
        self.lead = Some(lead);
    }

    /// Whether nothing of the session is left here.
    pub fn is_idle(&mut self, cx: &Context) -> bool {
        if self.link.in_flight() == 0 {
            self.drop_refused(cx);
        }
        !self.has_state() && self.is_still()
    }

    /// Whether all that was written here is carried out. If not, the session is woken when it is: what comes next may go
    /// another way.
    pub fn is_done(&self) -> bool {
        self.phase() == Phase::Monitor || self.is_still()
    }

    /// Whether nothing is in flight here.
    pub(super) fn is_still(&self) -> bool {
        self.link.in_flight() == 0 && self.hears.iter().all(|link| link.in_flight() == 0)
    }

    /// Whether state of the session is lost with its connection.
    pub fn is_lost(&self, queue: &ReplyQueue) -> bool {
        let subscribed = |link: &Link| link.client().pushes.is_subscribed() && !link.is_up();
        if self.hears.iter().any(subscribed) {
            return true;
        }
        // What the session has told nobody of yet is not lost, nor what was not carried out and is sent again.
        let is_at_hand = self.link.client().astray.is_held()
            || self.pinned.as_ref().is_some_and(|pinned| pinned.is_at_hand());
        // Of several connections another may be meant.
        let is_meant = self.hears.is_empty() || !self.link.is_up();
        queue.link_is_lost() && is_meant && !is_at_hand && self.holds_state()
    }

    /// Whether all that was written is on its way; if not, the session is woken.
    pub(super) fn is_flushed(&self, task: &mut Task<'_>) -> bool {
        self.link.is_flushed(task) && self.hears.iter().all(|link| link.is_flushed(task))
    }

    /// Forgets a transaction that the server has refused: whatever came behind its `MULTI` is done.
    pub(super) fn drop_refused(&mut self, cx: &Context) {
        if self.pinned.as_ref().is_some_and(|pinned| pinned.is_told()) {
            // The client takes it for open.
            return;
        }
        let refused = |transaction: &Rc<RefCell<Transaction>>| transaction.borrow().refused.is_some();
        if let Some(transaction) = self.transaction.take_if(|transaction| refused(transaction)) {
            self.link.client().bar_login(false);
            let write_set = std::mem::take(&mut transaction.borrow_mut().write_set);
            announce_later(write_set, cx, self.db(cx));
        }
    }

    /// What was said here that a tunnel has to begin with.
    pub fn said(&self) -> Said {
        self.said.clone()
    }

    /// Who the session has become here.
    pub fn became(&self) -> Became {
        self.state.became()
    }

    /// Gives the connection to the next session, if it is fit for that.
    pub fn end(self, cx: &Context) {
        if self.pushes().is_clean() && self.state.is_clean() {
            let key = LinkKey { node: self.link.client().node.clone(), ..cx.key.clone() };
            cx.outbound.router.give_back(self.aside.as_ref().unwrap_or(&key), self.link);
        }
    }

    /// Whether such a command is answered by nearside even now.
    pub fn answers_here(&self, local: Local) -> bool {
        let phase = self.phase();
        let free = phase.is_free();
        match local {
            Local::Quit | Local::Http | Local::Reset => true,
            Local::Hello | Local::Auth | Local::Select => false,
            // That a subscriber may not say it is the upstream's to tell.
            Local::ClientReply => free || phase == Phase::Subscriber,
            Local::ClientGetName | Local::ClientSetName => free && !self.state.is_named(),
            Local::ClientId | Local::ClientSetInfo | Local::Nearside => free,
            Local::ClientInfo | Local::ClientList | Local::ClientKill => free,
        }
    }

    /// What is asked about clients where nearside cannot answer the upstream answers as it can. `muted` if the client wants
    /// no reply.
    pub fn kind_here(&self, row: Option<&Row>, kind: Kind, muted: bool) -> Kind {
        let plain = || !muted && !matches!(self.phase(), Phase::Transaction | Phase::Subscriber);
        match kind {
            // The debugger answers it, and speaks to the client until its end.
            Kind::Plain if self.state.may_have(DEBUG) && plain() && row.is_some_and(is_script) => {
                Kind::Tunnel
            }
            Kind::Tunnel if !plain() => Kind::Connection,
            Kind::Local(local) if local.is_about_clients() && !self.answers_here(local) => Kind::Plain,
            kind => kind,
        }
    }

    /// Whether such a command has to wait for the replies before it: what it does, and how many replies it has,
    /// depends on whether the server has taken the `MULTI`, or the `MONITOR`; or on whether the connection is still subscribed.
    pub fn holds_back(&self, kind: Kind) -> bool {
        if self.is_to_monitor {
            return true;
        }
        if matches!(kind, Kind::Local(_)) || self.phase() == Phase::Aside {
            return true;
        }
        let unsure = |transaction: &Rc<RefCell<Transaction>>| !transaction.borrow().answered;
        let odd = !matches!(kind, Kind::Plain | Kind::Exec | Kind::Discard | Kind::Multi);
        odd && self.transaction.as_ref().is_some_and(unsure)
    }

    /// Tells the server what the session is called, for what it will say itself.
    pub(super) fn tell_name(&mut self, cx: &Context) {
        if self.state.is_named() || !self.link.client().call(&cx.name) {
            return;
        }
        let command: [&[u8]; 3] = [b"CLIENT", b"SETNAME", &cx.name];
        send(&self.link, cx.now, |out| out.with(|tail| encode::command(tail, &command)), Pending::Name);
    }

    /// The database that the session is in here.
    pub fn db(&self, cx: &Context) -> u32 {
        self.state.became().ident(&cx.key.ident).db
    }
}

fn is_script(row: &Row) -> bool {
    matches!(&*row.name, "eval" | "evalsha" | "eval_ro" | "evalsha_ro")
}
