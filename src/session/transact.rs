//! Transactions of a session in front of a cluster.
//!
//! Invariants:
//! - The `MULTI` is answered at once. A node is told of it when the first key says which: then the `MULTI` is sent, and what
//!   is queued only once the node has taken it. So nothing of a transaction is ever carried out by itself.
//! - All goes to that node. A key of a slot that another node has is refused as Redis refuses keys of several slots, and
//!   `EXEC` is answered with `EXECABORT`.
//! - A transaction that a node has refused, at `EXEC` or before, was not executed. It begins anew at the node that has the
//!   slot then, and its client sees nothing of that; unless it stands behind a `WATCH`: then `EXEC` is answered as if a
//!   watched key had changed.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::command::{Command, again};
use super::dedicated::Dedicated;
use super::hello::wanted_replies;
use super::pinned::Pinned;
use super::roam::{ASKING, nobody, refusal, slot_of, wake_at};
use super::state::{Mode, Session};
use crate::command::{Kind, Local, Row, Table};
use crate::pending::{Effect, Held, Keeps, Pending, Transaction, WATCH, send};
use crate::process::{Node, errors};
use crate::reply::{Refusal, Replies, ReplySlot};
use crate::request::{Context, Raw};
use crate::resp::Redirection;
use crate::resp::request::Request;

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";
const DISCARD: &[u8] = b"*1\r\n$7\r\nDISCARD\r\n";

impl Session {
    /// A `MULTI` outside of transactions.
    pub(super) fn multi(&mut self, command: Command<'_>, raw: Raw<'_>) {
        let Mode::Dedicated(dedicated) = &mut self.mode else { return };
        if dedicated.state.may_have(WATCH) {
            let slot = dedicated.watched;
            dedicated.pinned = Some(Box::new(Pinned::watched(slot)));
            dedicated.link.client().astray.keeps(Keeps::Watched(slot));
            return dedicated.execute(&self.cx, command, raw);
        }
        dedicated.pinned = Some(Box::new(Pinned::told()));
        dedicated.transaction = Some(Rc::default());
        self.cx.queue.reply(b"+OK\r\n");
    }

    /// Whether a request in an open transaction may be said now. If not, the session is woken when it may.
    pub(super) fn admit_queued(&mut self, row: Option<&Row>, kind: Kind, request: &Request<'_>) -> bool {
        let idle = self.cx.queue.waiting() == 0;
        let Mode::Dedicated(dedicated) = &mut self.mode else { return false };
        let waits = dedicated.holds_back(kind) && !idle || dedicated.link.client().astray.is_held();
        let Some(pinned) = dedicated.pinned.as_mut().filter(|_| !waits) else {
            return !waits;
        };
        if pinned.is_busy() {
            return false;
        }
        if matches!(kind, Kind::Exec | Kind::Discard) || pinned.failed.is_some() {
            return true;
        }
        let slot = slot_of(row, request).filter(|_| pinned.slot.is_none());
        let here = dedicated.link.client().node.id;
        let (has_begun, said) = (pinned.has_begun, pinned.said().len());
        let node = slot.map(|slot| self.node_of(slot));
        if !has_begun || node.as_ref().is_some_and(|node| node.id != here) {
            if idle {
                let node = node.unwrap_or_else(|| self.cx.process.first_node());
                let again = (0..said).map(|_| nobody(&self.cx)).collect();
                self.begin_at(node, false, again);
            }
            return false;
        }
        let Mode::Dedicated(dedicated) = &mut self.mode else { return false };
        if let (Some(pinned), Some(slot)) = (&mut dedicated.pinned, slot) {
            pinned.slot = Some(slot);
            dedicated.link.client().astray.keeps(Keeps::Transaction(Some(slot)));
        }
        true
    }

    /// Begins the transaction at this node: what is at hand of it is said `again` once the node has taken the `MULTI`.
    fn begin_at(&mut self, node: Arc<Node>, asking: bool, again: Vec<ReplySlot>) {
        let Mode::Dedicated(dedicated) = &mut self.mode else { return };
        let is_fresh = dedicated.pinned.as_ref().is_some_and(|pinned| !pinned.has_begun);
        if is_fresh {
            // No server knows of it: the connection may be somebody else's.
            dedicated.transaction = None;
        }
        if !is_fresh || dedicated.link.client().node.id != node.id || dedicated.link.is_down() {
            dedicated.go_to(&self.cx, node, is_fresh);
        }
        let Some(pinned) = &mut dedicated.pinned else { return };
        (pinned.has_begun, pinned.again) = (true, Some(again));
        pinned.tries.send();
        dedicated.link.client().astray.keeps(Keeps::Transaction(pinned.slot));
        dedicated.begin(&self.cx, asking);
    }

