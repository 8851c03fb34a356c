//! `CLIENT REPLY OFF|SKIP`: requests to which the server says nothing.
//!
//! Invariants: nobody tells what became of them, so what one may leave behind counts as left, and what it may
//! take away as still there. Messages and confirmations come all the same.

use std::rc::Rc;

use super::super::core::{Core, Raw};
use super::super::state::Effect;
use super::{Dedicated, Replies};
use crate::command::{Access, Kind, Row};
use crate::resp::request::Request;

impl Dedicated {
    /// A request to which the server will say nothing.
    pub(super) fn unanswered(
        &mut self,
        core: &mut Core,
        row: Option<&Row>,
        kind: Kind,
        effect: Option<Effect>,
        request: &Request<'_>,
        raw: Raw<'_>,
    ) {
        if kind == Kind::Multi && !self.pushes().is_raw() {
            self.transaction = Some(Rc::default());
            return self.relay(core, raw);
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
            write_set.add(&core.shared, row, request);
            if kind == Kind::Blocking {
                write_set.may_wait();
            }
        }
        self.count_read(core, row, request);
        match std::mem::replace(&mut self.replies, Replies::On) {
            Replies::Skip => {
                write_set.db = Some(self.db(core));
                write_set.send_skipped(&core.shared, &self.link, &core.ident, core.now, raw);
            }
            replies => {
                self.replies = replies;
                self.unanswered.add_keys(&write_set);
                write_set.send_unanswered(&core.shared, &self.link, &core.ident, core.now, raw);
            }
        }
    }

    /// `CLIENT REPLY ON|OFF|SKIP`.
    pub(super) fn reply_command(&mut self, core: &mut Core, request: &Request<'_>, raw: Raw<'_>) {
        if self.pushes().is_restricted() {
            // Refused, which a client that wants no replies is not told.
            return match self.replies {
                Replies::On => self.relay(core, raw),
                _ => self.link.send_unanswered(|out| raw.write(out)),
            };
        }
        self.state.assume(&Effect::Wear, self.pushes());
        self.tell_name(core);
        let is = |word: &[u8]| request.get(2).is_some_and(|arg| arg.eq_ignore_ascii_case(word));
        if request.len() == 3 && is(b"on") {
            self.replies = Replies::On;
            // Its reply says that what was written before is done.
            let write_set = std::mem::take(&mut self.unanswered);
            return self.write(core, write_set, raw);
        }
        let skip = is(b"skip");
        if request.len() != 3 || !(is(b"off") || skip) {
            return self.relay(core, raw);
        }
        if self.replies == Replies::On || !skip {
            self.replies = if skip { Replies::Skip } else { Replies::Off };
        }
        self.link.send_unanswered(|out| raw.write(out));
    }
}
