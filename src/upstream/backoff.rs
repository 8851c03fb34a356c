//! How soon a connection that was lost, or came to nothing, is made anew, and how often that is told.
//!
//! Invariants: whatever the other side does (it refuses, it accepts and closes, it answers and closes), the
//! attempts of one link come at most so often as the longest delay allows, but for a few at the beginning.

use std::time::Duration;

/// The first delay after a failure, and the longest.
const DELAYS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(150));

/// A connection that stood for so long was a good one, whatever it has ended by.
pub const LIVED: Duration = Duration::from_secs(1);

/// So many connections in a row that were lost soon are each made anew at once: so many in all, and so many on which
/// nothing was answered.
const AT_ONCE: (u32, u32) = (32, 2);

/// Doubles with each failure from the first delay to the longest; the upper half is random, so that many sidecars do
/// not come back in step.
pub fn backoff((first, longest): (Duration, Duration), failures: u32) -> Duration {
    let full = first.saturating_mul(1 << failures.min(16)).min(longest);
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), failures);
    full / 2 + (full / 2).mul_f64((random >> 11) as f64 / (1u64 << 53) as f64)
}

/// The failures in a row of one link.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
    /// Of these, the last on which nothing was answered.
    unanswered: u32,
}

impl Backoff {
    /// An attempt came to nothing: how long to wait before the next.
    pub fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.delay()
    }

    /// A connection was lost that stood for so long, and on which something was answered or not: how long to wait
    /// before the next.
    pub fn lost(&mut self, answered: bool, lived: Duration) -> Duration {
        // One that has served for a while and is closed by its age may be made anew at once again and again: that is as
        // often as the longest delay allows.
        let served = lived >= LIVED || answered && lived >= DELAYS.1;
        self.failures = if served { 0 } else { self.failures.saturating_add(1) };
        self.unanswered = if answered || lived >= LIVED { 0 } else { self.unanswered.saturating_add(1) };
        let (in_all, unanswered) = AT_ONCE;
        let at_once = self.failures <= in_all && self.unanswered <= unanswered;
        if at_once { Duration::ZERO } else { self.delay() }
    }

    fn delay(&self) -> Duration {
        backoff(DELAYS, self.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_longest_and_differ() {
        let between = (Duration::from_millis(10), Duration::from_millis(150));
        for failures in 0..100 {
            let full = Duration::from_millis(10 << failures.min(4)).min(between.1);
            let delay = backoff(between, failures);
            assert!(delay >= full / 2 && delay <= full, "{failures}: {delay:?}");
        }
        assert_ne!(backoff(between, 9), backoff(between, 9));
    }

    #[test]
    fn a_connection_that_comes_to_nothing_is_not_made_anew_at_once() {
        let mut backoff = Backoff::default();
        let lived = Duration::from_millis(1);
        let later: Vec<_> = (0..20).map(|_| backoff.lost(false, lived)).collect();
        assert!(!later[2].is_zero(), "but for a few");
        assert!(later[10..].iter().all(|delay| *delay >= DELAYS.1 / 2 && *delay <= DELAYS.1), "{later:?}");
        assert!(backoff.lost(false, LIVED).is_zero(), "one that has lived is");
        assert!(backoff.failed() <= DELAYS.0 * 2, "and the first attempts after it come soon");
    }

    #[test]
    fn one_that_answers_is_made_anew_at_once_but_not_for_ever() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..AT_ONCE.0 + 10).map(|_| backoff.lost(true, Duration::ZERO)).collect();
        let (at_once, later) = delays.split_at(AT_ONCE.0 as usize);
        assert!(at_once.iter().all(Duration::is_zero) && !later.iter().any(Duration::is_zero));
        assert!(
            (0..100).all(|_| backoff.lost(true, DELAYS.1).is_zero()),
            "unless it serves for a while each time"
        );
    }
}
