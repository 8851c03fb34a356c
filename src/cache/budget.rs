//! What the cache may hold, which may change at any time.
//!
//! Invariants: more is allowed at once. Less is allowed step by step, each no larger than what a fill may have to make room
//! for: whoever fills the cache meanwhile evicts one step at most, and nobody is held up by a whole gigabyte.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How much less is allowed at once.
const STEP: usize = 64 << 10;

/// See the [module](self).
pub(super) struct Budget {
    /// What is allowed now, and in the end.
    bytes: AtomicUsize,
    wanted: AtomicUsize,
    /// The largest reply.
    value: AtomicUsize,
}

impl Budget {
    pub(super) fn new(bytes: usize, value: usize) -> Self {
        Self { bytes: bytes.into(), wanted: bytes.into(), value: value.into() }
    }

    /// What the entries may take, in bytes.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What a reply may have, in bytes.
    #[inline]
    pub(super) fn value(&self) -> usize {
        self.value.load(Ordering::Relaxed).min(self.bytes())
    }

    pub(super) fn change(&self, bytes: usize, value: usize) {
        self.value.store(value, Ordering::Relaxed);
        self.wanted.store(bytes, Ordering::Relaxed);
        self.bytes.fetch_max(bytes, Ordering::Relaxed);
    }

    /// Allows a step less than what is taken, unless that is what is wanted. False if nothing had to be done.
    pub(super) fn step(&self, taken: usize) -> bool {
        let (bytes, wanted) = (self.bytes(), self.wanted.load(Ordering::Relaxed));
        if bytes <= wanted {
            return false;
        }
        let less = wanted.max(taken.min(bytes).saturating_sub(STEP));
        // If more was allowed in between, that counts.
        self.bytes.compare_exchange(bytes, less, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_allowed_at_once_and_less_in_steps() {
        let budget = Budget::new(10 * STEP, 1000);
        budget.change(20 * STEP, 2000);
        assert_eq!((budget.bytes(), budget.value(), budget.step(0)), (20 * STEP, 2000, false));
        budget.change(100, 3000);
        assert_eq!((budget.bytes(), budget.value()), (20 * STEP, 3000));
        // What nobody takes is gone at once.
        assert!(budget.step(3 * STEP));
        assert_eq!(budget.bytes(), 2 * STEP);
        assert!(budget.step(2 * STEP) && budget.step(STEP));
        assert_eq!((budget.bytes(), budget.value(), budget.step(100)), (100, 100, false));
    }
}
