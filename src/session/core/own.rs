//! A session and the connection that it has for itself.

use super::super::asking;
use super::super::dedicated::Dedicated;
use super::super::idents::Ident;
use super::super::redirect::{self, Lead};
use super::{Core, Mode, Raw};
use crate::command::{Kind, Row};
use crate::resp::request::Request;

impl Core {
    /// From now on the session has a connection of its own.
    pub(in crate::session) fn dedicate(&mut self) {
        if matches!(self.mode, Mode::Shared) {
            let link = self.worker.dedicated(&self.ident, &self.login, &self.queue);
            self.mode = Mode::Dedicated(Box::new(Dedicated::new(link, &self.session)));
        }
    }

    /// A connection for what a busy server takes: that takes no `SELECT` then, so it is one of database 0.
    fn go_aside(&mut self) {
        if matches!(self.mode, Mode::Shared) {
            let ident = Ident { db: 0, ..self.ident.clone() };
            let link = self.worker.dedicated(&ident, &self.login, &self.queue);
            let number = self.shared.idents.number(&ident);
            self.mode = Mode::Dedicated(Box::new(Dedicated::new(link, &self.session).aside(number)));
        }
    }

    pub(in crate::session) fn is_shared(&self) -> bool {
        matches!(self.mode, Mode::Shared)
    }

    /// The session's tracking leads there.
    pub(in crate::session) fn lead(&mut self, lead: Lead) {
        if let Mode::Dedicated(dedicated) = &mut self.mode {
            dedicated.lead(lead);
        }
    }

    /// Carries a request out there, once it is known of whom it speaks.
    pub(super) fn send_dedicated(
        &mut self,
        row: Option<&Row>,
        kind: Kind,
        request: &Request<'_>,
        raw: Raw<'_>,
    ) {
        if redirect::begin(self, row, request) {
            return;
        }
        let changed = redirect::astray(self, row, request).or_else(|| asking::harmless(row, request));
        self.on_dedicated(row, kind, request, changed.map_or(raw, Raw::Own));
    }

    pub(in crate::session) fn on_dedicated(
        &mut self,
        row: Option<&Row>,
        kind: Kind,
        request: &Request<'_>,
        raw: Raw<'_>,
    ) {
        match kind {
            Kind::Aside => self.go_aside(),
            _ => self.dedicate(),
        }
        let mut mode = std::mem::replace(&mut self.mode, Mode::Shared);
        if let Mode::Dedicated(dedicated) = &mut mode {
            dedicated.execute(self, row, kind, request, raw);
        }
        self.mode = mode;
    }

    #[cold]
    pub(super) fn leave(&mut self) {
        if let Mode::Dedicated(mut dedicated) = std::mem::replace(&mut self.mode, Mode::Shared) {
            if !dedicated.is_idle(self) {
                self.mode = Mode::Dedicated(dedicated);
                return;
            }
            self.follow(dedicated.became());
            dedicated.end(&self.worker, self.number, &self.login);
        }
        self.queue.forget_lost_link();
    }

    /// Whether the client wants no reply.
    pub(in crate::session) fn is_silent(&self) -> bool {
        matches!(&self.mode, Mode::Dedicated(dedicated) if dedicated.is_silent())
    }
}
