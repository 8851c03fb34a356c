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
        // It may be another meanwhile.
        if fresh && now - begun > bound.max(process.max_staleness(namespace)) {
            process.metrics.audits_stale.inc();
            let key = name.borrow().key;
            let history = why(&process, key, None).join("; ");
            let key = Bytes::copy_from_slice(key);
            error!(
                ?key,
                history,
                "a stale reply was served beyond max-staleness: a fault in nearside, please report this line"
            );
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
    use crate::cache::{Bounds, By, Cover, EntryKey, Expiry, LinkId, Lookup};
    use crate::process::{Ident, fixture};
    use crate::resp::Protocol;
    use crate::resp::scanner::Kind;

    #[test]
    fn the_order_counts_where_there_is_one() {
        let (a, b) = (b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", b"*2\r\n$1\r\nb\r\n$1\r\na\r\n");
        assert!(agree(a, a, false) && agree(a, b, true));
        assert!(!agree(a, b, false));
        assert!(!agree(a, b"*2\r\n$1\r\na\r\n$1\r\nc\r\n", true));
    }

    /// An entry of a process with this `max-staleness`, in microseconds, and when it was opened.
    fn with_entry(bound: Micros) -> (Arc<Process>, EntryKeyBuf, Micros) {
        let max_staleness = bound;
        let bound = Duration::from_micros(bound);
        let process =
            fixture::process_with(fixture::nowhere(), |settings| settings.max_staleness = bound.into());
        let ident = Ident { db: 0, protocol: Protocol::Resp2, user: None };
        let (ident, command) = (process.idents.number(&ident), process.get);
        let name = EntryKeyBuf::new(&EntryKey { key: b"k", ident, command, args: b"", by: By::GET });
        let coverages = process.cache.coverages();
        let slot = coverages.take().unwrap();
        // Proven for as long as the test runs.
        let coverage = coverages.arm(&slot, None, Micros::MAX / 4).unwrap();
        let bounds = Bounds { max_staleness, unreachable: false, group: 0 };
        let cover = || Some(Cover { coverage, link: LinkId::next(), registers: false });
        let found = process.cache.lookup(&name.borrow(), process.now(), bounds, cover, |_| None, |_| ());
        let Lookup::Miss(lease) = found else { panic!("it is not there yet") };
        let (opened, expiry) = (lease.opened(), Expiry { expires: Micros::MAX / 4, aged: false });
        lease.fill(b"$1\r\nv\r\n", expiry, process.now(), max_staleness).unwrap();
        (process, name, opened)
    }

    fn wait_until(process: &Process, then: Micros) {
        while process.now() < then {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    #[tokio::test]
    async fn what_is_served_beyond_the_bound_though_the_upstream_contradicts_it_is_told_and_dropped() {
        let (process, name, opened) = with_entry(40_000);
        wait_until(&process, 20_000);
        let begun = process.now();
        tokio::time::timeout(Duration::from_secs(20), watch(process.clone(), name, opened)).await.unwrap();
        assert!(process.now() - begun > 40_000, "not before the bound is over");
        let metrics = &process.metrics;
        assert_eq!((metrics.audits_stale.get(), metrics.audits_overtaken.get()), (1, 0));
        let ident = Ident { db: 0, protocol: Protocol::Resp2, user: None };
        let (ident, command) = (process.idents.number(&ident), process.get);
        let name = EntryKey { key: b"k", ident, command, args: b"", by: By::GET };
        assert_eq!(process.cache.is_fresh(&name, opened, 40_000, process.now()), None);
    }

    #[tokio::test]
    async fn what_is_dropped_within_the_bound_is_no_fault() {
        let (process, name, opened) = with_entry(60_000_000);
        wait_until(&process, 2_000);
        let begun = process.now();
        let drops = async {
            tokio::time::sleep(Duration::from_millis(3)).await;
            process.cache.invalidate(b"k", Reason::Tracking, process.now());
        };
        tokio::join!(watch(process.clone(), name, opened), drops);
        let metrics = &process.metrics;
        assert_eq!((metrics.audits_stale.get(), metrics.audits_overtaken.get()), (0, 1));
        let (buckets, micros) = metrics.audit_staleness.read();
        assert_eq!(buckets.iter().sum::<u64>(), 1);
        assert!((2_500..=process.now() - begun).contains(&micros), "from when it was contradicted: {micros}");
    }

    #[test]
    fn a_reply_in_pieces_is_compared_whole_and_no_more_of_it_is_kept_than_was_cached() {
        let (process, name, opened) = with_entry(40_000);
        let sample =
            || Sample { name: EntryKeyBuf::new(&name.borrow()), opened, reply: b"$4\r\nabcd\r\n"[..].into() };
        let mut audit = Some(Box::new(Audit { sample: sample(), reply: BytesMut::new() }));
        let pieces: [&[u8]; 3] = [b"$4\r\n", b"ab", b"cd\r\n"];
        for (i, piece) in pieces.iter().enumerate() {
            let mut buf = BytesMut::from(*piece);
            let at = At { kind: Kind::Bulk, first: i == 0, last: i == 2 };
            audit = audit.take().unwrap().reply(&process, Chunk::all_of(&mut buf), at);
        }
        assert!(audit.is_none() && process.metrics.audits_agreed.get() == 1);
        let mut audit = Box::new(Audit { sample: sample(), reply: BytesMut::new() });
        for _ in 0..9 {
            let mut buf = BytesMut::from(&b"01234567"[..]);
            let at = At { kind: Kind::Bulk, first: false, last: false };
            audit = audit.reply(&process, Chunk::all_of(&mut buf), at).unwrap();
        }
        assert_eq!(audit.reply.len(), 16, "enough to see that it is another");
    }
}
