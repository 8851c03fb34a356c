//! What happens often and is told seldom: one line when it begins, and one a minute while it lasts.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How often at most.
const PAUSE: Duration = Duration::from_secs(60);

/// Says when it is time for a line of the log. One for each kind of line.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// It has happened again. If it is to be told now: how often it went untold since the last line.
    pub fn now(&self) -> Option<u64> {
        self.at(Instant::now())
    }

    /// It is over: when it happens again, it begins anew. Says whether it was told.
    pub fn over(&self) -> bool {
        self.0.lock().last.take().is_some()
    }

    fn at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            state.untold += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_then_one_a_minute_with_the_number_of_the_others() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let at = |seconds| seldom.at(start + Duration::from_secs(seconds));
        assert_eq!(at(0), Some(0));
        assert_eq!((at(1), at(59)), (None, None));
        assert_eq!((at(60), at(61), at(125)), (Some(2), None, Some(1)));
        assert_eq!(at(500), Some(0));
        assert!(seldom.over() && !seldom.over());
        assert_eq!((at(501), at(502)), (Some(0), None));
    }
}
