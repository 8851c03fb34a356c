//! How long to wait before the next attempt.

use std::time::Duration;

/// Doubles with each failure from the first delay to the longest; the upper half is random, so that many sidecars do
/// not come back in step.
pub fn backoff((first, longest): (Duration, Duration), failures: u32) -> Duration {
    let full = first.saturating_mul(1 << failures.min(16)).min(longest);
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), failures);
    full / 2 + (full / 2).mul_f64((random >> 11) as f64 / (1u64 << 53) as f64)
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
}
