//! The queue of a client's replies, in the order of its requests.
//!
//! Invariants: replies leave in the order of their requests. Each request that is not answered at
//! once opens a slot; the done prefix of the slots is moved to `out`, and the front slot's reply goes there
//! as it comes, piece by piece.
//!
//! The session's task writes; links and flights fill the slots. All on one thread.

use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hasher};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::slots::{Inner, NOBODY, Replies, Slot};
use crate::io::{Outgoing, Stream};

/// See the [module](self).
pub struct ReplyQueue(pub(super) RefCell<Inner>);

/// How it stands after a [write](ReplyQueue::write).
pub struct WriteOutcome {
    /// The client takes no more now.
    pub pending: bool,
    /// More than the limit is left.
    pub full: bool,
    /// It was full, and is not any more.
    pub made_room: bool,
    /// All is answered and written.
    pub drained: bool,
    /// The client is to be sent away because of what it has left untaken.
    pub overrun: bool,
    /// A reply was cut off in the middle.
    pub broken: bool,
}

/// The largest buffer that is handed on, and that is kept if there is one to hand on already, in bytes.
pub const MAX_SPARE: usize = 256 << 10;
const KEPT: usize = 4 << 10;

/// Requests that may be open: always, and at most.
const OPEN: (usize, usize) = (16, 16 << 10);

