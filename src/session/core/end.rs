//! When and how a session may end.

use std::task::Context;

use super::{Core, Mode};

impl Core {
    pub(in crate::session) fn wants_to_quit(&self) -> bool {
        self.quit
    }

    /// Whether the session may be ended between two requests without a loss of state.
    pub(in crate::session) fn may_leave(&self) -> bool {
        match &self.mode {
            Mode::Shared => self.changing.is_none() && self.asking.is_none(),
            Mode::Dedicated(dedicated) => !dedicated.in_transaction(),
        }
    }

    /// Whether nobody can be served any more once the client has closed its side: what is open may never
    /// be answered.
    pub(in crate::session) fn ends_with_client(&self) -> bool {
        matches!(&self.mode, Mode::Dedicated(dedicated) if dedicated.may_wait())
    }

    /// Whether what the session wrote on a connection of its own is on its way; if not, the session is woken.
    pub(in crate::session) fn is_flushed(&self, cx: &mut Context<'_>) -> bool {
        match &self.mode {
            Mode::Dedicated(dedicated) => dedicated.link().is_flushed(cx),
            Mode::Shared => true,
        }
    }

    /// Whether the state that the session had upstream is gone.
    pub(in crate::session) fn is_lost(&self) -> bool {
        matches!(&self.mode, Mode::Dedicated(dedicated) if self.outbox.link_is_lost() && dedicated.has_state())
    }

    /// Drops the dedicated connection with all its state.
    pub(in crate::session) fn drop_dedicated(&mut self) {
        self.mode = Mode::Shared;
        self.outbox.forget_lost_link();
    }
}
