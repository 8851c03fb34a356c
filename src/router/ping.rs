//! Asking a link whether it lives.

use crate::cache::Micros;
use crate::pending::{InFlight, Link, Pending};
use crate::upstream::PING;

/// Asks it now. The answer proves what the upstream had sent before.
pub fn ping(link: &Link, now: Micros) {
    link.client().pings.sent(now);
    let _ = link.send(|out| out.copy(PING), InFlight { since: now, pending: Pending::Ping });
}
