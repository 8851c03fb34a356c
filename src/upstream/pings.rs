//! Whether a connection still answers: how often it is asked, and until when it must have answered.
//!
//! Invariants: a connection that goes dead is known to be dead within the bound. It was asked for the
//! first time thereafter at most [`Pace::every`] later, and [`Pace::patience`] after that it is given up; the
//! two are shorter than the bound by what it takes to wake a task.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

/// The request, whole: asks whether the other side lives, or for an answer that stands behind another.
pub const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// Below this bound it is of no use to hurry.
const LEAST: Duration = Duration::from_millis(20);

/// When a connection is asked whether it lives.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From one `PING` to the next.
    pub every: Duration,
    /// How long its answer may take.
    pub patience: Duration,
}

impl Pace {
    /// By which a dead connection is known within `bound`.
    pub fn within(bound: Duration) -> Self {
        let least = bound.max(LEAST);
        let spare = (least / 15).max(Duration::from_millis(3));
        Self { every: (bound / 3).max(Duration::from_millis(2)), patience: least - least / 3 - spare }
    }
}

/// When the `PING`s were sent that are not answered yet, in microseconds, oldest first.
#[derive(Debug, Default)]
pub struct Pings(RefCell<VecDeque<u64>>);

impl Pings {
    pub fn sent(&self, at: u64) {
        self.0.borrow_mut().push_back(at);
    }

    /// The oldest was answered.
    pub fn answered(&self) {
        self.0.borrow_mut().pop_front();
    }

    /// None will be answered: the connection is gone.
    pub fn forget(&self) {
        self.0.borrow_mut().clear();
    }

    pub fn oldest(&self) -> Option<u64> {
        self.0.borrow().front().copied()
    }

    /// How long the oldest may still be in coming; zero if it is overdue, `None` if nothing is awaited.
    pub fn left(&self, pace: Pace, now: u64) -> Option<Duration> {
        let waited = Duration::from_micros(now.saturating_sub(self.oldest()?));
        Some(pace.patience.saturating_sub(waited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_moment_of_death_it_is_known_within_the_bound() {
        for millis in [20, 50, 200, 1000, 60_000] {
            let bound = Duration::from_millis(millis);
            let Pace { every, patience } = Pace::within(bound);
            assert!(every + patience + Duration::from_millis(2) <= bound, "{bound:?}");
            assert!(patience >= bound / 2, "{bound:?}: a slow answer is one all the same");
        }
        let tight = Pace::within(Duration::from_millis(1));
        assert!(tight.every <= tight.patience, "{tight:?}");
    }

    #[test]
    fn the_oldest_is_waited_for() {
        let (pings, pace) = (Pings::default(), Pace::within(Duration::from_secs(1)));
        assert_eq!(pings.left(pace, 5), None);
        pings.sent(1_000);
        pings.sent(400_000);
        assert_eq!(pings.left(pace, 1_000), Some(pace.patience));
        assert_eq!(pings.left(pace, 900_000), Some(Duration::ZERO));
        pings.answered();
        assert!(pings.left(pace, 900_000).is_some_and(|left| !left.is_zero()));
        pings.forget();
        assert_eq!(pings.oldest(), None);
    }
}
