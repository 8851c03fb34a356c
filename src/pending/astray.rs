//! Requests on a connection of a session's own that a node of a cluster has refused: they are kept for the session, which
//! sends them elsewhere.
//!
//! Invariants:
//! - What is kept was not executed: the refusal proves that. What stands behind a refused command of a transaction was queued
//!   at most, and the server discards it all with `EXEC`.
//! - Whoever is kept is answered by the session.
//! - A `WATCH` that was lost with its slot is told by `EXEC`, as one whose key has changed: nothing is executed.

use std::cell::{Cell, RefCell};

use bytes::Bytes;

use crate::reply::{Refusal, ReplySlot};

/// What is done with a refusal on the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keeps {
    /// It is passed on.
    #[default]
    Nothing,
    /// The request is kept.
    One,
    /// A command of a transaction whose keys are of this hash slot is kept, and all behind it.
    Transaction(Option<u16>),
    /// Likewise behind a `WATCH`, which no other node knows of: it is lost.
    Watched(Option<u16>),
    /// Another `WATCH`.
    Watch,
}

/// What was refused, and what stood behind it.
pub struct Held {
    pub refusal: Refusal,
    /// A server has said so; else it was not sent.
    pub was_sent: bool,
    pub slots: Vec<ReplySlot>,
}

/// See the [module](self).
#[derive(Default)]
pub struct Astray {
    keeps: Cell<Keeps>,
    held: RefCell<Option<Held>>,
    lost_watch: Cell<bool>,
    /// Shard channels whose slot was taken from the node.
    moved: RefCell<Vec<Bytes>>,
}

impl Astray {
    pub fn keeps(&self, keeps: Keeps) {
        self.keeps.set(keeps);
    }

    /// The server has ended the subscription to a shard channel.
    pub(super) fn has_moved(&self, channel: Bytes) {
        self.moved.borrow_mut().push(channel);
    }

    pub fn take_moved(&self) -> Vec<Bytes> {
        self.moved.take()
    }

    pub fn is_held(&self) -> bool {
        self.held.borrow().is_some()
    }

    pub fn take(&self) -> Option<Held> {
        self.held.take()
    }

    /// Whether a `WATCH` of the session was lost that neither `EXEC`, `DISCARD` nor `UNWATCH` has ended.
    pub fn has_lost_watch(&self) -> bool {
        self.lost_watch.get()
    }

    pub(super) fn lose_watch(&self) {
        self.lost_watch.set(true);
    }

    /// Whether what comes may have to be looked at.
    #[inline]
    pub(super) fn keeps_any(&self) -> bool {
        self.keeps.get() != Keeps::Nothing
    }

    pub(super) fn kept(&self) -> Keeps {
        self.keeps.get()
    }

    pub fn forget_watch(&self) {
        self.lost_watch.set(false);
    }

    pub(super) fn hold(&self, to: ReplySlot, why: impl FnOnce() -> (Refusal, bool)) {
        let queue = to.queue.clone();
        let mut held = self.held.borrow_mut();
        match &mut *held {
            Some(held) => held.slots.push(to),
            None => {
                let (refusal, was_sent) = why();
                *held = Some(Held { refusal, was_sent, slots: vec![to] });
            }
        }
        queue.wake();
    }
}
