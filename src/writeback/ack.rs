//! Whoever waits for an acknowledgement, or for a key to be clean.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

/// A client that waits.
pub trait Waiter: Send + 'static {
    /// This is the reply to its request.
    fn reply(self, reply: Bytes);
    /// What it waited for may be there: it is to look.
    fn wake(self);
}

/// A client whose request is acknowledged by one write, or by the last of several.
pub(super) enum Ack<W> {
    One(W, &'static [u8]),
    Part(Arc<Parts<W>>),
}

/// What is acknowledged once all of its writes are.
pub(super) struct Parts<W> {
    left: AtomicUsize,
    whole: Mutex<Option<(W, &'static [u8])>>,
}

impl<W: Waiter> Parts<W> {
    pub(super) fn new(parts: usize, waiter: W, reply: &'static [u8]) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(parts), whole: Mutex::new(Some((waiter, reply))) })
    }

    fn done(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some((waiter, reply)) = self.whole.lock().take()
        {
            waiter.reply(Bytes::from_static(reply));
        }
    }
}

impl<W: Waiter> Ack<W> {
    /// Never under a lock.
    pub(super) fn done(self) {
        match self {
            Ack::One(waiter, reply) => waiter.reply(Bytes::from_static(reply)),
            Ack::Part(parts) => parts.done(),
        }
    }
}
