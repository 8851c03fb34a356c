//! A session and the connection that it has for itself.

use std::task::Context as Task;

use super::asking::{Asking, harmless};
use super::command::Command;
use super::dedicated::Dedicated;
use super::redirect::{self, Lead};
use super::state::{Mode, Session};
use crate::command::{Kind, Table};
use crate::process::Ident;
use crate::request::Raw;
use crate::router::LinkKey;

impl Session {
    /// From now on the session has a connection of its own.
    pub(super) fn dedicate(&mut self) {
        if self.is_shared() {
            self.mode = Mode::Dedicated(Box::new(Dedicated::new(&self.cx, None)));
        }
    }

    /// A connection for what a busy server takes: that takes no `SELECT` then, so it is one of database 0.
    fn go_aside(&mut self) {
        if self.is_shared() {
            let ident = Ident { db: 0, ..self.cx.key.ident.clone() };
            let key = LinkKey { ident, ..self.cx.key.clone() };
            self.mode = Mode::Dedicated(Box::new(Dedicated::new(&self.cx, Some(key))));
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        matches!(self.mode, Mode::Shared)
    }

    /// The session's tracking leads there.
    pub(super) fn lead(&mut self, lead: Lead) {
        if let Mode::Dedicated(dedicated) = &mut self.mode {
            dedicated.lead(lead);
        }
    }

    /// Carries a request out there, once it is known of whom it speaks.
    pub(super) fn send_dedicated(&mut self, command: Command<'_>, raw: Raw<'_>) {
        let Command { row, request, .. } = command;
        if let Some(redirecting) = redirect::begin(&self.cx, row, request) {
            self.asking = Some(Asking::Redirect(redirecting));
            return;
        }
        let changed = redirect::astray(&self.cx.process, row, request).or_else(|| harmless(row, request));
        self.on_dedicated(command, changed.map_or(raw, Raw::Own));
    }

    pub(super) fn on_dedicated(&mut self, command: Command<'_>, raw: Raw<'_>) {
        if !self.cx.process.is_single() && command.kind != Kind::Aside {
            return self.on_own(command, raw);
        }
        match command.kind {
            Kind::Aside => self.go_aside(),
            _ => self.dedicate(),
        }
        if let Mode::Dedicated(dedicated) = &mut self.mode {
            dedicated.execute(&self.cx, command, raw);
        }
    }

    /// Goes back to the shared link if nothing is left on the dedicated one.
    #[inline(always)]
    pub(super) fn leave_if_idle(&mut self) {
        if !self.is_shared() && self.cx.queue.waiting() == 0 {
            self.leave();
        }
    }

    /// Goes on with what is under way on connections of the session's own, and leaves those that hold nothing. Says whether
    /// anything was done.
    #[inline(always)]
    pub(super) fn go_on_alone(&mut self, table: &Table) -> bool {
        let done = !self.is_shared() && self.poll_own(table);
        self.leave_if_idle();
        done
    }

    #[cold]
    fn leave(&mut self) {
        if let Mode::Dedicated(mut dedicated) = std::mem::replace(&mut self.mode, Mode::Shared) {
            if !dedicated.is_idle(&self.cx) {
                self.mode = Mode::Dedicated(dedicated);
                return;
            }
            self.follow(dedicated.became());
            // The next session is one of those that this one has become.
            dedicated.end(&self.cx);
        }
        self.cx.queue.forget_lost_link();
        self.unsettled |= !self.cx.process.is_single() && self.is_behind();
    }

    /// Drops the dedicated connection with all its state.
    pub fn drop_dedicated(&mut self) {
        self.mode = Mode::Shared;
        self.cx.queue.forget_lost_link();
    }

    /// Whether nobody can be served any more once the client has closed its side: what is open may never
    /// be answered.
    pub fn ends_with_client(&self) -> bool {
        matches!(&self.mode, Mode::Dedicated(dedicated) if dedicated.may_never_end(&self.cx.queue))
            || self.cx.gathers.may_never_end()
    }

    /// Lets go what waits at the server: as if its time was over, or with an error if the process stops.
    pub fn let_go(&mut self, stops: bool) {
        if let Mode::Dedicated(dedicated) = &mut self.mode {
            dedicated.let_go(&self.cx, stops);
        }
    }

    /// Whether what the session wrote on a connection of its own is on its way; if not, the session is woken.
    pub fn is_flushed(&self, task: &mut Task<'_>) -> bool {
        // What waits for another session is not sent yet.
        let sent = self.asking.is_none();
        match &self.mode {
            Mode::Dedicated(dedicated) => dedicated.is_flushed(task) && sent,
            Mode::Shared => sent,
        }
    }

    /// Whether the state that the session had upstream is gone.
    pub fn is_lost(&self) -> bool {
        matches!(&self.mode, Mode::Dedicated(dedicated) if dedicated.is_lost(&self.cx.queue))
    }
}
