//! `audit`: compares cached replies, taken at random, with the upstream's.
//!
//! Invariants: a reply that differs is not wrong yet, for its invalidation may be on the way. It is
//! counted as stale, and logged with the key's history, if the very same entry may still be served when
//! `max-staleness` is over; that must never happen.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tracing::error;

use super::core::send_on;
use super::expect::Pending;
use super::nearside::why;
use super::read::write_request;
use super::shared::Shared;
use super::worker::Worker;
use crate::cache::{EntryKeyBuf, Micros, Sample};
use crate::command::Row;
use crate::upstream::{At, Chunk, Outgoing};

/// One comparison in flight.
pub(super) struct Audit {
    sample: Sample,
    reply: BytesMut,
}

/// Takes a sample each `pause`, until the task is dropped.
pub(super) async fn run(worker: Rc<Worker>, pause: Duration) {
    let shared = worker.shared.clone();
    let mut tick = tokio::time::interval(pause);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let random = std::hash::RandomState::new();
    for turn in 0u64.. {
        tick.tick().await;
        let seed = std::hash::BuildHasher::hash_one(&random, turn);
        let Some(sample) = shared.cache.sample(seed, shared.now()) else { continue };
        let name = sample.name.borrow();
        let Some(link) = worker.known_link(name.ident) else { continue };
        let mut request = BytesMut::new();
        if write_request(&mut request, &shared.table(), &name) {
            let audit = Audit { sample, reply: BytesMut::new() };
            let pending = Pending::Audit(Box::new(audit));
            let _ = send_on(&link, shared.now(), |out: &mut Outgoing| out.append(request.freeze()), pending);
        }
    }
}

impl Audit {
    pub(super) fn reply(
        mut self: Box<Self>,
        shared: &std::sync::Arc<Shared>,
        chunk: Chunk<'_>,
        at: At,
    ) -> Option<Box<Self>> {
        // What is longer than the cached reply differs from it anyhow.
        if self.reply.len() <= self.sample.reply.len() {
            self.reply.extend_from_slice(&chunk);
        }
        if !at.last {
            return Some(self);
        }
        let unordered = shared.table().row(self.sample.name.borrow().command).is_some_and(Row::is_unordered);
        if agree(&self.reply, &self.sample.reply, unordered) {
            shared.metrics.audits_agreed.inc();
        } else {
            tokio::task::spawn_local(watch(shared.clone(), self.sample.name, self.sample.opened));
        }
        None
    }
}

/// Whether two replies say the same; of an unordered one, whether they are made of the same lines.
fn agree(a: &[u8], b: &[u8], unordered: bool) -> bool {
    let lines = |reply: &[u8]| {
        let mut lines: Vec<_> = reply.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort_unstable();
        lines
    };
    a == b || unordered && a.len() == b.len() && lines(a) == lines(b)
}

/// Waits for the end of an entry that the upstream contradicts.
async fn watch(shared: std::sync::Arc<Shared>, name: EntryKeyBuf, opened: Micros) {
    let namespace = shared.namespaces.find(name.borrow().key);
    let bound = shared.max_staleness(namespace);
    let begun = shared.now();
    let pause = Duration::from_micros((bound / 50).clamp(100, 10_000));
    loop {
        let now = shared.now();
        let Some(fresh) = shared.cache.is_fresh(&name.borrow(), opened, bound, now) else {
            shared.metrics.audits_overtaken.inc();
            shared.metrics.audit_staleness.observe(now - begun, 1);
            return;
        };
        if fresh && now - begun > bound {
            shared.metrics.audits_stale.inc();
            let key = name.borrow().key;
            let history = why(&shared, key, None).join("; ");
            let key = Bytes::copy_from_slice(key);
            error!(?key, history, "a stale reply is served beyond max-staleness");
            // Whatever the cause, nobody is to be served it again.
            shared.cache.invalidate(&key, crate::cache::Reason::Audit, now);
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_counts_where_there_is_one() {
        let (a, b) = (b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", b"*2\r\n$1\r\nb\r\n$1\r\na\r\n");
        assert!(agree(a, a, false) && agree(a, b, true));
        assert!(!agree(a, b, false));
        assert!(!agree(a, b"*2\r\n$1\r\na\r\n$1\r\nc\r\n", true));
    }
}
