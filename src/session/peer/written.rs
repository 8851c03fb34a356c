//! The reply to a write: what it does to the cache before it is delivered.

use super::Peer;
use crate::cache::Micros;
use crate::cache::Reason;
use crate::resp::scanner::Kind;
use crate::session::expect::{Barrier, What, Write};
use crate::upstream::{At, Chunk};

impl Peer {
    pub(super) fn write_reply(
        &self,
        mut write: Box<Write>,
        since: Micros,
        chunk: Chunk<'_>,
        at: At,
    ) -> Option<What> {
        if let Some(to) = write.to.take() {
            if at.first {
                self.raise_barrier(&mut write, &chunk, at);
                let untouched =
                    matches!(&*chunk, b"*-1\r\n" | b"_\r\n" | b"$-1\r\n") || at.kind == Kind::Error;
                self.invalidate(write.popped.drain(..).filter(|_| !untouched));
            }
            if let Some(leaves) = &mut write.leaves {
                leaves.reply(&chunk, at, &self.pushes);
            }
            if at.last {
                write.fence = None;
                if let (Some((commands, n)), Some(worker)) = (write.announce.take(), self.worker.upgrade()) {
                    worker.announce(commands, n);
                }
            }
            write.to = self.relay(to, since, chunk, at);
            return (write.to.is_some() || write.announced > 0).then_some(What::Write(write));
        }
        self.raise_barrier(&mut write, &chunk, at);
        self.invalidate(write.popped.drain(..));
        if at.kind == Kind::Error && at.first {
            self.count_failed(&chunk);
            let now = self.shared.now();
            write.echoed.drain(..).for_each(|key| self.shared.cache.no_echo(&key, now));
        }
        write.announced -= usize::from(at.last);
        if let Some(owner) = self.owner.borrow().as_ref().filter(|_| write.announced == 0) {
            // It may wait until all is done here.
            owner.wake();
        }
        (write.announced > 0).then_some(What::Write(write))
    }

    fn invalidate(&self, keys: impl Iterator<Item = Box<[u8]>>) {
        let now = self.shared.now();
        keys.for_each(|key| self.shared.cache.invalidate(&key, Reason::Write, now));
    }

    /// The reply to a write begins: what it may have done beside its own keys is done by now.
    fn raise_barrier(&self, write: &mut Write, start: &[u8], at: At) {
        let Some(barrier) = write.barrier.take() else { return };
        let is = |text: &[u8]| start.get(..text.len()).is_some_and(|said| said.eq_ignore_ascii_case(text));
        let undone = match at.kind {
            // A script's own error may come behind its writes; that nobody knows the command may not.
            Kind::Error => barrier == Barrier::Anything && is(b"-ERR unknown command"),
            _ => start == b"+QUEUED\r\n",
        };
        if !undone {
            self.shared.cache.raise_barrier(self.shared.now(), barrier == Barrier::Anything);
        }
    }

    /// What was sent may have been carried out though no reply comes.
    pub(super) fn written_or_not(&self, what: &mut What) {
        let What::Write(write) = what else { return };
        self.invalidate(write.popped.drain(..));
        if write.barrier.take().is_some() {
            self.shared.cache.raise_barrier(self.shared.now(), true);
        }
    }
}
