//! Connections of a session's own in front of a cluster: to which node they lead, and what becomes of what a node refuses.
//!
//! Invariants:
//! - A connection that holds state of the session stays where it is. One that holds none leads to the node of the keys of
//!   what is said there.
//! - What needs no connection of the session's own goes on the links that all share, though the session has one.
//! - What goes another way than what was said before waits until that is answered. Outside of transactions one request at a
//!   time is under way on connections of the session's own.
//! - What a node refuses, or what could not be sent, goes to the node that has the slot then (see [`errand`](super::errand)).

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::command::{Command, again};
use super::dedicated::Dedicated;
use super::errand::Errand;
use super::phase::Phase;
use super::roam::{ASKING, give_up, refusal, slot_of};
use super::state::{Mode, Session};
use super::way::Own;
use crate::cache::Reason;
use crate::command::{Kind, Row, Table};
use crate::pending::{Held, Keeps, Pending, WATCH, barrier, send};
use crate::process::{Node, errors};
use crate::request::{Context, Raw};
use crate::resp::request::Request;

impl Dedicated {
    /// Why a read goes past the cache.
    fn past_the_cache(&self) -> Reason {
        match () {
            () if self.state.may_have(WATCH) => Reason::Watching,
            () if self.phase() == Phase::Listener => Reason::Subscribed,
            () => Reason::Dedicated,
        }
    }
}

impl Session {
    /// Where a request of a session that has connections of its own may go now; `None` if it has to wait. `is_plain`: it needs
    /// no connection of the session's own.
    pub(super) fn admit_own(
        &mut self,
        row: Option<&Row>,
        kind: Kind,
        request: &Request<'_>,
        is_plain: bool,
    ) -> Option<Own> {
        let idle = self.cx.queue.waiting() == 0;
        let Mode::Dedicated(dedicated) = &mut self.mode else { return None };
        if dedicated.is_moving() {
            return None;
        }
        match dedicated.phase() {
            Phase::Transaction => self.admit_queued(row, kind, request).then_some(Own::Alone),
            Phase::Plain | Phase::Listener if is_plain && dedicated.state.is_as_before() => {
                dedicated.is_still().then(|| Own::Shared(dedicated.past_the_cache()))
            }
            Phase::Monitor if !dedicated.holds_back(kind) || idle => Some(Own::Alone),
            _ => idle.then_some(Own::Alone),
        }
    }

    /// Carries a request out on a connection of the session's own.
    pub(super) fn on_own(&mut self, command: Command<'_>, raw: Raw<'_>) {
        let Command { row, kind, request } = command;
        let slot = slot_of(row, request);
        if let Mode::Shared = self.mode {
            match slot {
                // The first of a transaction that has keys decides.
                Some(slot) if kind != Kind::Multi => self.begin_own(slot),
                _ => self.mode = Mode::Dedicated(Box::new(Dedicated::new(&self.cx, None))),
            }
        }
        let Mode::Dedicated(dedicated) = &mut self.mode else { return };
        let is_open = dedicated.transaction.is_some();
        if is_open {
            return self.on_transaction(command, slot, raw);
        }
        (dedicated.pinned, dedicated.errand) = (None, None);
        dedicated.link.client().astray.keeps(Keeps::Nothing);
        if dedicated.phase() == Phase::Subscriber && !matches!(kind, Kind::Subscribe | Kind::Unsubscribe) {
            if let Some(row) = row.filter(|_| slot.is_some()) {
                // The server that knows of the subscriptions would say whose the key is first.
                return self.cx.queue.reply(&errors::line(&errors::subscribed(&row.name)));
            }
            // Whether that may be said is told by the server that knows of the subscriptions.
            let link = dedicated.subscriber().clone();
            link.client().astray.keeps(Keeps::Nothing);
            return self.cx.forward_on(&link, raw, Pending::Relay);
        }
        if let Some(refusal) = refusal(command, !dedicated.hears.is_empty()) {
            return self.cx.queue.reply(&errors::line(refusal));
        }
        match kind {
            Kind::Multi => self.multi(command, raw),
            Kind::Subscribe | Kind::Unsubscribe => self.subscribe(command, raw),
            Kind::Unwatch => {
                dedicated.link.client().astray.forget_watch();
                dedicated.execute(&self.cx, command, raw);
            }
            _ if slot.is_some() || row.is_none() => self.set_out(command, slot, raw),
            _ => dedicated.execute(&self.cx, command, raw),
        }
    }

