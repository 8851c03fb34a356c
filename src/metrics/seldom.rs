//! What happens often and is told seldom: one line when it begins, one for each reason that is new, and one a minute while
//! it lasts.
//!
//! Invariants: however often it happens, and for however many reasons in turn, there are at most [`REASONS`] lines a minute.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How often at most, for one reason.
const PAUSE: Duration = Duration::from_secs(60);

/// So many reasons are told within that time.
const REASONS: usize = 8;

/// Says when it is time for a line of the log. One for each kind of line.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    untold: u64,
    /// What was told since the last line that came for its time, by its hash.
    told: Vec<u64>,
    hasher: RandomState,
}

impl Seldom {
    /// It has happened again. If it is to be told now: how often it went untold since the last line.
    pub fn now(&self) -> Option<u64> {
        self.of("")
    }

    /// Likewise of what happens for one reason or another: one that was not told lately is told at once.
    pub fn of(&self, why: &str) -> Option<u64> {
        self.at(Instant::now(), why)
    }

    /// It is over: when it happens again, it begins anew. Says whether it was told.
    pub fn over(&self) -> bool {
        self.0.lock().last.take().is_some()
    }

    fn at(&self, now: Instant, why: &str) -> Option<u64> {
        let mut state = self.0.lock();
        let why = state.hasher.hash_one(why);
        let lately = state.last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE);
        if lately && (state.told.contains(&why) || state.told.len() == REASONS) {
            state.untold += 1;
            return None;
        }
        if !lately {
            state.last = Some(now);
            state.told.clear();
        }
        state.told.push(why);
        Some(std::mem::take(&mut state.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_then_one_a_minute_with_the_number_of_the_others() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let at = |seconds| seldom.at(start + Duration::from_secs(seconds), "");
        assert_eq!(at(0), Some(0));
        assert_eq!((at(1), at(59)), (None, None));
        assert_eq!((at(60), at(61), at(125)), (Some(2), None, Some(1)));
        assert_eq!(at(500), Some(0));
        assert!(seldom.over() && !seldom.over());
        assert_eq!((at(501), at(502)), (Some(0), None));
    }

    #[test]
    fn another_reason_is_told_at_once_and_there_is_an_end_to_that() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let at = |seconds, why: &str| seldom.at(start + Duration::from_secs(seconds), why);
        assert_eq!((at(0, "refused"), at(1, "refused"), at(2, "refused")), (Some(0), None, None));
        assert_eq!(
            (at(3, "slow"), at(4, "slow"), at(5, "refused")),
            (Some(2), None, None),
            "the minute goes on"
        );
        // Two that come in turn are told once each in a minute.
        assert_eq!((at(60, "refused"), at(61, "slow"), at(62, "refused")), (Some(2), Some(0), None));
        let lines = (0..1000).filter(|i| at(63, &i.to_string()).is_some()).count();
        assert_eq!(lines, REASONS - 2);
        assert_eq!(at(120, "new"), Some(1000 - lines as u64));
        assert!(seldom.over());
        assert_eq!(at(121, "new"), Some(0));
    }
}
