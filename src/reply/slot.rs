//! The place of one reply, held by whoever brings it.

use std::rc::Rc;

use bytes::Bytes;

use super::queue::ReplyQueue;
use super::slots::NOBODY;
use crate::resp::encode;

/// Where one request's reply goes.
pub struct ReplySlot {
    pub queue: Rc<ReplyQueue>,
    pub slot: u64,
}

/// A reply that a fault has lost never comes: better closed than waited for.
impl Drop for ReplySlot {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.queue.cut();
            self.queue.wake();
        }
    }
}

impl ReplySlot {
    /// The place of a reply that nobody wants: the session is only woken when it has come.
    pub fn nobody(queue: &Rc<ReplyQueue>) -> Self {
        Self { queue: queue.clone(), slot: NOBODY }
    }

    /// Adds a piece of the reply; `last` completes it.
    pub fn piece(&self, bytes: Bytes, last: bool) {
        self.queue.piece(self.slot, bytes, last);
    }

    /// Adds a piece of a confirmation, which the client gets whether it wants replies or not.
    pub fn confirmation(&self, bytes: Bytes, last: bool) {
        self.queue.confirms(self.slot);
        self.piece(bytes, last);
    }

    /// The reply has this confirmation in it.
    pub fn confirmed_within(&self, element: &[u8]) {
        self.queue.confirms_within(self.slot, element);
    }

    /// The reply as a whole, copied from `bytes`.
    pub fn whole(&self, bytes: &[u8]) {
        self.queue.whole(self.slot, bytes);
    }

    /// The reply is an error, worded by us. If a piece of the upstream's reply was passed on already,
    /// nothing can be said any more but by closing the connection.
    pub fn error(&self, text: &str) {
        if !self.queue.break_off(self.slot) {
            let mut line = Vec::with_capacity(text.len() + 3);
            encode::error(&mut line, text.as_bytes());
            self.whole(&line);
        }
    }
}
