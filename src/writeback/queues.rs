//! What is to be done next, and when: lists of keys. A key is in each at most once, but for the times, of which stale ones are
//! thrown away when they are more than the keys.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::cache::Micros;

pub(super) type Key = Box<[u8]>;

/// Stale times that may be kept beside as many as there are keys.
const SPARE: usize = 4096;

/// For the flusher.
#[derive(Default)]
pub(super) struct Queues {
    times: BinaryHeap<Reverse<(Micros, Key)>>,
    /// To be flushed now.
    pub(super) ready: VecDeque<Key>,
    /// What stands under them upstream is to be read: of those whose clients wait for that, and of the others.
    pub(super) awaited: Vec<Key>,
    pub(super) unread: VecDeque<Key>,
    /// So many of the times are to come as if they had.
    hurried: usize,
}

impl Queues {
    pub(super) fn at(&mut self, when: Micros, key: &[u8]) {
        self.times.push(Reverse((when, key.into())));
    }

    /// All whose time is known are to come as if it had.
    pub(super) fn hurry(&mut self) {
        self.hurried = self.times.len();
    }

    /// Keys whose time has come, each with that; not more than so many at a time.
    pub(super) fn due(&mut self, now: Micros, most: usize) -> Vec<(Micros, Key)> {
        let mut due = Vec::new();
        while due.len() < most && (self.hurried > 0 || self.next().is_some_and(|next| next <= now)) {
            self.hurried = self.hurried.saturating_sub(1);
            due.extend(self.times.pop().map(|Reverse(due)| due));
        }
        due
    }

    /// When the next one's time comes.
    pub(super) fn next(&self) -> Option<Micros> {
        if self.hurried > 0 {
            return Some(0);
        }
        self.times.peek().map(|Reverse((when, _))| *when)
    }

    /// Whether there are so many times that stale ones must be among them.
    pub(super) fn are_too_many(&self, keys: usize) -> bool {
        self.times.len() > 2 * keys + SPARE
    }

    /// Takes over what others had gathered.
    pub(super) fn take_over(&mut self, mut other: Self) {
        self.times.append(&mut other.times);
        self.ready.append(&mut other.ready);
        self.awaited.append(&mut other.awaited);
        self.unread.append(&mut other.unread);
        self.hurried = (self.hurried + other.hurried).min(self.times.len());
    }

    #[cfg(test)]
    pub(super) fn has(&self, when: Micros, key: &[u8]) -> bool {
        self.times.iter().any(|Reverse((at, name))| *at == when && **name == *key)
    }

    /// Keeps the times of which `holds` is true.
    pub(super) fn retain(&mut self, mut holds: impl FnMut(Micros, &[u8]) -> bool) {
        self.times.retain(|Reverse((when, key))| holds(*when, key));
    }
}

/// For the journal.
#[derive(Default)]
pub(super) struct ToJournal {
    pub(super) keys: Vec<Key>,
    /// Writes that lost, for the conflict log.
    pub(super) lost: Vec<Key>,
    /// Entries of the conflict log that are to go.
    pub(super) cleared: Vec<u64>,
    /// Keys that are clean, whose records are to go; and that somebody waits for that.
    pub(super) flushed: Vec<Key>,
    pub(super) hurry: bool,
}

impl ToJournal {
    pub(super) fn is_empty(&self) -> bool {
        self.flushed.is_empty() && self.keys.is_empty() && self.lost.is_empty() && self.cleared.is_empty()
    }

    /// Whether nobody waits for it to be done.
    pub(super) fn is_patient(&self) -> bool {
        !self.hurry && self.keys.is_empty() && self.lost.is_empty() && self.cleared.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_when_their_time_has_come_or_all_at_once() {
        let mut queues = Queues::default();
        for (when, key) in [(30, b"c"), (10, b"a"), (20, b"b")] {
            queues.at(when, key);
        }
        assert_eq!(queues.next(), Some(10));
        assert_eq!(queues.due(20, 9), [(10, Key::from(&b"a"[..])), (20, Key::from(&b"b"[..]))]);
        queues.at(40, b"d");
        queues.hurry();
        assert_eq!((queues.due(0, 9).len(), queues.next()), (2, None));
    }
}
