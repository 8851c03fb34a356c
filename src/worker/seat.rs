//! A session's place in its worker: given up when its task ends, whichever way that happens.

use std::rc::Rc;

use tokio::sync::Notify;

use super::state::Worker;
use crate::reply::ReplyQueue;

/// See the [module](self).
pub(super) struct Seat {
    pub(super) worker: Rc<Worker>,
    pub(super) id: u64,
    pub(super) queue: Rc<ReplyQueue>,
    /// It is nearside's own.
    pub(super) is_own: bool,
    /// Told when it is given up.
    pub(super) gone: Rc<Notify>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                client = self.id,
                "closed: a fault in nearside has ended this client's session; please report it, with the line before"
            );
        }
        self.queue.close();
        self.worker.sessions.borrow_mut().remove(&self.id);
        match self.is_own {
            true => self.worker.outbound.inbox.own_left(),
            false => self.worker.outbound.inbox.client_left(&self.worker.process.metrics),
        }
        self.gone.notify_one();
    }
}