impl ReplyQueue {
    /// A queue that asks for no more while it holds over `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self(RefCell::new(Inner::new(limit)))
    }

    /// The client is to be sent away at once, whatever it waits for.
    pub fn cut_off(&self) {
        self.0.borrow_mut().broken = true;
    }

    /// The number that the next slot will have.
    pub fn next(&self) -> u64 {
        let inner = self.0.borrow();
        inner.first + inner.slots.len() as u64
    }

    /// Opens the next slot.
    pub fn open(&self) -> u64 {
        let mut inner = self.0.borrow_mut();
        inner.slots.push_back(Slot::default());
        inner.first + inner.slots.len() as u64 - 1
    }

    /// Opens the next slot for a read of `key` that waits for another's flight.
    pub fn open_joined(&self, request: &[u8], key: &[u8]) -> u64 {
        let slot = self.open();
        self.join(slot, request.into(), key);
        slot
    }

    /// Lets an open slot wait for a flight.
    pub fn join(&self, slot: u64, request: Box<[u8]>, key: &[u8]) {
        let mut inner = self.0.borrow_mut();
        let hash = hash(key);
        let Some(slot) = inner.slot(slot) else { return };
        slot.joined = Some((request, hash));
        *inner.joined.entry(hash).or_default() += 1;
    }

    /// The flight of a joined slot came in.
    pub fn served(&self, slot: u64, reply: Bytes) {
        self.unjoin(slot);
        self.piece(slot, reply, true);
    }

    /// The flight of a joined slot came to nothing: the session looks it up anew.
    pub fn release(&self, slot: u64) {
        let mut inner = self.0.borrow_mut();
        inner.released.push_back(slot);
        inner.wake();
    }

    /// A released slot and its request.
    pub fn next_released(&self) -> Option<(u64, Box<[u8]>)> {
        let slot = self.0.borrow_mut().released.pop_front()?;
        self.unjoin(slot).map(|request| (slot, request))
    }

    fn unjoin(&self, slot: u64) -> Option<Box<[u8]>> {
        let mut inner = self.0.borrow_mut();
        let (request, hash) = inner.slot(slot)?.joined.take()?;
        if let Entry::Occupied(mut count) = inner.joined.entry(hash) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(request)
    }

    /// Whether any request has gone to a link and is not answered.
    pub fn has_sent(&self) -> bool {
        self.0.borrow().slots.iter().any(Slot::is_sent)
    }

    /// Whether any request waits for another's flight.
    pub fn has_joined(&self) -> bool {
        !self.0.borrow().joined.is_empty()
    }

    /// Whether a read of `key`, or of one with its hash, waits for another's flight. If that comes to nothing it is read
    /// anew, so no later read of the key may overtake it.
    pub fn has_joined_for(&self, key: &[u8]) -> bool {
        self.0.borrow().joined.contains_key(&hash(key))
    }

    /// Answers the next request at once.
    pub fn reply(&self, bytes: &[u8]) {
        self.reply_with(|out| out.extend_from_slice(bytes));
    }

    /// Answers the next request at once with what `write` writes.
    pub fn reply_with(&self, write: impl FnOnce(&mut BytesMut)) {
        self.reply_unless(|out| {
            write(out);
            None::<()>
        });
    }

    /// Answers the next request at once with what `write` writes, unless that gives something: then what it wrote is
    /// taken back.
    pub fn reply_unless<T>(&self, write: impl FnOnce(&mut BytesMut) -> Option<T>) -> Option<T> {
        let mut inner = self.0.borrow_mut();
        if inner.slots.is_empty() && inner.replies == Replies::On {
            let given = inner.out.with_unless(write);
            inner.first += u64::from(given.is_none());
            return given;
        }
        let mut bytes = BytesMut::new();
        let given = write(&mut bytes);
        if given.is_none() {
            inner.held += bytes.len();
            let pieces = SmallVec::from([bytes.freeze()]);
            inner.slots.push_back(Slot { pieces, done: true, ..Slot::default() });
            if inner.slots.len() == 1 {
                // It is not wanted.
                inner.move_up();
            }
        }
        given
    }

    /// What belongs to no request: a message. Replies come from the same connection and in its order, so
    /// all that were due before it are in `out` already.
    pub fn push(&self, bytes: Bytes) {
        let mut inner = self.0.borrow_mut();
        if inner.ended {
            return;
        }
        if inner.is_amid_reply() {
            // It comes on another connection.
            inner.late_len += bytes.len();
            inner.late.push(bytes);
            return;
        }
        inner.out.append(bytes);
        inner.wake();
    }

    /// The slot's reply as a whole, copied from `bytes`.
    pub(super) fn whole(&self, slot: u64, bytes: &[u8]) {
        let mut inner = self.0.borrow_mut();
        if slot == inner.first && !inner.slots.is_empty() && inner.passes_on() {
            inner.out.copy(bytes);
            inner.note_size(bytes.len());
            inner.pop_front();
            inner.wake();
            return;
        }
        drop(inner);
        self.piece(slot, Bytes::copy_from_slice(bytes), true);
    }

    /// Adds a piece of a slot's reply; `last` completes it.
    pub(super) fn piece(&self, number: u64, bytes: Bytes, last: bool) {
        let mut inner = self.0.borrow_mut();
        let len = bytes.len();
        let Some(slot) = inner.slot(number) else {
            if number == NOBODY && last {
                inner.wake();
            }
            return;
        };
        slot.begun = true;
        slot.size += len;
        slot.done = last;
        let (size, decides) = (slot.size, slot.switch.is_some());
        if last {
            inner.note_size(size);
        }
        if inner.outer.is_some() {
            return inner.part(number, bytes, last);
        }
        if number != inner.first || decides {
            let Some(slot) = inner.slot(number) else { return };
            slot.pieces.push(bytes);
            inner.held += len;
            if number == inner.first {
                inner.move_up();
                inner.wake();
            } else if last && inner.back > 0 {
                // Those that are to be sent again wait for it.
                inner.wake();
            }
            return;
        }
        inner.at_front(bytes);
        if last {
            inner.pop_front();
        }
        inner.wake();
    }

    /// The slot's reply will not come, and no error can be said: false if it can, because nothing of the reply was passed
    /// on. One who does not want it hears of it by the end of its connection, as from a server that goes away. Whoever
    /// was answered already misses nothing.
    pub(super) fn break_off(&self, number: u64) -> bool {
        let mut inner = self.0.borrow_mut();
        if inner.slot(number).is_none_or(|slot| slot.done) {
            return true;
        }
        if inner.outer.is_some() {
            inner.cut_part(number);
            return false;
        }
        if inner.begun(number) {
            inner.broken = true;
            inner.wake();
            return true;
        }
        if let Some(slot) = inner.slot(number) {
            slot.lost = true;
        }
        false
    }

    /// Whether the slot was opened and is not answered; not if the client is gone.
    pub fn is_awaited(&self, slot: u64) -> bool {
        self.0.borrow_mut().slot(slot).is_some_and(|slot| !slot.done)
    }

    /// Whether a piece of the slot's reply has come.
    pub fn has_begun(&self, slot: u64) -> bool {
        self.0.borrow_mut().begun(slot)
    }

    /// Whether another request may be opened: the client has not left more than the limit untaken, and only
    /// so many are open that their replies, if they are like the last ones, fit into half the limit.
    pub fn may_open(&self) -> bool {
        let inner = self.0.borrow();
        let (least, most) = OPEN;
        let open = inner.slots.len();
        !inner.is_full()
            && (open < least
                || inner.keeps_little() && open < (inner.limit / 2 / inner.usual.max(1)).clamp(least, most))
    }

    /// Whether the slot's reply has not come, or waits for those before it.
    pub fn is_open(&self, slot: u64) -> bool {
        self.0.borrow().first <= slot
    }

    /// Whether the slot's reply is not complete.
    pub fn is_unanswered(&self, slot: u64) -> bool {
        self.0.borrow_mut().slot(slot).is_some_and(|slot| !slot.done)
    }

    /// Slots whose replies have not come, done ones behind them included.
    pub fn waiting(&self) -> usize {
        self.0.borrow().slots.len()
    }

    /// Whether the client has left more than the limit untaken.
    pub fn is_full(&self) -> bool {
        self.0.borrow().is_full()
    }

    /// The session's dedicated link was lost, and what it had upstream with it.
    pub fn lose_link(&self) {
        let mut inner = self.0.borrow_mut();
        inner.lost_link = true;
        inner.wake();
    }

    pub fn link_is_lost(&self) -> bool {
        self.0.borrow().lost_link
    }

    pub fn forget_lost_link(&self) {
        self.0.borrow_mut().lost_link = false;
    }

    /// Bytes that the client has not taken.
    pub fn untaken(&self) -> usize {
        let inner = self.0.borrow();
        inner.out.len() + inner.held
    }

    /// What is in order is still the client's, and behind it `words`, unless a reply was begun there; nothing else is
    /// said any more.
    pub fn end_with(&self, words: &[u8]) {
        let mut inner = self.0.borrow_mut();
        if !inner.slots.front().is_some_and(|slot| slot.begun) {
            inner.out.copy(words);
        }
        inner.ended = true;
        inner.overrun = false;
        inner.forget();
    }

    /// Ends the connection with nothing more said.
    pub fn cut(&self) {
        let mut inner = self.0.borrow_mut();
        inner.out = Outgoing::default();
        inner.broken = true;
    }

    /// Wakes the session's task.
    pub fn wake(&self) {
        self.0.borrow().wake();
    }

    /// Bytes that the client has taken so far.
    pub fn written(&self) -> u64 {
        self.0.borrow().written
    }

    /// Takes a buffer to write into from those that come next, if it has none.
    pub fn borrow_buffer(&self, spare: &RefCell<BytesMut>) {
        self.0.borrow_mut().out.swap_empty(&mut spare.borrow_mut());
    }

    /// Writes to the client, as much as it takes; says what is left. If that is nothing, the buffer is `spare`
    /// for those that come next, so that idle sessions hold none; else `cx` is woken to go on.
    ///
    /// Errors: the client is gone.
    pub fn write(
        &self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        spare: &RefCell<BytesMut>,
    ) -> std::io::Result<WriteOutcome> {
        let mut inner = self.0.borrow_mut();
        let was_full = inner.is_full();
        let Inner { out, written, .. } = &mut *inner;
        let pending = match out.poll_write(stream, cx, written) {
            Poll::Ready(result) => result.map(|()| false)?,
            Poll::Pending => true,
        };
        if !pending {
            out.trim(MAX_SPARE);
            out.swap_empty(&mut spare.borrow_mut());
            out.trim(KEPT);
        }
        if !inner.blocked_links.is_empty() && !inner.is_crowded() {
            inner.blocked_links.drain(..).for_each(Waker::wake);
        }
        let full = inner.is_full();
        Ok(WriteOutcome {
            pending,
            full,
            made_room: was_full && !full,
            drained: inner.slots.is_empty() && !pending,
            overrun: inner.overrun,
            broken: inner.broken,
        })
    }

    /// Whether the client takes anything now, whatever is known of its socket.
    pub fn write_now(&self, stream: &mut Stream) -> bool {
        if stream.push_now() {
            return true;
        }
        let mut inner = self.0.borrow_mut();
        let Inner { out, written, .. } = &mut *inner;
        let taken = out.write_now(|bytes| stream.send_now(bytes));
        *written += taken as u64;
        taken > 0
    }

    /// The task that is woken when there is something to write or to do.
    pub fn set_waker(&self, cx: &Context<'_>) {
        let mut inner = self.0.borrow_mut();
        if !inner.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            inner.waker = Some(cx.waker().clone());
        }
    }

    /// The client is gone: nobody is to wait for it.
    pub fn close(&self) {
        let mut inner = self.0.borrow_mut();
        inner.forget();
        inner.waker = None;
        inner.out = Outgoing::default();
    }
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(key);
    hasher.finish()
}

