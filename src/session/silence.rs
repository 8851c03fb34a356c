//! `CLIENT REPLY OFF|SKIP`: requests to which the server says nothing.
//!
//! Invariants: nobody tells what became of them, so what one may leave behind counts as left, and what it may
//! take away as still there. Messages and confirmations come all the same.

use std::rc::Rc;

use super::command::Command;
use super::dedicated::{Dedicated, Replies};
use crate::command::{Access, Kind};
use crate::pending::Effect;
use crate::request::{Context, Raw, write};
use crate::resp::request::Request;

impl Dedicated {
    /// A request to which the server will say nothing.
    pub fn unanswered(&mut self, cx: &Context, command: Command<'_>, effect: Option<Effect>, raw: Raw<'_>) {
        let Command { row, kind, request } = command;
        if kind == Kind::Multi && !self.pushes().is_raw() {
            self.transaction = Some(Rc::default());
            return self.relay(cx, raw);
        }
        let (mut write_set, effects) = match self.transaction.take() {
            Some(transaction) if kind == Kind::Exec => {
                std::mem::take(&mut *transaction.borrow_mut()).into_parts()
            }
            _ => Default::default(),
        };
        for effect in effects.into_iter().map(|(_, effect)| effect).chain(effect) {
            self.state.assume(&effect, self.pushes());
            if matches!(effect, Effect::Confirm) {
                self.subscribes = true;
                self.pushes().listen_unasked();
            }
        }
        if row.is_none_or(|row| row.access == Access::Write) {
            write_set.add(&cx.process, row, request);
            if kind == Kind::Blocking {
                write_set.may_wait();
            }
        }
        self.count_read(cx, row, request);
        match std::mem::replace(&mut self.replies, Replies::On) {
            Replies::Skip => {
                write_set.db = Some(self.db(cx));
                write::send_skipped(write_set, cx, &self.link, raw);
            }
            replies => {
                self.replies = replies;
                self.unanswered.add_keys(&write_set);
                write::send_unanswered(write_set, cx, &self.link, raw);
            }
        }
    }

    /// `CLIENT REPLY ON|OFF|SKIP`.
    pub fn reply_command(&mut self, cx: &Context, request: &Request<'_>, raw: Raw<'_>) {
        if self.pushes().is_restricted() {
            // Refused, which a client that wants no replies is not told.
            return match self.replies {
                Replies::On => self.relay(cx, raw),
                _ => self.link.send_unanswered(|out| raw.write(out)),
            };
        }
        self.state.assume(&Effect::Wear, self.pushes());
        self.tell_name(cx);
        let is = |word: &[u8]| request.get(2).is_some_and(|arg| arg.eq_ignore_ascii_case(word));
        if request.len() == 3 && is(b"on") {
            self.replies = Replies::On;
            // Its reply says that what was written before is done.
            let write_set = std::mem::take(&mut self.unanswered);
            return self.write(cx, write_set, raw);
        }
        let skip = is(b"skip");
        if request.len() != 3 || !(is(b"off") || skip) {
            return self.relay(cx, raw);
        }
        if self.replies == Replies::On || !skip {
            self.replies = if skip { Replies::Skip } else { Replies::Off };
        }
        self.link.send_unanswered(|out| raw.write(out));
    }
}
