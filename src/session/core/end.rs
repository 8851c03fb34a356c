//! When and how a session may end.

use std::task::Context;

use super::{Core, Mode};

impl Core {
    pub(in crate::session) fn wants_to_quit(&self) -> bool {
        self.quit
    }

    /// Whether the session may be ended between two requests. An open transaction dies with it, as with a server that
    /// is shut down.
    pub(in crate::session) fn may_leave(&self) -> bool {
        self.changing.is_none() && self.asking.is_none()
    }

    /// Whether nobody can be served any more once the client has closed its side: what is open may never
    /// be answered.
    pub(in crate::session) fn ends_with_client(&self) -> bool {
        matches!(&self.mode, Mode::Dedicated(dedicated) if dedicated.may_never_end(&self.queue))
    }

    /// Lets go what waits at the server: as if its time was over, or with an error if the process stops.
    pub(in crate::session) fn let_go(&mut self, stops: bool) {
        let mut mode = std::mem::replace(&mut self.mode, Mode::Shared);
        if let Mode::Dedicated(dedicated) = &mut mode {
            dedicated.let_go(self, stops);
        }
        self.mode = mode;
    }

    /// Whether what the session wrote on a connection of its own is on its way; if not, the session is woken.
    pub(in crate::session) fn is_flushed(&self, cx: &mut Context<'_>) -> bool {
        // What waits for another session is not sent yet.
        let sent = self.asking.is_none();
        match &self.mode {
            Mode::Dedicated(dedicated) => dedicated.link().is_flushed(cx) && sent,
            Mode::Shared => sent,
        }
    }

    /// Whether the state that the session had upstream is gone.
    pub(in crate::session) fn is_lost(&self) -> bool {
        matches!(&self.mode, Mode::Dedicated(dedicated) if self.queue.link_is_lost() && dedicated.has_state())
    }

    /// Drops the dedicated connection with all its state.
    pub(in crate::session) fn drop_dedicated(&mut self) {
        self.mode = Mode::Shared;
        self.queue.forget_lost_link();
    }
}