    fn begin_own(&mut self, slot: u16) {
        let node = self.node_of(slot);
        self.mode = Mode::Dedicated(Box::new(Dedicated::to(&self.cx, node)));
    }

    /// Leads the connection to the node, if it holds nothing of the session. False if it stays elsewhere.
    fn roam(&mut self, node: Arc<Node>) -> bool {
        let Mode::Dedicated(dedicated) = &mut self.mode else { return false };
        if dedicated.link.client().node.id == node.id && !dedicated.link.is_down() {
            return true;
        }
        if dedicated.holds_state() {
            return false;
        }
        let became = dedicated.became();
        self.follow(became);
        let Mode::Dedicated(dedicated) = &mut self.mode else { return false };
        dedicated.go_to(&self.cx, node, true);
        true
    }

    /// Sends a request to the node of its keys, which may send it elsewhere.
    fn set_out(&mut self, command: Command<'_>, slot: Option<u16>, raw: Raw<'_>) {
        let node = slot.map(|slot| self.node_of(slot));
        if node.is_some_and(|node| !self.roam(node)) {
            // What the session has on a node binds it to that.
            return self.cx.queue.reply(&errors::line(errors::CROSS_SLOT));
        }
        let Mode::Dedicated(dedicated) = &mut self.mode else { return };
        let bytes = match raw {
            Raw::Copy(bytes) => Bytes::copy_from_slice(bytes),
            Raw::Own(bytes) => bytes,
        };
        let is_script = barrier(command.row, command.request).is_some();
        dedicated.errand = Some(Box::new(Errand::new(bytes.clone(), slot, is_script)));
        dedicated.go_out(&self.cx, command, slot, bytes);
    }

    /// Goes on with what a node has refused. Says whether anything was done.
    pub(super) fn poll_own(&mut self, table: &Table) -> bool {
        let Mode::Dedicated(dedicated) = &mut self.mode else { return false };
        if self.cx.queue.waiting() == 0 {
            // It is answered.
            dedicated.errand = None;
        }
        let (now, is_pinned) = (Instant::now(), dedicated.pinned.is_some());
        let done = self.poll_hearing(now, table);
        if is_pinned {
            return self.poll_pinned(table) || done;
        }
        let Mode::Dedicated(dedicated) = &mut self.mode else { return done };
        let Some(errand) = dedicated.errand.as_mut().filter(|errand| !errand.is_hearing) else { return done };
        if let Some((held, way)) = errand.waiting.take_if(|(_, way)| way.not_before <= now) {
            self.set_out_again(held, way.asking, table);
            return true;
        }
        let Some(held) = dedicated.take_held() else { return done };
        self.was_refused(held);
        true
    }

    fn set_out_again(&mut self, mut held: Held, asking: Option<Arc<Node>>, table: &Table) {
        let Mode::Dedicated(dedicated) = &mut self.mode else { return };
        let Some(errand) = &mut dedicated.errand else { return give_up(&held) };
        let (slot, bytes) = (errand.slot, errand.request());
        errand.tries.send();
        let node = asking.clone().or_else(|| slot.map(|slot| self.node_of(slot)));
        if node.is_some_and(|node| !self.roam(node)) {
            return give_up(&held);
        }
        let Mode::Dedicated(dedicated) = &mut self.mode else { return };
        let cx = &self.cx;
        if asking.is_some() {
            let _ = send(&dedicated.link, cx.now, |out| out.copy(ASKING), Pending::Asking);
        }
        again(&cx.process, table, &bytes, |command| {
            let rest = dedicated.errand.as_ref().map(|errand| errand.rest(command.row, command.request));
            dedicated.again = held.slots.pop();
            dedicated.go_out(cx, command, slot, rest.unwrap_or_else(|| bytes.clone()));
        });
    }
}

impl Dedicated {
    fn go_out(&mut self, cx: &Context, command: Command<'_>, slot: Option<u16>, bytes: Bytes) {
        let watches = command.kind == Kind::Watch;
        let keeps = if watches && self.state.may_have(WATCH) { Keeps::Watch } else { Keeps::One };
        self.link.client().astray.keeps(keeps);
        if watches {
            self.watched = slot;
        }
        self.execute(cx, command, Raw::Own(bytes));
    }
}
