//! Which misses are sampled, and those that have ended and wait to be told to a collector.
//!
//! Invariants:
//! - While nothing is to be sampled a miss reads one atomic that nobody writes, and nothing else is done. A hit never asks.
//! - At most [`MOST`] wait. The oldest gives way to the newest, which tells more of what goes on, and is counted.
//! - Neither a key nor a value is in any of them: these are the user's.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::cache::{Micros, Reason};
use crate::io::Address;
use crate::metrics::Counter;

/// How many wait at most.
const MOST: usize = 2048;

/// A sampled miss that has ended: the read that was answered, and within it the request upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    pub id: u128,
    /// The numbers of its two spans.
    pub read: u64,
    pub asked: u64,
    /// The command, in capitals.
    pub command: Box<str>,
    /// `None` if it is not known any more.
    pub db: Option<u32>,
    /// How many were fetched.
    pub keys: usize,
    /// `None` is outside of all.
    pub namespace: Option<Box<str>>,
    pub upstream: Option<Arc<Address>>,
    /// Why the key was not there: its last change.
    pub why: Reason,
    /// What became of the reply; `None` if there was none, or there were several.
    pub outcome: Option<Reason>,
    /// The first word of the upstream's error, or that there was no reply.
    pub error: Option<Box<str>>,
    /// When the request was read, when it was sent, when its reply came, and when that was handed over.
    pub since: Micros,
    pub sent: Micros,
    pub heard: Micros,
    pub end: Micros,
    /// The last of these by the clock on the wall.
    pub ended_at: SystemTime,
}

impl Trace {
    /// How many spans it is told as.
    pub const SPANS: u64 = 2;

    /// The error of a request to which no reply came.
    pub(super) const UNANSWERED: &str = "no_reply";

    /// Whether no reply came, not even an error.
    pub fn is_unanswered(&self) -> bool {
        self.error.as_deref() == Some(Self::UNANSWERED)
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Traces {
    /// A miss is sampled if its number is not above this; 0 is off.
    below: AtomicU64,
    /// Keyed by the system, so numbers are those of nobody else.
    random: RandomState,
    drawn: AtomicU64,
    waiting: Mutex<VecDeque<Trace>>,
    /// Told of each that is added.
    added: Notify,
}

impl Traces {
    /// From now on this part of the misses is sampled, from 0 to 1.
    pub fn sample(&self, ratio: f64) {
        // As large as can be, if it is all of them.
        let below = (ratio * 2f64.powi(64)) as u64;
        self.below.store(if ratio > 0.0 { below.max(1) } else { 0 }, Ordering::Relaxed);
    }

    #[inline]
    pub fn are_on(&self) -> bool {
        self.below.load(Ordering::Relaxed) != 0
    }

    /// The numbers of a trace and its two spans, if one is to be begun.
    pub(super) fn draw(&self) -> Option<(u128, [u64; 2])> {
        let turn = self.drawn.fetch_add(1, Ordering::Relaxed);
        let number = |which: u8| self.random.hash_one((turn, which)).max(1);
        if number(0) > self.below.load(Ordering::Relaxed) {
            return None;
        }
        let id = u128::from(number(1)) << 64 | u128::from(number(2));
        Some((id, [number(3), number(4)]))
    }

    pub(super) fn add(&self, trace: Trace, crowded: &Counter) {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= MOST {
            waiting.pop_front();
            crowded.add(Trace::SPANS);
        }
        waiting.push_back(trace);
        drop(waiting);
        self.added.notify_one();
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Waits until one was added since this was last waited for. For one task.
    pub async fn added(&self) {
        self.added.notified().await;
    }

    /// The oldest of those that wait, so many at most.
    pub fn take(&self, most: usize) -> Vec<Trace> {
        let mut waiting = self.waiting.lock();
        let most = most.min(waiting.len());
        waiting.drain(..most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(id: u128) -> Trace {
        Trace {
            id,
            read: 1,
            asked: 2,
            command: "GET".into(),
            db: Some(0),
            keys: 1,
            namespace: None,
            upstream: None,
            why: Reason::Unknown,
            outcome: None,
            error: None,
            since: 1,
            sent: 2,
            heard: 3,
            end: 4,
            ended_at: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn as_many_are_sampled_as_was_said_each_with_numbers_of_its_own() {
        let traces = Traces::default();
        assert!(!traces.are_on());
        let sampled = |ratio| {
            traces.sample(ratio);
            (0..10_000).filter_map(|_| traces.draw()).collect::<Vec<_>>()
        };
        let all = sampled(1.0);
        assert!(all.len() == 10_000 && traces.are_on());
        let ids: std::collections::HashSet<_> = all.iter().map(|(id, _)| id).collect();
        assert_eq!(ids.len(), all.len());
        assert!(all.iter().all(|(id, [read, asked])| *id > u64::MAX.into() && read != asked));
        // Four hundred, give or take more than chance does in the age of the universe.
        assert!((200..600).contains(&sampled(0.04).len()));
        assert!(sampled(1e-18).is_empty() && traces.are_on());
        assert!(sampled(0.0).is_empty() && !traces.are_on());
    }

    #[test]
    fn the_oldest_gives_way_and_is_counted() {
        let (traces, crowded) = (Traces::default(), Counter::default());
        (0..MOST as u128 + 3).for_each(|id| traces.add(trace(id), &crowded));
        assert_eq!((traces.waiting(), crowded.get()), (MOST, 3 * Trace::SPANS));
        assert_eq!(traces.take(2), [trace(3), trace(4)]);
        assert_eq!((traces.take(usize::MAX).len(), traces.waiting()), (MOST - 2, 0));
    }
}
