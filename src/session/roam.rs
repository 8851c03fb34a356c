//! To which node a session's own connections lead, in front of a cluster: what is needed for that.

use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use super::command::Command;
use super::dedicated::Dedicated;
use super::state::{Mode, Session};
use crate::command::{Kind, Local, Row};
use crate::pending::Held;
use crate::process::{Node, Process, errors};
use crate::reply::{ReplyQueue, ReplySlot};
use crate::request::{Context, keys_of};
use crate::resp::request::Request;
use crate::resp::{Redirection, key_slot};

pub(super) const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

/// The node whose a hash slot is now; if it is nobody's, one that says so.
pub(super) fn node_of_slot(process: &Process, slot: u16) -> Arc<Node> {
    let topology = process.topology();
    topology.owner_of(slot).cloned().unwrap_or_else(|| process.first_node())
}

/// The hash slot of the request's first key.
pub(super) fn slot_of(row: Option<&Row>, request: &Request<'_>) -> Option<u16> {
    keys_of(row, request).first().map(|key| key_slot(key))
}

/// Where a reply goes that nobody wants.
pub(super) fn nobody(cx: &Context) -> ReplySlot {
    ReplySlot::nobody(&cx.queue)
}

/// Wakes the session then.
pub(super) fn wake_at(queue: &Rc<ReplyQueue>, at: Instant) {
    let queue = queue.clone();
    tokio::task::spawn_local(async move {
        tokio::time::sleep_until(at).await;
        queue.wake();
    });
}

impl Dedicated {
    /// From now on the connection for all but subscriptions is one to that node. The old one is the next session's, if it is
    /// `fit` for that.
    pub(super) fn go_to(&mut self, cx: &Context, node: Arc<Node>, fit: bool) {
        let mut new = Self::to(cx, node);
        (new.hears, new.moving) = (std::mem::take(&mut self.hears), std::mem::take(&mut self.moving));
        (new.errand, new.pinned) = (self.errand.take(), self.pinned.take());
        let old = std::mem::replace(self, new);
        if fit && old.link.in_flight() == 0 && !old.holds_state() {
            old.end(cx);
        } else {
            drop(old);
        }
        self.is_here(cx);
        cx.queue.forget_lost_link();
    }

    /// What was refused, once all has come that was under way with it.
    pub(super) fn take_held(&self) -> Option<Held> {
        match self.link.in_flight() {
            0 => self.link.client().astray.take(),
            _ => None,
        }
    }
}

impl Session {
    /// See [`node_of_slot`].
    pub(super) fn node_of(&self, slot: u16) -> Arc<Node> {
        node_of_slot(&self.cx.process, slot)
    }

    /// What was refused is sent again, unless it was so often.
    pub(super) fn was_refused(&mut self, held: Held) {
        let Mode::Dedicated(dedicated) = &mut self.mode else { return };
        let Some(errand) = &mut dedicated.errand else { return give_up(&held) };
        let waits = dedicated.waits.are_of(&held.slots);
        let way = match errand.is_let_go {
            true => None,
            false => errand.tries.next(&self.cx.process, &held, waits),
        };
        let Some(way) = way else { return give_up(&held) };
        errand.slot = errand.slot.or(held.refusal.said.as_ref().and_then(Redirection::slot));
        wake_at(&self.cx.queue, way.not_before);
        errand.waiting = Some((held, way));
    }
}

/// Who was refused is told so.
pub(super) fn give_up(held: &Held) {
    held.slots.iter().for_each(|slot| slot.whole(&held.refusal.line));
}

/// Why a request is not possible on connections to several nodes. `hears`: there are subscriptions.
pub(super) fn refusal(command: Command<'_>, hears: bool) -> Option<&'static str> {
    let Command { row, kind, request } = command;
    let is_off = || request.get(2).is_some_and(|word| word.eq_ignore_ascii_case(b"off"));
    if row.is_some_and(|row| row.name == "client|tracking") && !is_off() {
        return Some(errors::TRACKING_MANY);
    }
    let is_hello = matches!(kind, Kind::Local(Local::Hello | Local::Auth)) && request.len() > 1;
    (is_hello && hears).then_some(errors::HELLO_HEARING)
}