    /// Carries out a request in an open transaction.
    pub(super) fn on_transaction(&mut self, command: Command<'_>, slot: Option<u16>, raw: Raw<'_>) {
        let Command { row, kind, request } = command;
        let Mode::Dedicated(dedicated) = &mut self.mode else { return };
        let ends = matches!(kind, Kind::Exec | Kind::Discard);
        let Some(pinned) = &mut dedicated.pinned else {
            return dedicated.execute(&self.cx, command, raw);
        };
        if ends && (!pinned.has_begun || pinned.failed.is_some()) {
            let said: &[u8] = match (kind, &pinned.failed) {
                (Kind::Exec, Some(_)) => errors::EXECABORT,
                (Kind::Exec, None) => b"*0\r\n",
                _ => b"+OK\r\n",
            };
            self.cx.queue.reply(said);
            return self.end_unheard();
        }
        if let Some(refusal) = &pinned.failed {
            return self.cx.queue.reply(refusal);
        }
        let astray = &dedicated.link.client().astray;
        let has_lost = astray.has_lost_watch();
        if ends && has_lost {
            astray.forget_watch();
            if kind == Kind::Exec {
                dedicated.transaction = None;
                let said = dedicated.pushes().null_array();
                dedicated.again = Some(nobody(&self.cx));
                dedicated.leave(&self.cx, Effect::Clear(WATCH), Raw::Copy(DISCARD));
                return self.cx.queue.reply(said);
            }
        }
        if ends {
            pinned.ended = Some(kind);
            return dedicated.execute(&self.cx, command, raw);
        }
        if let Some(refusal) = refusal(command, !dedicated.hears.is_empty()) {
            let said = errors::line(refusal);
            self.cx.queue.reply(&said);
            pinned.failed = Some(said.into());
            return;
        }
        if is_for_nothing(kind, request) {
            return dedicated.execute(&self.cx, command, raw);
        }
        let bytes = match raw {
            Raw::Copy(bytes) => Bytes::copy_from_slice(bytes),
            Raw::Own(bytes) => bytes,
        };
        pinned.add(bytes.clone());
        debug_assert!(row.is_none() || slot.is_none() || pinned.slot.is_some());
        dedicated.execute(&self.cx, command, Raw::Own(bytes));
    }

    /// The transaction is over, and no server is told.
    fn end_unheard(&mut self) {
        let Mode::Dedicated(dedicated) = &mut self.mode else { return };
        dedicated.transaction = None;
        if dedicated.pinned.take().is_some_and(|pinned| pinned.has_begun) {
            let node = dedicated.link.client().node.clone();
            dedicated.go_to(&self.cx, node, false);
        }
    }

    /// Goes on with a transaction that is to begin, or was refused. Says whether anything was done.
    pub(super) fn poll_pinned(&mut self, table: &Table) -> bool {
        let Mode::Dedicated(dedicated) = &mut self.mode else { return false };
        let now = Instant::now();
        let Some(pinned) = &mut dedicated.pinned else { return false };
        if let Some((held, way)) = pinned.waiting.take_if(|(_, way)| way.not_before <= now) {
            let asking = way.asking.is_some();
            let owner = pinned.slot;
            let here = dedicated.link.client().node.clone();
            let node = way.asking.or_else(|| owner.map(|slot| self.node_of(slot))).unwrap_or(here);
            self.begin_at(node, asking, held.slots);
            return true;
        }
        if pinned.again.is_some() {
            return self.go_on(table);
        }
        let Some(held) = dedicated.take_held() else { return false };
        self.refused_transaction(held);
        true
    }

