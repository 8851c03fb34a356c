//! A write in flight: what its reply does to the cache before it is delivered, and what is said then.
//!
//! Invariants: the fence is released just before the reply is handed over.

use super::announcement::{Key, Saying, decide};
use super::link_handler::LinkHandler;
use super::state::Leaves;
use super::write_set::{Barrier, CacheFence};
use crate::cache::{EntryKeyBuf, LinkId, Micros, NO_LINK, Reason, Wanted};
use crate::command::{Say, Tells};
use crate::reply::ReplySlot;
use crate::resp::scanner::Kind;
use crate::upstream::{At, Chunk};

/// A write and its announcements.
pub struct Write {
    pub to: Option<ReplySlot>,
    pub fence: Option<CacheFence>,
    /// Keys without a fence, which the reply invalidates.
    pub popped: Vec<Box<[u8]>>,
    /// Its reply raises a barrier, unless that says that nothing was done.
    pub barrier: Option<Barrier>,
    /// Announcements behind the write on the same link.
    pub announced: usize,
    /// The keys of these, as far as they are in namespaces.
    pub echoed: Vec<Box<[u8]>>,
    /// What is said behind the write of `echoed`.
    pub say: Say,
    /// What is to be said once the reply has come, and what that then is.
    pub sayings: Vec<Saying>,
    pub said: Vec<(Key, Say)>,
    /// On which link, and of which database.
    pub via: LinkId,
    pub db: u32,
    /// What it leaves on its connection.
    pub leaves: Option<Box<Leaves>>,
    /// What is to be fetched anew when it is answered.
    pub refills: Vec<EntryKeyBuf>,
}

impl Write {
    /// One that holds nothing and says nothing.
    pub fn new(to: Option<ReplySlot>) -> Self {
        Self {
            to,
            fence: None,
            popped: Vec::new(),
            barrier: None,
            announced: 0,
            echoed: Vec::new(),
            say: Say::Nothing,
            sayings: Vec::new(),
            said: Vec::new(),
            via: NO_LINK,
            db: 0,
            leaves: None,
            refills: Vec::new(),
        }
    }

    /// One whose reply nobody wants.
    pub fn unwanted() -> Self {
        Self { barrier: Some(Barrier::Anything), announced: 1, ..Self::new(None) }
    }

    /// A command in a transaction that may write keys which are not known, or that nobody knows. If it was not
    /// queued, because there is no transaction, it was carried out.
    pub fn queued(to: ReplySlot, barrier: Option<Barrier>, leaves: Option<Box<Leaves>>) -> Self {
        Self { barrier, leaves, ..Self::new(Some(to)) }
    }
}

impl LinkHandler {
    pub fn write_reply(
        &self,
        mut write: Box<Write>,
        since: Micros,
        chunk: Chunk<'_>,
        at: At,
    ) -> Option<Box<Write>> {
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
                leaves.reply(&chunk, at, &self.pushes, &to);
            }
            if at.last {
                write.fence = None;
                self.say(&mut write);
                self.refill(&mut write);
            }
            write.to = self.relay(to, since, chunk, at);
            return (write.to.is_some() || write.announced > 0).then_some(write);
        }
        // An announcement's reply, or that of a write which nobody wants.
        self.raise_barrier(&mut write, &chunk, at);
        let next = write.echoed.len().checked_sub(write.announced);
        if at.kind == Kind::Error
            && at.first
            && let Some(key) = next.and_then(|next| write.echoed.get(next))
        {
            self.not_said(key, write.say, write.db, &chunk);
        }
        write.announced -= usize::from(at.last);
        if let Some(owner) = self.owner.borrow().as_ref().filter(|_| write.announced == 0) {
            // It may wait until all is done here.
            owner.queue.wake();
        }
        (write.announced > 0).then_some(write)
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
            self.process.metrics.announcements_corrected.add(write.echoed.len() as u64);
            write.said = write.echoed.iter().map(|key| (key.clone(), Say::Look)).collect();
        }
    }

    fn say(&self, write: &mut Write) {
        if !write.said.is_empty()
            && let Some(upcalls) = self.upcalls()
        {
            upcalls.announce(write.via, write.db, std::mem::take(&mut write.said));
        }
    }

    /// A read behind the write itself would not do: its key is to be registered before, and the write would end that.
    fn refill(&self, write: &mut Write) {
        let Some(feed) = self.process.cache.coverages().current(&self.node.feed) else { return };
        let Some(upcalls) = self.upcalls().filter(|_| !write.refills.is_empty()) else { return };
        for name in write.refills.drain(..) {
            upcalls.refresh(name.borrow().key, &Wanted::of(&name.borrow(), feed));
        }
    }

    fn invalidate(&self, keys: impl Iterator<Item = Box<[u8]>>) {
        let now = self.process.now();
        keys.for_each(|key| self.process.cache.invalidate(&key, Reason::Write, now));
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
            self.process.cache.raise_barrier(self.process.now(), barrier == Barrier::Anything);
        }
    }

    /// No reply comes: a write that was `sent` may have been carried out, and its announcements are lost in any case.
    pub(super) fn unanswered_write(&self, write: &mut Write, sent: bool) {
        self.invalidate(write.popped.drain(..));
        if write.barrier.take().is_some() {
            self.process.cache.raise_barrier(self.process.now(), true);
        }
        if !sent {
            return;
        }
        let unsaid = write.echoed.len().saturating_sub(write.announced);
        let mut keys: Vec<Key> = write.echoed.drain(unsaid..).collect();
        let sayings = write.sayings.drain(..).flat_map(|saying| saying.keys);
        keys.extend(sayings.map(|(key, _)| key).chain(write.said.drain(..).map(|(key, _)| key)));
        self.owe(keys);
    }

    /// Nothing was said of these keys, which may have been written.
    pub(super) fn owe(&self, keys: Vec<Key>) {
        if let Some(upcalls) = self.upcalls().filter(|_| !keys.is_empty()) {
            upcalls.owe(keys);
        }
    }
}
