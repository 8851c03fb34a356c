//! A server that takes no writes any more: all connections to it are left, once new ones lead to one that does.
//!
//! Invariants:
//! - Where new connections lead is asked before anything is left, so a replica that is used on purpose keeps its links and
//!   what is cached, whatever is written to it. It is asked a while on, for the address may be given to the new primary
//!   some time after the old one was demoted; and seldom.
//! - **The era** counts how often the upstream was left. What is read on a connection of an older era is not filled: it
//!   might be another server's than the one whose changes the feed tells.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tracing::warn;

use super::shared::{Shared, micros};
use crate::cache::Micros;
use crate::resp::Protocol;
use crate::upstream::{Identity, Reached, backoff};

/// How long it is doubted after the last sign.
const DOUBTED: Duration = Duration::from_secs(60);

/// Between two questions where new connections lead.
const ASKED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

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

    pub fn leads_to_primary(&self) -> bool {
        self.leads_to_primary.load(Ordering::Relaxed)
    }

    fn is_doubted(&self, now: Micros) -> bool {
        let sign = self.sign.load(Ordering::Relaxed);
        sign > 0 && now.saturating_sub(sign) <= micros(DOUBTED)
    }
}

/// Whether an error says that the server takes no writes because it is a replica; a script's, or that of a transaction, says
/// so within.
pub(super) fn is_readonly(error: &[u8]) -> bool {
    const WORDS: &[u8] = b"READONLY You can't write";
    // Servers of other makes may say it in other words.
    error.starts_with(b"-READONLY") || memchr::memmem::find(error, WORDS).is_some()
}

/// Asks where new connections lead while that is in doubt. Runs until it is dropped.
pub async fn watch_role(shared: Arc<Shared>) {
    let identity = Identity { login: shared.settings.login.clone(), db: 0, protocol: Protocol::Resp2 };
    let settings = shared.settings.upstream.without_limit();
    let role = &shared.role;
    let mut turns = 0;
    loop {
        while !role.is_doubted(shared.now()) {
            if timeout(DOUBTED, role.doubted.notified()).await.is_err() {
                turns = 0;
                role.doubted.notified().await;
            }
        }
        let reached = Reached::now(&settings, &identity).await;
        if let Some(reached) = reached {
            role.leads_to_primary.store(reached.is_replica == Some(false), Ordering::Relaxed);
            if is_better(&shared, reached) {
                leave(&shared);
            }
        }
        tokio::time::sleep(backoff(ASKED, turns)).await;
        turns += 1;
    }
}

/// Whether it is worth while to leave what the links are on for this. Where it does not say, it may be.
fn is_better(shared: &Shared, reached: Reached) -> bool {
    let present = shared.feed_up.borrow().and_then(|up| up.server);
    let same = present.is_some() && present == reached.server;
    !same && reached.is_replica != Some(true)
}

fn leave(shared: &Shared) {
    shared.role.sign.store(0, Ordering::Relaxed);
    // First no link fills any more that is not of the new era, then what was filled is void, and what is under way with it.
    shared.role.era.send_modify(|era| *era += 1);
    shared.cache.coverages().end(&shared.feed, shared.now());
    shared.metrics.servers_left.inc();
    if let Some(untold) = shared.metrics.servers_left_told.now() {
        let upstream = &shared.settings.upstream.address;
        warn!(
            %upstream,
            untold,
            "the server takes no writes any more and new connections lead to another: all links and the feed go there"
        );
    }
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
        let last = 5 + micros(DOUBTED);
        assert!(role.is_doubted(5) && role.is_doubted(last) && !role.is_doubted(last + 1));
    }
}
