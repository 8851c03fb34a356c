//! What a session knows of its requests that go [again](super::again), while there are any.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Sleep;

/// How often a request is sent again, at most.
pub(super) const TURNS: u32 = 5;

/// Before it is, the first time and at most, where its slot or its keys have moved.
pub(super) const MOVED: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
pub(super) const KEYS_MOVE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// For how long, where replies are waited for as long as they take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Why a request is not sent again, as metrics count it.
#[derive(Clone, Copy)]
pub(super) enum Unsent {
    Overtaken,
    Exhausted,
}

/// See the [module](self).
#[derive(Default)]
pub(super) struct Resending {
    pub(super) timer: Option<Pin<Box<Sleep>>>,
    /// Which reply slot's request went first of each hash slot, and the hash slots of which one was taken.
    pub(super) first: HashMap<u16, u64>,
    pub(super) open: HashSet<u16>,
    /// One has gone to a node that does not own its keys: until it is answered nothing goes to the owner.
    pub(super) asks: bool,
    /// How long they pause, which has chance in it: those that were refused together go together.
    pub(super) pauses: HashMap<(Duration, u32), Duration>,
}

impl Resending {
    /// Whether any of it is left from the last time.
    pub(super) fn is_begun(&self) -> bool {
        self.asks || !self.first.is_empty() || !self.open.is_empty() || !self.pauses.is_empty()
    }
}
