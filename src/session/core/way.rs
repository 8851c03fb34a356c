//! Which link a session sends on next, when its own is not the one that it would choose anew.

use super::Core;
use crate::command::{Access, Row};

impl Core {
    /// Chooses the link for what comes next, while the session's own is stuck, is a spare one, or is to be left. It stays
    /// where it has something open, so that its order is kept. False if what comes next has to wait for that: nothing
    /// more goes on a link that is to be left, and no write to where it would hold up the reads.
    pub(super) fn settle(&mut self, writes: bool) -> bool {
        if self.changing.is_some() {
            return true;
        }
        if self.queue.has_sent() {
            let kept_off = || writes && self.worker.keeps_writes_off(self.number, &self.link, self.now);
            return !self.link.client().is_replaced() && !kept_off();
        }
        match self.worker.route(&self.ident, &self.login, writes, self.now) {
            Some(link) => {
                self.link = link;
                self.number = self.shared.idents.number(&self.ident);
                true
            }
            None => {
                self.worker.wake_when_known(self.id);
                false
            }
        }
    }
}

/// Whether the server pauses such a command when it pauses writes.
pub(super) fn is_paused(row: Option<&Row>) -> bool {
    row.is_some_and(|row| row.access == Access::Write || matches!(&*row.name, "publish" | "spublish"))
}
