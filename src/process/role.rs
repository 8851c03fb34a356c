//! A server that takes no writes any more: all connections to it are left, once new ones lead to one that does.
//!
//! Invariants:
//! - Where new connections lead is asked before anything is left, so a replica that is used on purpose keeps its links and
//!   what is cached, whatever is written to it. It is asked a while on, for the address may be given to the new primary
//!   some time after the old one was demoted; and seldom.
//! - **The era** counts how often the upstream was left. What is read on a connection of an older era is not filled: it
//!   might be another server's than the one whose changes the feed tells.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::cache::Micros;

/// How long it is doubted after the last sign.
pub(super) const DOUBTED: Duration = Duration::from_secs(60);

/// See the [module](self).
pub struct Role {
    /// When there was last a sign that the server is no primary any more; 0 if there is no doubt.
    sign: AtomicU64,
    doubted: Notify,
    /// New connections led to a primary when that was last asked: one that takes no writes is not where they lead.
    leads_to_primary: AtomicBool,
    era: watch::Sender<u64>,
}

impl Default for Role {
    fn default() -> Self {
        Self {
            sign: AtomicU64::new(0),
            doubted: Notify::new(),
            leads_to_primary: AtomicBool::new(false),
            era: watch::Sender::new(0),
        }
    }
}

impl Role {
    /// The server has refused a write because it is a replica, or was told to become one.
    pub fn doubt(&self, now: Micros) {
        self.sign.fetch_max(now, Ordering::Relaxed);
        self.doubted.notify_one();
    }

    pub fn era(&self) -> u64 {
        *self.era.borrow()
    }

    /// Told when the upstream is left.
    pub fn left(&self) -> watch::Receiver<u64> {
        self.era.subscribe()
    }

    /// More to come, or the last is long ago.
    pub(super) async fn doubted(&self) {
        self.doubted.notified().await;
    }

    /// Where new connections lead.
    pub(super) fn leads_to(&self, is_primary: bool) {
        self.leads_to_primary.store(is_primary, Ordering::Relaxed);
    }

    /// The upstream is left: the doubt is over, and another era begins.
    pub(super) fn leave(&self) {
        self.sign.store(0, Ordering::Relaxed);
        self.era.send_modify(|era| *era += 1);
    }

    pub fn leads_to_primary(&self) -> bool {
        self.leads_to_primary.load(Ordering::Relaxed)
    }

    pub(super) fn is_doubted(&self, now: Micros) -> bool {
        let sign = self.sign.load(Ordering::Relaxed);
        sign > 0 && now.saturating_sub(sign) <= DOUBTED.as_micros() as Micros
    }
}

/// Whether an error says that the server takes no writes because it is a replica; a script's, or that of a transaction, says
/// so within.
pub fn is_readonly(error: &[u8]) -> bool {
    const WORDS: &[u8] = b"READONLY You can't write";
    // Servers of other makes may say it in other words.
    error.starts_with(b"-READONLY") || memchr::memmem::find(error, WORDS).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_that_it_is_a_replica_is_known() {
        for error in [
            "-READONLY You can't write against a read only replica.\r\n",
            "-READONLY You can't write against a read only slave.\r\n",
            "-EXECABORT Transaction discarded because of: READONLY You can't write against a read only replica.\r\n",
            "-ERR Error running script: @user_script: 1: -READONLY You can't write against a read only replica.\r\n",
        ] {
            assert!(is_readonly(error.as_bytes()), "{error}");
        }
        for error in
            ["-ERR unknown command 'READONLY'\r\n", "-NOREPLICAS Not enough good replicas to write.\r\n"]
        {
            assert!(!is_readonly(error.as_bytes()), "{error}");
        }
    }

    #[test]
    fn a_doubt_ends() {
        let role = Role::default();
        assert!(!role.is_doubted(1));
        role.doubt(5);
        let last = 5 + DOUBTED.as_micros() as Micros;
        assert!(role.is_doubted(5) && role.is_doubted(last) && !role.is_doubted(last + 1));
    }
}
