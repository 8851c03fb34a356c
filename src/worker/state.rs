//! What one thread has of its own: its sessions, and what these take turns with.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;

use super::handshakes::Handshakes;
use super::sitting::Sitting;
use crate::process::{CachedTable, Inbox, Process};
use crate::request::Outbound;

/// See the [module](self).
pub struct Worker {
    pub(super) process: Arc<Process>,
    pub(super) outbound: Rc<Outbound>,
    pub(super) sessions: RefCell<HashMap<u64, Sitting>>,
    /// The read buffer of whichever session is reading, so that idle sessions need none.
    pub(super) scratch: RefCell<BytesMut>,
    /// Likewise for replies: the buffer of whichever session answers.
    pub(super) spare: RefCell<BytesMut>,
    pub(super) table: RefCell<CachedTable>,
    pub(super) draining: Cell<bool>,
    /// Another nearside has this one's place: clients stay as long as they are at work.
    pub(super) leaving: Cell<bool>,
    pub(super) handshakes: Handshakes,
}

impl Worker {
    pub fn new(process: Arc<Process>, inbox: Arc<Inbox>) -> Rc<Self> {
        Rc::new(Self {
            table: RefCell::new(process.cached_table()),
            outbound: Outbound::new(process.clone(), inbox),
            process,
            sessions: RefCell::default(),
            scratch: RefCell::default(),
            spare: RefCell::default(),
            draining: Cell::new(false),
            leaving: Cell::new(false),
            handshakes: Handshakes::default(),
        })
    }

    /// A client was accepted, and nothing can be done with its socket.
    pub(super) fn tell_unusable(&self, error: &std::io::Error) {
        if let Some(untold) = self.process.metrics.unusable_told.now() {
            tracing::warn!(%error, untold, "a client's socket cannot be used, and is closed: the client may connect anew");
        }
    }
}
