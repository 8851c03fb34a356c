//! Keys that wait to be registered with a node's feed, before they are read into the cache.
//!
//! Invariants: so many wait at most; beyond that the fetch is given up, and its client was answered already. What waits is
//! let go when the feed is lost, so nobody waits for a registration that does not come.

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::inbox::Registration;

/// Keys that may wait, of one node.
const MAX_KEYS: usize = 1 << 14;

/// See the [module](self).
#[derive(Default)]
pub struct Registrar {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    registrations: Vec<Registration>,
    keys: usize,
}

impl Registrar {
    /// Has its keys registered. Gives it back if too many wait.
    pub fn ask(&self, registration: Registration) -> Result<(), Registration> {
        let mut waiting = self.waiting.lock();
        let keys = waiting.keys + registration.leases.len();
        if keys > MAX_KEYS {
            return Err(registration);
        }
        waiting.keys = keys;
        waiting.registrations.push(registration);
        drop(waiting);
        self.arrived.notify_one();
        Ok(())
    }

    /// There is something to be done, though nobody has asked.
    pub fn wake(&self) {
        self.arrived.notify_one();
    }

    /// All that wait now.
    pub fn take(&self) -> Vec<Registration> {
        std::mem::take(&mut *self.waiting.lock()).registrations
    }

    /// Ends when there may be something to take.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }
}