#[cfg(test)]
impl ReplyQueue {
    /// Takes all that is there, as a client does.
    pub fn said(&self) -> String {
        let mut said = Vec::new();
        let out = &mut self.0.borrow_mut().out;
        while !out.is_empty() {
            out.write_now(|bytes| {
                said.extend_from_slice(bytes);
                Ok(bytes.len())
            });
        }
        String::from_utf8(said).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_keys_are_waited_for_is_known_until_the_last_of_them_is_answered() {
        let queue = ReplyQueue::new(1 << 20);
        let slots: Vec<_> =
            (0..4).map(|i| queue.open_joined(b"request", if i < 3 { b"a" } else { b"b" })).collect();
        queue.served(slots[0], Bytes::from_static(b"x"));
        queue.release(slots[1]);
        assert!(queue.has_joined_for(b"a") && queue.has_joined_for(b"b") && !queue.has_joined_for(b"c"));
        assert_eq!(queue.next_released(), Some((slots[1], b"request"[..].into())));
        queue.join(slots[1], b"request"[..].into(), b"a");
        queue.served(slots[1], Bytes::from_static(b"x"));
        assert!(queue.has_joined_for(b"a"));
        queue.served(slots[2], Bytes::from_static(b"x"));
        assert!(!queue.has_joined_for(b"a") && queue.has_joined());
        queue.served(slots[3], Bytes::from_static(b"x"));
        queue.served(slots[3], Bytes::from_static(b"x"));
        assert!(!queue.has_joined() && queue.waiting() == 0);
    }
}
