//! What becomes of each request of a session that has a connection of its own.

use std::cell::RefCell;
use std::rc::Rc;

use super::command::Command;
use super::dedicated::Dedicated;
use super::effects::{effect_of, effect_of_local};
use super::gate;
use super::hello::wanted_replies;
use super::phase::Phase;
use super::unblock::unblocking;
use crate::command::{Access, CacheRule, Kind, Local};
use crate::pending::{
    Awaited, Barrier, Bypass, Change, Changed, Effect, Leaves, Pending, Transaction, Write, WriteSet,
    barrier, send,
};
use crate::process::errors;
use crate::reply::Replies;
use crate::request::{Context, Raw, keys_of};
use crate::upstream::PING;

impl Dedicated {
    /// Carries a request out on the connection.
    pub fn execute(&mut self, cx: &Context, command: Command<'_>, raw: Raw<'_>) {
        let Command { row, kind, request } = command;
        // The requests behind it waited for its answer.
        self.is_to_monitor = false;
        let refused = |transaction: &Rc<RefCell<Transaction>>| transaction.borrow().refused.is_some();
        if self.transaction.as_ref().is_some_and(refused) && cx.queue.waiting() == 0 {
            self.drop_refused(cx);
        }
        let raw = match kind {
            Kind::Local(local @ (Local::Auth | Local::Hello)) => {
                match gate::on_dedicated(cx, local, self.phase(), request, raw) {
                    Some(raw) => raw,
                    None => return,
                }
            }
            _ => raw,
        };
        let seq = self.state.count();
        let effect = match kind {
            Kind::Local(local) => effect_of_local(local, request, cx.process.settings.password.is_some()),
            Kind::Connection | Kind::Watch | Kind::Unwatch | Kind::Discard => effect_of(row, request, seq),
            Kind::Subscribe | Kind::Unsubscribe => Some(Effect::Confirm),
            _ => None,
        };
        let once = matches!(effect, Some(Effect::Once(_)));
        let logs_in = matches!(&effect, Some(Effect::Become(became)) if became.login.is_some());
        if logs_in {
            self.link.client().estrange();
        }
        match &self.transaction {
            Some(open) if !matches!(kind, Kind::Exec | Kind::Discard) => {
                let open = open.clone();
                self.queue_up(cx, &open, command, effect, raw);
            }
            _ if self.phase() == Phase::Monitor => self.send_unheard(cx, command, raw),
            _ => {
                self.carry_out(cx, command, effect, raw);
                // The name of the session may stand before it, and reports of what is tracked.
                if logs_in {
                    self.link.end_login();
                }
            }
        }
        // What comes behind it would be taken for a part of it, or may not be said.
        let is_open = self.transaction.is_some() || self.is_to_monitor;
        let subscribes = kind == Kind::Subscribe && self.pushes().restricts();
        self.link.client().bar_login(is_open || once || subscribes);
    }

    /// A request in an open transaction: it is carried out with `EXEC`, or at once if the server has refused the `MULTI`.
    fn queue_up(
        &mut self,
        cx: &Context,
        open: &RefCell<Transaction>,
        command: Command<'_>,
        effect: Option<Effect>,
        raw: Raw<'_>,
    ) {
        let Command { row, kind, request } = command;
        if kind == Kind::Local(Local::ClientReply)
            && wanted_replies(request).is_some_and(|replies| replies != Replies::On)
        {
            // Redis leaves out the rest of the reply to `EXEC`, whose beginning is sent already.
            return cx.queue.reply(&errors::line(errors::REPLY_IN_MULTI));
        }
        let mut queued = open.borrow_mut();
        let place = queued.place();
        queued.write_set.add_queued(&cx.process, row, request, place);
        queued.add(kind, effect.clone());
        drop(queued);
        self.count_read(cx, row, request);
        let barrier: Option<Barrier> = barrier(row, request);
        match (kind, effect) {
            (Kind::Subscribe | Kind::Unsubscribe, _) => self.subscribe(cx, command, raw),
            (_, effect) if barrier.is_some() => {
                let leaves = effect.map(|effect| Leaves::one(&self.state, effect));
                self.send(cx, raw, |to| Pending::Write(Box::new(Write::queued(to, barrier, leaves))));
            }
            (_, Some(effect)) => self.leave(cx, effect, raw),
            (_, None) => self.relay(cx, raw),
        }
    }

    /// A request of one who monitors: its reply cannot be told from what else comes, so nothing waits for it. Since
    /// Redis 6.2 a monitor may touch no keys; but there are rights and settings.
    fn send_unheard(&mut self, cx: &Context, Command { row, kind, request }: Command<'_>, raw: Raw<'_>) {
        if kind == Kind::Local(Local::ClientReply) && wanted_replies(request) == Some(Replies::On) {
            cx.queue.end_off();
        }
        let mut write_set = WriteSet::default();
        if row.is_none_or(|row| row.access == Access::Write) {
            write_set.add(&cx.process, row, request);
        }
        drop(write_set.fence(&cx.process, cx.now));
        self.link.send_unheard(|out| raw.write(out));
    }

