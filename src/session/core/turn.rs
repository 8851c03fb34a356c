//! Whether a session goes on with its next request.

use std::task::Context;

use super::Core;

/// After so many requests the clock is read again.
const CLOCK: u64 = 64;

/// After so many requests in a row a session gives way to the others of its worker. With hits that is half a millisecond.
pub(super) const TURN: u64 = 2048;

impl Core {
    /// Whether another request may be taken now; if not, the session is woken when it may.
    pub(in crate::session) fn may_proceed(&mut self, cx: &mut Context<'_>) -> bool {
        if self.handled - self.timed >= CLOCK {
            self.timed = self.handled;
            self.now = self.shared.now();
            self.gives_way = self.handled >= self.turn_ends;
            self.looks = true;
        }
        if self.looks {
            self.looks = self.is_held_up(cx);
        }
        !self.looks && self.queue.may_open()
    }

    /// Whether anything but the replies that are open holds the session up. Within a batch only its own requests can
    /// change that, and the clock; a hit cannot.
    fn is_held_up(&self, cx: &mut Context<'_>) -> bool {
        self.gives_way
            || self.rest.is_some()
            || self.changing.is_some()
            || self.asking.is_some()
            || self.tunnel.is_some()
            || self.quit
            || self.present_link().is_congested(cx)
    }

    pub(in crate::session) fn give_way(&mut self) {
        self.gives_way = true;
    }

    /// Others are to have their turn before the session goes on. It may go on when it is asked again.
    pub(in crate::session) fn gives_way(&mut self) -> bool {
        if self.gives_way {
            self.turn_ends = self.handled + TURN;
        }
        std::mem::take(&mut self.gives_way)
    }
}
