//! Commands that wait at the server: which, and for how long.

use std::time::Duration;

use crate::command::Row;
use crate::reply::{ReplyQueue, ReplySlot};
use crate::resp::request::Request;

/// For how long a request may wait.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wait {
    No,
    Bounded,
    ForEver,
}

/// Where a request says for how long it may wait at the server.
pub struct Timeout {
    /// Which argument it is.
    pub at: usize,
    /// It is in milliseconds, and a whole number.
    is_millis: bool,
    value: f64,
}

impl Timeout {
    /// What is left of it after so long, never for ever; `None` if it has no end.
    pub fn after(&self, waited: Duration) -> Option<String> {
        if self.value <= 0.0 {
            return None;
        }
        Some(match self.is_millis {
            true => format!("{:.0}", (self.value - waited.as_secs_f64() * 1000.0).max(1.0)),
            false => format!("{:.3}", (self.value - waited.as_secs_f64()).max(0.001)),
        })
    }
}

/// Where this request says for how long it waits, if it says so.
pub fn timeout_of(row: Option<&Row>, request: &Request<'_>) -> Option<Timeout> {
    let last = request.len() - 1;
    let block = || (1..last).find(|i| request.arg(*i).eq_ignore_ascii_case(b"block")).map(|i| i + 1);
    let (at, is_millis) = match &*row?.name {
        "blpop" | "brpop" | "brpoplpush" | "blmove" | "bzpopmin" | "bzpopmax" => (Some(last), false),
        "wait" | "waitaof" => (Some(last), true),
        "blmpop" | "bzmpop" => (Some(1), false),
        "xread" | "xreadgroup" => (block(), true),
        _ => return None,
    };
    let text = std::str::from_utf8(request.get(at?)?).ok()?;
    Some(Timeout { at: at?, is_millis, value: text.parse().ok()? })
}

impl Wait {
    fn of(row: Option<&Row>, request: &Request<'_>) -> Self {
        // A module's: it says so, and nothing more is known.
        if row.is_some_and(|row| row.name.contains('.')) {
            return Wait::Bounded;
        }
        match timeout_of(row, request) {
            Some(Timeout { value: 0.0, .. }) => Wait::ForEver,
            Some(_) => Wait::Bounded,
            None => Wait::No,
        }
    }
}

/// What of a session waits at the server.
#[derive(Default)]
pub struct Waits {
    /// The newest request that waits, and the newest that may do so for ever.
    newest: Option<u64>,
    for_ever: Option<u64>,
    /// Which of them the server was asked to let go, and whether because the process stops.
    let_go: Option<(u64, bool)>,
}

impl Waits {
    /// Notes for how long the request waits that is about to open this slot.
    pub fn note(&mut self, row: Option<&Row>, request: &Request<'_>, slot: u64) {
        match Wait::of(row, request) {
            Wait::No => return,
            Wait::Bounded => {}
            Wait::ForEver => self.for_ever = Some(slot),
        }
        self.newest = Some(slot);
    }

    /// Whether one of these is the newest request that waits.
    pub fn are_of(&self, slots: &[ReplySlot]) -> bool {
        slots.iter().any(|to| self.newest == Some(to.slot))
    }

    /// Whether what is open may never be answered.
    pub fn may_never_end(&self, queue: &ReplyQueue) -> bool {
        self.for_ever.is_some_and(|slot| queue.is_awaited(slot))
    }

    /// The request that the server is to be asked to let go, unless it was asked already.
    pub fn take(&mut self, queue: &ReplyQueue, stops: bool) -> Option<u64> {
        let slot = self.newest.filter(|slot| queue.is_awaited(*slot))?;
        (self.let_go.replace((slot, stops)) != Some((slot, stops))).then_some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_time_is_said_as_the_command_says_it_and_is_never_for_ever() {
        let of = |value, is_millis| Timeout { at: 1, is_millis, value };
        let after = |timeout: Timeout, millis| timeout.after(Duration::from_millis(millis));
        assert_eq!(after(of(10.0, false), 2500).as_deref(), Some("7.500"));
        assert_eq!(after(of(0.5, false), 800).as_deref(), Some("0.001"));
        assert_eq!(after(of(5000.0, true), 1200).as_deref(), Some("3800"));
        assert_eq!(after(of(100.0, true), 100).as_deref(), Some("1"));
        assert_eq!(after(of(0.0, true), 100), None);
        assert_eq!(after(of(-1.0, false), 100), None, "wrong, and for the server to say so");
    }
}
