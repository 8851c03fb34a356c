//! The parts of one reply that come from several nodes: a queue of their own, with a slot for each.
//!
//! Invariants: nothing of it goes to a client. Each part stays where it is until all are there; then whoever waits for them
//! is woken. A part that was cut off in the middle has the error alone.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::queue::ReplyQueue;
use super::slots::{Inner, Outer, Replies, Slot};

/// How many times the client's limit may be held of parts: as much as it may leave untaken.
const HELD: usize = 4;

impl ReplyQueue {
    /// With so many slots, from 0 on. `outer` is woken when all are there, or when too much is held.
    pub fn of_parts(parts: usize, outer: Rc<ReplyQueue>) -> Rc<Self> {
        let limit = outer.0.borrow().limit.saturating_mul(HELD);
        let this = Self::new(limit);
        let mut inner = this.0.borrow_mut();
        inner.outer = Some(Outer { wake: Box::new(move || outer.wake()), left: parts });
        inner.slots.resize_with(parts, Slot::default);
        // Nothing is passed on.
        inner.replies = Replies::Off;
        drop(inner);
        Rc::new(this)
    }

    /// How many parts are not there.
    pub fn parts_left(&self) -> usize {
        self.0.borrow().outer.as_ref().map_or(0, |outer| outer.left)
    }

    /// More is held than may be, or a part was lost with whoever was to bring it.
    pub fn parts_failed(&self) -> bool {
        let inner = self.0.borrow();
        inner.broken || inner.is_full()
    }

    /// The part is to come once more.
    pub fn expect_part(&self, part: usize) {
        let mut inner = self.0.borrow_mut();
        let Some(slot) = inner.slots.get_mut(part).filter(|slot| slot.done) else { return };
        *slot = Slot::default();
        if let Some(outer) = &mut inner.outer {
            outer.left += 1;
        }
    }

    /// Takes a part that is there.
    pub fn take_part(&self, part: usize) -> Bytes {
        let mut inner = self.0.borrow_mut();
        let Some(slot) = inner.slots.get_mut(part) else { return Bytes::new() };
        let mut pieces = std::mem::take(&mut slot.pieces);
        if pieces.len() == 1 {
            return pieces.pop().unwrap_or_default();
        }
        let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
        pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        whole.freeze()
    }
}

impl Inner {
    /// A piece of a part came.
    pub(super) fn part(&mut self, number: u64, bytes: Bytes, last: bool) {
        let Some(slot) = self.slot(number) else { return };
        let len = bytes.len();
        slot.pieces.push(bytes);
        self.held += len;
        let crowded = self.is_full();
        let Some(outer) = &mut self.outer else { return };
        outer.left -= usize::from(last);
        if outer.left == 0 || crowded {
            (outer.wake)();
        }
    }

    /// What has come of a part will not go on: an error takes its place.
    pub(super) fn cut_part(&mut self, number: u64) {
        let Some(slot) = self.slot(number) else { return };
        slot.begun = false;
        let pieces = std::mem::take(&mut slot.pieces);
        self.held -= pieces.iter().map(Bytes::len).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_until_all_are_there_and_one_that_was_cut_off_is_an_error() {
        let outer = Rc::new(ReplyQueue::new(100));
        let parts = ReplyQueue::of_parts(3, outer);
        parts.piece(1, Bytes::from_static(b"$4\r\nab"), false);
        parts.whole(0, b"+OK\r\n");
        parts.piece(1, Bytes::from_static(b"cd\r\n"), true);
        assert_eq!(parts.parts_left(), 1);
        parts.piece(2, Bytes::from_static(b"$4\r\nab"), false);
        assert!(!parts.break_off(2), "an error can still be said");
        parts.whole(2, b"-ERR lost\r\n");
        assert_eq!((parts.parts_left(), parts.said()), (0, String::new()));
        let taken = [0, 1, 2].map(|part| parts.take_part(part));
        assert_eq!(taken, [&b"+OK\r\n"[..], b"$4\r\nabcd\r\n", b"-ERR lost\r\n"]);
        assert!(!parts.is_full());
        parts.piece(0, Bytes::from(vec![0; 400]), false);
        assert!(parts.is_full(), "four times the limit");
    }
}
