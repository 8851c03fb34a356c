//! The barrier: when something ended that may have changed keys which nobody can name.
//!
//! A script writes what it likes, and what it does not declare is known to the upstream alone, whose tracking tells of
//! it on the feed. So when its reply comes, now is noted, before the reply is delivered. Invariants from then
//! on: an entry that was *opened* (its lease was given, so its read was not sent before) at or before the barrier is
//! not served, and a flight that was is not joined, until its coverage has [heard](Coverages::heard) what the
//! upstream said up to some moment behind the barrier. By then the entry is gone if the script has changed its key.
//!
//! One number is enough. What comes behind a newer barrier has come behind the older ones too, and an entry that was
//! opened behind the newest knows of all of them.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use super::coverage::{CoverageId, Coverages, Micros};

pub(super) struct Barrier {
    /// The newest; 0 if there was none yet.
    at: AtomicU64,
    /// The newest of those behind which it must be looked what nothing but `INFO` tells.
    looks: AtomicU64,
    raised: watch::Sender<Micros>,
}

impl Default for Barrier {
    fn default() -> Self {
        Self { at: AtomicU64::new(0), looks: AtomicU64::new(0), raised: watch::Sender::new(0) }
    }
}

impl Barrier {
    /// Raises it to `now`; `look` if what was done may have been anything, `SWAPDB` under another name too.
    pub(super) fn raise(&self, now: Micros, look: bool) {
        if look {
            self.looks.fetch_max(now, Ordering::SeqCst);
        }
        if self.at.fetch_max(now, Ordering::SeqCst) < now {
            self.raised.send_replace(now);
        }
    }

    pub(super) fn at(&self) -> Micros {
        self.at.load(Ordering::Acquire)
    }

    pub(super) fn to_look_behind(&self) -> Micros {
        self.looks.load(Ordering::SeqCst)
    }

    pub(super) fn told(&self) -> watch::Receiver<Micros> {
        self.raised.subscribe()
    }

    /// Whether what was opened at `opened` must not be served, because it may lack what came before the barrier.
    #[inline(always)]
    pub(super) fn holds(
        &self,
        coverages: &Coverages,
        under: CoverageId,
        opened: impl FnOnce() -> Micros,
    ) -> bool {
        let barrier = self.at();
        barrier != 0 && coverages.heard(under) <= barrier && opened() <= barrier
    }
}
