//! What a session has claimed of the keys of write-back namespaces.

use tokio::time::Instant;

use crate::process::Ticket;
use crate::writeback::Claim;

/// Until when a claim is held.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Until {
    /// This slot's reply is there.
    Answered(u64),
    /// No transaction is open, nothing is watched, and all is answered.
    Over,
}

/// What a session has claimed.
#[derive(Default)]
pub(super) struct Claims {
    pub(super) held: Vec<(Until, Claim<Ticket>)>,
    /// For the request that is to be sent next.
    pub(super) next: Option<Next>,
    /// Why the last request that could not be sent was not.
    pub(super) error: String,
}

impl Claims {
    /// Whether nothing was claimed for the request that is sent now.
    pub(super) fn is_idle(&self) -> bool {
        self.next.is_none()
    }
}

pub(super) struct Next {
    pub(super) claims: Vec<Claim<Ticket>>,
    /// Since when it waits, and for which of them it is woken.
    pub(super) since: Option<Instant>,
    pub(super) woken_by: Option<usize>,
    /// It does nothing but wait (`NEARSIDE SYNC`, `WAIT`): nothing is claimed once what was dirty is flushed.
    pub(super) is_sync: bool,
}

impl Next {
    pub(super) fn new(claims: Vec<Claim<Ticket>>, is_sync: bool) -> Self {
        Self { claims, since: None, woken_by: None, is_sync }
    }
}
