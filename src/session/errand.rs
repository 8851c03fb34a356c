//! What a session has asked for on a connection of its own, in front of a cluster, as long as it may have to be asked again
//! at another node.
//!
//! Invariants: only what a node has refused, or what was not sent, is asked again; so often at most, within
//! `upstream-timeout`, and with pauses that grow. What has waited at a server since begins to count anew.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::resending::{KEYS_MOVE, MOVED, PATIENCE, TURNS, Unsent};
use super::waits::timeout_of;
use crate::command::Row;
use crate::pending::{Held, is_owned_at, node_at};
use crate::process::{Node, Process};
use crate::resp::request::Request;
use crate::resp::{Redirection, encode};
use crate::upstream::backoff;

/// Before a request is sent again because of the state of a node: at first, and at most.
const STATE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// What was taken for so long has waited at the server.
const WAITED: Duration = Duration::from_secs(1);

/// How often something was sent, and since when.
pub struct Tries {
    number: u32,
    since: Instant,
    sent: Instant,
    /// Of a script, which may be executed and say what a node says.
    is_script: bool,
}

/// Where to go next.
pub struct Way {
    /// To this node, which is to be told that it is asked for a slot that it only imports; `None` is the owner's.
    pub asking: Option<Arc<Node>>,
    pub not_before: Instant,
}

impl Default for Tries {
    fn default() -> Self {
        let now = Instant::now();
        Self { number: 0, since: now, sent: now, is_script: false }
    }
}

impl Tries {
    /// It was sent once more.
    pub fn send(&mut self) {
        self.sent = Instant::now();
    }

    /// It was refused: where it goes next; `None` if that was tried often enough. `waits` if it may have waited at the server.
    pub fn next(&mut self, process: &Process, held: &Held, waits: bool) -> Option<Way> {
        if waits && held.was_sent && self.sent.elapsed() > WAITED {
            *self = Self { is_script: self.is_script, ..Self::default() };
        }
        self.number += 1;
        let topology = process.topology();
        let limit = Some(process.settings.upstream.reply_timeout).filter(|limit| !limit.is_zero());
        // Until a replica may have taken the place of a node that is gone, what cannot be sent to it has not come to nothing.
        let is_gone = !held.was_sent && topology.nodes().iter().any(|node| node.is_up());
        if self.number > TURNS && !is_gone || self.since.elapsed() > limit.unwrap_or(PATIENCE) {
            process.metrics.unresent[Unsent::Exhausted as usize].inc();
            return None;
        }
        let (asking, is_known) = match &held.refusal.said {
            Some(Redirection::Moved { slot, to }) => (None, is_owned_at(process, &topology, *slot, to)),
            Some(Redirection::Ask { to, .. }) => {
                let node = node_at(process, &topology, to).cloned();
                let is_known = node.is_some();
                (node, is_known)
            }
            _ => (None, false),
        };
        let is_named = held.refusal.said.as_ref().is_some_and(|said| said.slot().is_some());
        if self.is_script && is_named && (!is_known || self.number > 1) {
            // Sent there it would be refused, and sent back it would be executed once more.
            process.metrics.unresent[Unsent::Exhausted as usize].inc();
            return None;
        }
        process.metrics.resent.inc();
        let pause = match &held.refusal.said {
            _ if is_known && self.number == 1 => Duration::ZERO,
            _ if is_known => backoff(MOVED, self.number - 2),
            Some(Redirection::TryAgain) => backoff(KEYS_MOVE, self.number - 1),
            _ => backoff(STATE, self.number - 1),
        };
        Some(Way { asking, not_before: Instant::now() + pause })
    }
}

/// One request.
pub struct Errand {
    request: Bytes,
    /// The hash slot of its keys, if that is known.
    pub slot: Option<u16>,
    /// When it was first sent.
    since: Instant,
    pub tries: Tries,
    /// What was refused, until it is sent again.
    pub waiting: Option<(Held, Way)>,
    /// Nobody wants it to wait any more.
    pub is_let_go: bool,
    /// It is a subscription.
    pub is_hearing: bool,
}

impl Errand {
    pub fn new(request: Bytes, slot: Option<u16>, is_script: bool) -> Self {
        Self {
            request,
            slot,
            since: Instant::now(),
            tries: Tries { is_script, ..Tries::default() },
            waiting: None,
            is_let_go: false,
            is_hearing: false,
        }
    }

    pub fn request(&self) -> Bytes {
        self.request.clone()
    }

    /// The request as it is to be sent now: what waits at a server does so only for what is left of its time.
    pub fn rest(&self, row: Option<&Row>, request: &Request<'_>) -> Bytes {
        let Some(timeout) = timeout_of(row, request) else { return self.request() };
        let Some(left) = timeout.after(self.since.elapsed()) else { return self.request() };
        let args: Vec<_> = (0..request.len())
            .map(|i| if i == timeout.at { left.as_bytes() } else { request.arg(i) })
            .collect();
        let mut out = BytesMut::new();
        encode::command(&mut out, &args);
        out.freeze()
    }
}
