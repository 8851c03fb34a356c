//! What a worker has of each of its sessions, beside the task that serves it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use crate::process::Client;
use crate::reply::ReplyQueue;

/// See the [module](self).
#[derive(Clone)]
pub(super) struct Sitting {
    pub(super) client: Arc<Client>,
    pub(super) queue: Rc<ReplyQueue>,
    /// It is to end between two requests.
    pub(super) draining: Rc<Cell<bool>>,
}

impl Sitting {
    /// Nearside's own client ends by itself, when it has brought upstream what is left.
    pub(super) fn drain(&self) {
        if self.client.is_own {
            return;
        }
        self.draining.set(true);
        self.queue.wake();
    }
}
