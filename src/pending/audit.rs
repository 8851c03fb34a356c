//! A comparison of a cached reply with the upstream's, in flight.
//!
//! Invariants: a reply that differs is not wrong yet, for its invalidation may be on the way. It is
//! counted as stale, and logged with the key's history, if the very same entry may still be served when
//! `max-staleness` is over; that must never happen.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tracing::error;

use crate::cache::{EntryKeyBuf, Micros, Reason, Sample};
use crate::command::Row;
use crate::process::{Process, why};
use crate::upstream::{At, Chunk};

/// One comparison in flight.
pub struct Audit {
    pub sample: Sample,
    pub reply: BytesMut,
}

impl Audit {
    pub fn reply(mut self: Box<Self>, process: &Arc<Process>, chunk: Chunk<'_>, at: At) -> Option<Box<Self>> {
        // What is longer than the cached reply differs from it anyhow.
        if self.reply.len() <= self.sample.reply.len() {
            self.reply.extend_from_slice(&chunk);
        }
        if !at.last {
            return Some(self);
        }
        let unordered = process.table().row(self.sample.name.borrow().command).is_some_and(Row::is_unordered);
        if agree(&self.reply, &self.sample.reply, unordered) {
            process.metrics.audits_agreed.inc();
        } else {
            tokio::task::spawn_local(watch(process.clone(), self.sample.name, self.sample.opened));
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
async fn watch(process: Arc<Process>, name: EntryKeyBuf, opened: Micros) {
    let namespace = process.namespaces.find(name.borrow().key);
    let bound = process.max_staleness(namespace);
    let begun = process.now();
    let pause = Duration::from_micros((bound / 50).clamp(100, 10_000));
    loop {
        let now = process.now();
        let Some(fresh) = process.cache.is_fresh(&name.borrow(), opened, bound, now) else {
            process.metrics.audits_overtaken.inc();
            process.metrics.audit_staleness.observe(now - begun, 1);
            return;
        };
        if fresh && now - begun > bound {
            process.metrics.audits_stale.inc();
            let key = name.borrow().key;
            let history = why(&process, key, None).join("; ");
            let key = Bytes::copy_from_slice(key);
            error!(?key, history, "a stale reply is served beyond max-staleness");
            // Whatever the cause, nobody is to be served it again.
            process.cache.invalidate(&key, Reason::Audit, now);
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
