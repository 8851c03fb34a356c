//! The reply to a write: what it does to the cache before it is delivered.

use super::LinkHandler;
use crate::cache::{Micros, Reason};
use crate::command::{Say, Tells};
use crate::resp::scanner::Kind;
use crate::session::announce::{Key, Saying, decide};
use crate::session::expect::{Barrier, Pending, Write};
use crate::upstream::{At, Chunk};

impl LinkHandler {
    pub(super) fn write_reply(
        &self,
        mut write: Box<Write>,
        since: Micros,
        chunk: Chunk<'_>,
        at: At,
    ) -> Option<Pending> {
        if let Some(to) = write.to.take() {
            if at.first {
                self.raise_barrier(&mut write, &chunk, at);
                if !write.popped.is_empty() {
                    let untouched =
                        matches!(&*chunk, b"*-1\r\n" | b"_\r\n" | b"$-1\r\n") || at.kind == Kind::Error;
                    self.invalidate(write.popped.drain(..).filter(|_| !untouched));
                }
                self.decide(&mut write, &chunk, at);
            }
            if let Some(leaves) = &mut write.leaves {
                leaves.reply(&chunk, at, &self.pushes);
            }
            if at.last {
                write.fence = None;
                self.say(&mut write);
            }
            write.to = self.relay(to, since, chunk, at);
            return (write.to.is_some() || write.announced > 0).then_some(Pending::Write(write));
        }
        self.raise_barrier(&mut write, &chunk, at);
        if !write.popped.is_empty() {
            self.invalidate(write.popped.drain(..));
        }
        if !write.sayings.is_empty() {
            write.said = decide(std::mem::take(&mut write.sayings), &chunk, at);
        }
        let next = write.echoed.len().checked_sub(write.announced);
        if at.kind == Kind::Error
            && at.first
            && let Some(key) = next.and_then(|next| write.echoed.get(next))
        {
            self.not_said(key, write.say, write.db, &chunk);
        }
        write.announced -= usize::from(at.last);
        self.say(&mut write);
        if let Some(owner) = self.owner.borrow().as_ref().filter(|_| write.announced == 0) {
            // It may wait until all is done here.
            owner.wake();
        }
        (write.announced > 0).then_some(Pending::Write(write))
    }

    /// The reply to a write begins: what is to be said of its keys.
    fn decide(&self, write: &mut Write, start: &[u8], at: At) {
        let refused = at.kind == Kind::Error;
        let is_certain = |saying: &Saying| saying.tells == Tells::There && saying.place.is_none();
        if write.say == Say::Update || write.sayings.first().is_some_and(is_certain) {
            self.careful.set(refused);
        }
        if !write.sayings.is_empty() {
            write.said = decide(std::mem::take(&mut write.sayings), start, at);
        }
        if refused && write.say == Say::Update {
            // It was not carried out, and is announced all the same: what is true is said behind.
            self.shared.metrics.announcements_corrected.add(write.echoed.len() as u64);
            write.said = write.echoed.iter().map(|key| (key.clone(), Say::Look)).collect();
        }
    }

    fn say(&self, write: &mut Write) {
        if !write.said.is_empty()
            && let Some(worker) = self.worker.upgrade()
        {
            worker.say(write.via, write.db, std::mem::take(&mut write.said));
        }
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

    /// What was sent may have been carried out though no reply comes, and its announcements are lost in any case.
    pub(super) fn written_or_not(&self, pending: &mut Pending, sent: bool) {
        let mut keys: Vec<Key> = Vec::new();
        match pending {
            Pending::Write(write) => {
                self.invalidate(write.popped.drain(..));
                if write.barrier.take().is_some() {
                    self.shared.cache.raise_barrier(self.shared.now(), true);
                }
                if !sent {
                    return;
                }
                let unsaid = write.echoed.len().saturating_sub(write.announced);
                keys.extend(write.echoed.drain(unsaid..));
                let sayings = write.sayings.drain(..).flat_map(|saying| saying.keys);
                keys.extend(sayings.map(|(key, _)| key).chain(write.said.drain(..).map(|(key, _)| key)));
            }
            Pending::Said(said) => keys.extend(said.keys.drain(..).map(|(key, _)| key)),
            _ => return,
        }
        if let Some(worker) = self.worker.upgrade().filter(|_| !keys.is_empty()) {
            worker.owe(keys.into_iter());
        }
    }
}
