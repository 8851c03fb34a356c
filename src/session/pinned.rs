//! A transaction in front of a cluster: to which hash slot it is pinned, and what of it is at hand, should it have to begin
//! anew at another node.
//!
//! Invariants: what is at hand is all that the server has queued, in its order; beyond a bound it is not kept, and the
//! transaction cannot begin anew.

use bytes::Bytes;

use super::errand::{Tries, Way};
use crate::command::Kind;
use crate::pending::Held;
use crate::reply::ReplySlot;

/// What is kept of a transaction, in bytes.
const KEPT: usize = 1 << 20;

/// See the [module](self).
pub struct Pinned {
    /// Of its keys, once it has any.
    pub slot: Option<u16>,
    /// Nearside has answered its `MULTI`; the server's answer is nobody's.
    is_told: bool,
    /// A server was told of it.
    pub has_begun: bool,
    said: Vec<Bytes>,
    bytes: usize,
    /// The `EXEC` or `DISCARD` that was sent.
    pub ended: Option<Kind>,
    pub tries: Tries,
    /// What was refused, until it is sent again.
    pub waiting: Option<(Held, Way)>,
    /// The places of what is said again, once the node has taken the `MULTI`.
    pub again: Option<Vec<ReplySlot>>,
    /// Nothing of it will be executed; what its commands are told.
    pub failed: Option<Bytes>,
}

impl Pinned {
    /// One of which no server was told yet.
    pub fn told() -> Self {
        Self {
            slot: None,
            is_told: true,
            has_begun: false,
            said: Vec::new(),
            bytes: 0,
            ended: None,
            tries: Tries::default(),
            waiting: None,
            again: None,
            failed: None,
        }
    }

    /// One behind a `WATCH`, which no other node knows of.
    pub fn watched(slot: Option<u16>) -> Self {
        Self { slot, is_told: false, has_begun: true, ..Self::told() }
    }

    pub fn is_told(&self) -> bool {
        self.is_told
    }

    /// Whether no server has anything of it that is needed.
    pub fn is_at_hand(&self) -> bool {
        !self.has_begun || self.is_busy() || self.failed.is_some()
    }

    /// Whether it is about to begin, or to begin anew.
    pub fn is_busy(&self) -> bool {
        self.waiting.is_some() || self.again.is_some()
    }

    /// Another command is queued.
    pub fn add(&mut self, request: Bytes) {
        self.bytes += request.len();
        match self.is_whole() {
            true => self.said.push(request),
            false => self.said.clear(),
        }
    }

    /// Whether all of it is at hand.
    pub fn is_whole(&self) -> bool {
        self.is_told && self.bytes <= KEPT
    }

    pub fn said(&self) -> Vec<Bytes> {
        self.said.clone()
    }

    /// How many replies its commands have.
    pub fn len(&self) -> usize {
        self.said.len() + usize::from(self.ended.is_some())
    }
}
