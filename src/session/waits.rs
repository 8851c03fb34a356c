//! Commands that wait at the server: which, and for how long.

use crate::command::Row;
use crate::reply::ReplyQueue;
use crate::resp::request::Request;

/// For how long a request may wait.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wait {
    No,
    Bounded,
    ForEver,
}

impl Wait {
    fn of(row: Option<&Row>, request: &Request<'_>) -> Self {
        let Some(row) = row else { return Wait::No };
        let last = request.len() - 1;
        let block = || (1..last).find(|i| request.arg(*i).eq_ignore_ascii_case(b"block")).map(|i| i + 1);
        let timeout = match &*row.name {
            "blpop" | "brpop" | "brpoplpush" | "blmove" | "bzpopmin" | "bzpopmax" | "wait" | "waitaof" => {
                Some(last)
            }
            "blmpop" | "bzmpop" => Some(1),
            "xread" | "xreadgroup" => block(),
            // A module's: it says so, and nothing more is known.
            name if name.contains('.') => return Wait::Bounded,
            _ => None,
        };
        let Some(timeout) = timeout.and_then(|i| request.get(i)) else { return Wait::No };
        match std::str::from_utf8(timeout).ok().and_then(|text| text.parse::<f64>().ok()) {
            Some(0.0) => Wait::ForEver,
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