    /// A request outside of transactions.
    fn carry_out(&mut self, cx: &Context, command: Command<'_>, effect: Option<Effect>, raw: Raw<'_>) {
        let Command { row, kind, request } = command;
        match (kind, effect) {
            (Kind::Multi, _) => {
                self.tell_name(cx);
                let transaction = Rc::<RefCell<Transaction>>::default();
                self.transaction = Some(transaction.clone());
                self.send(cx, raw, |to| Pending::Multi(to, transaction));
            }
            (Kind::Exec, _) => {
                let (mut write_set, effects) = match self.transaction.take() {
                    Some(transaction) => std::mem::take(&mut *transaction.borrow_mut()).into_parts(),
                    None => Default::default(),
                };
                write_set.leave(Leaves::exec(&self.state, effects));
                self.write(cx, write_set, raw);
            }
            (Kind::Discard, Some(effect)) => {
                self.transaction = None;
                self.leave(cx, effect, raw);
            }
            (Kind::Watch | Kind::Unwatch, Some(effect)) => self.leave(cx, effect, raw),
            (Kind::Subscribe | Kind::Unsubscribe, _) => self.subscribe(cx, command, raw),
            (Kind::Monitor, _) => {
                self.is_to_monitor = true;
                self.send(cx, raw, Pending::Monitor);
            }
            (Kind::Connection, Some(effect)) if row.is_some() => {
                if command.is("replconf") || command.is("script|debug") {
                    self.said.add(request.raw());
                }
                self.count_read(cx, row, request);
                self.leave(cx, effect, raw);
            }
            (Kind::Connection, Some(effect)) => {
                let mut write_set = WriteSet::default();
                write_set.add(&cx.process, row, request);
                write_set.leave(Leaves::one(&self.state, effect));
                self.write(cx, write_set, raw);
            }
            (Kind::Local(local), effect) => self.local(cx, local, effect, raw),
            (Kind::Blocking, _) => {
                self.link.client().exempt_from_timeout();
                let slot = self.again.as_ref().map_or_else(|| cx.queue.next(), |again| again.slot);
                self.waits.note(row, request, slot);
                if row.is_some_and(|row| row.name.starts_with("wait")) {
                    // WAIT is about the connection's own writes, which went over the shared link: a
                    // request on this one moves its mark to where the replication stream is now.
                    let _ = send(&self.link, cx.now, |out| out.copy(PING), Pending::Ping);
                }
                self.plain(cx, command, raw);
            }
            _ => {
                let raw =
                    unblocking(&cx.process, self.link.client().node.id, row, request).map_or(raw, Raw::Own);
                self.plain(cx, command, raw);
            }
        }
    }

    /// A confirmation comes for each channel. Of UNSUBSCRIBE without arguments there is one for each that the
    /// connection has, or one if there is none.
    fn subscribe(&mut self, cx: &Context, Command { row, request, .. }: Command<'_>, raw: Raw<'_>) {
        self.pushes().listen();
        let awaited = Awaited::of(row.map_or("", |row| &row.name), request.len() - 1);
        self.send(cx, raw, |to| Pending::Subscribe(to, awaited));
    }

    fn plain(&mut self, cx: &Context, Command { row, kind, request }: Command<'_>, raw: Raw<'_>) {
        match row {
            Some(row) if row.access != Access::Write => {
                self.count_read(cx, Some(row), request);
                if matches!(&*row.name, "client|getredir" | "client|trackinginfo") {
                    return self.send(cx, raw, |to| {
                        Pending::Changed(to, Changed::by(Change::Redirect((*cx.client).clone())))
                    });
                }
                if row.cache(request) == CacheRule::Never {
                    return self.relay(cx, raw);
                }
                let keys = keys_of(Some(row), request);
                self.send(cx, raw, |to| Pending::Bypass(to, Box::new(Bypass { keys, ..Bypass::default() })));
            }
            row => {
                let mut write_set = WriteSet::default();
                write_set.add(&cx.process, row, request);
                if kind == Kind::Blocking {
                    write_set.may_wait();
                }
                self.write(cx, write_set, raw);
            }
        }
    }

    fn local(&mut self, cx: &Context, local: Local, effect: Option<Effect>, raw: Raw<'_>) {
        if self.phase() == Phase::Subscriber {
            // Not allowed there: the server says so, and nothing changes.
            return self.relay(cx, raw);
        }
        self.tell_name(cx);
        match (local, effect) {
            (Local::Hello, effect) => {
                let leaves = effect.map(|effect| Leaves::one(&self.state, effect));
                let change = Change::HelloId(cx.client.id, leaves);
                self.send(cx, raw, |to| Pending::Changed(to, Changed::by(change)));
            }
            (_, Some(effect)) => self.leave(cx, effect, raw),
            (_, None) => self.relay(cx, raw),
        }
    }
}