    /// The node is to say whether it takes the `MULTI`.
    fn go_on(&mut self, table: &Table) -> bool {
        let Mode::Dedicated(dedicated) = &mut self.mode else { return false };
        let (Some(pinned), Some(transaction)) = (&mut dedicated.pinned, &dedicated.transaction) else {
            return false;
        };
        let refusal = transaction.borrow().refusal.clone();
        if !transaction.borrow().answered {
            if dedicated.link.is_down() {
                let slots = pinned.again.take().unwrap_or_default();
                let refusal = Refusal { said: None, by: None, line: errors::line(errors::NOT_BEGUN).into() };
                self.refused_transaction(Held { refusal, was_sent: false, slots });
                return true;
            }
            return false;
        }
        let slots = pinned.again.take().unwrap_or_default();
        match refusal {
            Some(line) => {
                self.fail(Held { refusal: Refusal { said: None, by: None, line }, was_sent: true, slots })
            }
            None => self.say_again(slots, table),
        }
        true
    }

    fn say_again(&mut self, slots: Vec<ReplySlot>, table: &Table) {
        let Mode::Dedicated(dedicated) = &mut self.mode else { return };
        let Some(pinned) = &mut dedicated.pinned else { return };
        let (said, ended) = (pinned.said(), pinned.ended);
        let (cx, muted) = (&self.cx, self.cx.queue.is_muted());
        let mut slots = slots.into_iter();
        for bytes in said {
            again(&cx.process, table, &bytes, |command| {
                let kind = dedicated.kind_here(command.row, command.kind, muted);
                dedicated.again = slots.next().or_else(|| Some(nobody(cx)));
                dedicated.execute(cx, Command { kind, ..command }, Raw::Own(bytes.clone()));
            });
        }
        let Some(kind) = ended else { return };
        let bytes = Bytes::from_static(if kind == Kind::Exec { EXEC } else { DISCARD });
        again(&cx.process, table, &bytes, |command| {
            dedicated.again = slots.next();
            dedicated.execute(cx, Command { kind, ..command }, Raw::Own(bytes.clone()));
        });
    }

    /// A node has refused the transaction, or a command of it: it begins anew where it belongs, unless it did so often, or
    /// not all of it is at hand.
    fn refused_transaction(&mut self, mut held: Held) {
        let Mode::Dedicated(dedicated) = &mut self.mode else { return };
        let Some(pinned) = &mut dedicated.pinned else { return };
        // Those that were answered before come first.
        let answered = pinned.len().saturating_sub(held.slots.len());
        held.slots.splice(..0, (0..answered).map(|_| nobody(&self.cx)));
        let way = match pinned.is_whole() {
            true => pinned.tries.next(&self.cx.process, &held, false),
            false => None,
        };
        let Some(way) = way else { return self.fail(held) };
        wake_at(&self.cx.queue, way.not_before);
        pinned.waiting = Some((held, way));
    }

    /// Nothing of the transaction is executed, and it does not begin anew.
    fn fail(&mut self, mut held: Held) {
        let Mode::Dedicated(dedicated) = &mut self.mode else { return };
        let Some(pinned) = &mut dedicated.pinned else { return };
        let ended = pinned.ended.and_then(|kind| Some((kind, held.slots.pop()?)));
        let is_elsewhere = held.refusal.said.as_ref().and_then(Redirection::slot).is_some();
        let is_alone = held.slots.iter().all(|slot| !slot.queue.is_awaited(slot.slot));
        held.slots.iter().for_each(|slot| slot.whole(&held.refusal.line));
        pinned.failed = Some(held.refusal.line.clone());
        if let Some((kind, slot)) = ended {
            match kind {
                Kind::Exec if is_alone && !is_elsewhere => slot.whole(&held.refusal.line),
                Kind::Exec => slot.whole(errors::EXECABORT),
                _ => slot.whole(b"+OK\r\n"),
            }
            self.end_unheard();
        }
    }
}

impl Dedicated {
    /// Tells the server of a transaction of which the client was told.
    fn begin(&mut self, cx: &Context, asking: bool) {
        self.tell_name(cx);
        if asking {
            let _ = send(&self.link, cx.now, |out| out.copy(ASKING), Pending::Asking);
        }
        let transaction = Rc::<RefCell<Transaction>>::default();
        self.transaction = Some(transaction.clone());
        let pending = Pending::Multi(nobody(cx), transaction);
        let _ = send(&self.link, cx.now, |out| out.copy(MULTI), pending);
    }
}

/// Whether it is answered by nearside though a transaction is open.
fn is_for_nothing(kind: Kind, request: &Request<'_>) -> bool {
    let off = || wanted_replies(request).is_some_and(|replies| replies != Replies::On);
    kind == Kind::Local(Local::ClientReply) && off()
}
