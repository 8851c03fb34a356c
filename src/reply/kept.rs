//! What a slot keeps of its request in front of a cluster.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::io::Address;
use crate::resp::Redirection;

/// Bytes of requests that a queue keeps, at most, before it opens no more than a few slots at a time.
pub(super) const KEPT: usize = 16 << 20;

/// Why a request was not executed, in the words that its client gets if it is not sent again.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// What the server said; `None` if it could not be sent.
    pub said: Option<Redirection>,
    /// Where that server is, if it matters.
    pub by: Option<Arc<Address>>,
    /// The whole reply.
    pub line: Bytes,
}

impl Refusal {
    pub(super) fn is_ask(&self) -> bool {
        matches!(self.said, Some(Redirection::Ask { .. }))
    }
}

/// How it stands with a request that was put back.
#[derive(Clone, Debug)]
pub struct Again {
    /// The last one.
    pub refusal: Refusal,
    /// How often it was sent again.
    pub turns: u32,
    /// When it was first put back, and when lately.
    pub first: Instant,
    pub since: Instant,
    /// The one before was an `ASK`.
    pub was_asked: bool,
}

/// The request of a slot, in front of a cluster.
pub(super) struct Kept {
    pub(super) request: Bytes,
    /// What is left of it to be sent again, if that is not all.
    pub(super) rest: Option<Bytes>,
    /// Once it was put back.
    pub(super) again: Option<Again>,
    /// It is on no link, and is to go there again.
    pub(super) is_back: bool,
}
