//! What the flusher has asked, in the order in which it is answered.
//!
//! Invariants: how many flushes are under way, and how many wait for what stands upstream, is known without a look at all.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::flushing::Flush;
use super::queues::Key;

/// What the next reply is to.
pub(super) enum Asked {
    Flush(Flush),
    /// `GET`, and then `PTTL`, of a key; whether a client still waits.
    Value(Key, Instant, bool),
    Time(Key, Bytes),
    /// Nothing minds.
    Read,
    /// Whether the upstream is there again.
    Ping,
}

/// See the [module](self).
#[derive(Default)]
pub(super) struct AllAsked {
    all: VecDeque<Asked>,
    flushes: usize,
    reads: usize,
    waiting: usize,
}

impl AllAsked {
    pub(super) fn push(&mut self, asked: Asked) {
        self.flushes += usize::from(matches!(asked, Asked::Flush(_)));
        self.reads += usize::from(matches!(asked, Asked::Value(..)));
        self.waiting += usize::from(matches!(asked, Asked::Value(_, _, true)));
        self.all.push_back(asked);
    }

    /// What is answered next, taken out.
    pub(super) fn pop(&mut self) -> Option<Asked> {
        let asked = self.all.pop_front()?;
        self.flushes -= usize::from(matches!(asked, Asked::Flush(_)));
        self.reads -= usize::from(matches!(asked, Asked::Value(..)));
        self.waiting -= usize::from(matches!(asked, Asked::Value(_, _, true)));
        Some(asked)
    }

    /// The `GET` before it was answered with this.
    pub(super) fn note_value(&mut self, reply: &Bytes) {
        if let Some(Asked::Time(_, value)) = self.all.front_mut() {
            *value = reply.clone();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Flushes that are under way.
    pub(super) fn flushes(&self) -> usize {
        self.flushes
    }

    /// Keys that are being read.
    pub(super) fn reads(&self) -> usize {
        self.reads
    }

    /// Since when the first one waits for what stands upstream.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        if self.waiting == 0 {
            return None;
        }
        self.all.iter().find_map(|asked| match asked {
            Asked::Value(_, since, true) => Some(*since),
            _ => None,
        })
    }

    /// Keys that have waited so long for that, and do not any more.
    pub(super) fn overdue(&mut self, limit: Duration) -> Vec<Key> {
        let mut overdue = Vec::new();
        if self.waits_since().is_none_or(|since| since.elapsed() < limit) {
            return overdue;
        }
        for asked in &mut self.all {
            match asked {
                Asked::Value(key, since, waits) if *waits && since.elapsed() >= limit => {
                    *waits = false;
                    self.waiting -= 1;
                    overdue.push(key.clone());
                }
                // They stand in the order in which they were asked.
                Asked::Value(_, since, true) if since.elapsed() < limit => break,
                _ => {}
            }
        }
        overdue
    }

    pub(super) fn pings(&self) -> bool {
        self.all.iter().any(|asked| matches!(asked, Asked::Ping))
    }
}

#[cfg(test)]
mod tests {
    use super::super::op::Op;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_long_is_told_once() {
        let (mut asked, limit) = (AllAsked::default(), Duration::from_secs(1));
        let value = |key: &[u8]| Asked::Value(key.into(), Instant::now(), true);
        asked.push(Asked::Flush(Flush { key: (*b"f").into(), op: Op::Delete, bases: Vec::new() }));
        asked.push(value(b"a"));
        asked.push(Asked::Time((*b"a").into(), Bytes::new()));
        tokio::time::advance(limit / 2).await;
        asked.push(value(b"b"));
        assert_eq!((asked.overdue(limit).len(), asked.flushes()), (0, 1));
        tokio::time::advance(limit / 2).await;
        let since = Instant::now() - limit / 2;
        assert_eq!(asked.overdue(limit), [Key::from(&b"a"[..])]);
        assert_eq!((asked.overdue(limit).len(), asked.waits_since()), (0, Some(since)));
        assert!(matches!(asked.pop(), Some(Asked::Flush(_))) && asked.flushes() == 0);
        assert!(matches!(asked.pop(), Some(Asked::Value(_, _, false))));
        asked.note_value(&Bytes::from_static(b"x"));
        assert!(matches!(asked.pop(), Some(Asked::Time(_, value)) if value == "x"));
        assert!(matches!(asked.pop(), Some(Asked::Value(_, _, true))) && asked.waits_since().is_none());
        assert!(asked.pop().is_none());
    }
}
