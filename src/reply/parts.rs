//! The parts of one reply that come from several nodes: a queue of their own, with a slot for each.
//!
//! Invariants: nothing of it goes to a client. Each part stays where it is until all are there; then whoever waits for them
//! is woken. A part that was cut off in the middle has the error alone.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::kept::Refusal;
use super::queue::ReplyQueue;
use super::slot::ReplySlot;
use super::slots::{Outer, Replies, Slot, Waits};

/// How many times the client's limit may be held of parts: as much as it may leave untaken.
const HELD: usize = 4;

impl ReplyQueue {
    /// With so many slots, from 0 on. `outer`, where the reply goes in this slot, is woken when no part is on any link, or when
    /// too much is held.
    pub fn of_parts(parts: usize, outer: &Rc<ReplyQueue>, slot: u64) -> Rc<Self> {
        let limit = outer.0.borrow().limit.saturating_mul(HELD);
        let this = Self::new(limit);
        let mut inner = this.0.borrow_mut();
        let waits = Box::new(ReplySlot { queue: outer.clone(), slot });
        inner.outer = Some(Outer { waits, left: parts });
        inner.slots.resize_with(parts, Slot::default);
        // Nothing is passed on.
        inner.replies = Replies::Off;
        drop(inner);
        Rc::new(this)
    }

    /// How many parts are on links.
    pub fn parts_away(&self) -> usize {
        let inner = self.0.borrow();
        inner.outer.as_ref().map_or(0, |outer| outer.left - inner.back)
    }

    /// More is held than may be, or a part was lost with whoever was to bring it.
    pub fn parts_failed(&self) -> bool {
        let inner = self.0.borrow();
        inner.broken || inner.is_full()
    }

    /// Why a part is to be sent again, if it is.
    pub fn refusal_of(&self, part: usize) -> Option<Refusal> {
        let inner = self.0.borrow();
        let kept = inner.slots.get(part)?.kept.as_ref().filter(|kept| kept.is_back)?;
        kept.again.as_ref().map(|again| again.refusal.clone())
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

impl Waits for ReplySlot {
    fn wake(&self) {
        self.queue.wake();
    }

    fn is_in_doubt(&self) {
        self.queue.is_in_doubt(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_put_back_is_not_away_and_its_doubt_is_that_of_all() {
        let outer = Rc::new(ReplyQueue::new(100));
        let slot = outer.open();
        outer.keep(slot, Bytes::from_static(b"all"));
        let parts = ReplyQueue::of_parts(2, &outer, slot);
        let refusal = || Refusal { said: None, by: None, line: Bytes::from_static(b"-ERR\r\n") };
        parts.keep(1, Bytes::from_static(b"part"));
        parts.put_back(1, refusal()).unwrap();
        assert_eq!((parts.parts_away(), parts.has_back()), (1, true));
        parts.whole(0, b"+OK\r\n");
        assert_eq!(parts.parts_away(), 0);
        assert!(parts.refusal_of(0).is_none() && parts.refusal_of(1).is_some());
        outer.put_back_rest(slot, Some(Bytes::from_static(b"rest")), refusal()).unwrap();
        assert_eq!(outer.standing()[0].request, "rest");
        outer.goes_again(slot);
        parts.is_in_doubt(1);
        assert!(outer.put_back(slot, refusal()).is_err(), "it may come behind what was lost");
    }

    #[test]
    fn parts_stay_until_all_are_there_and_one_that_was_cut_off_is_an_error() {
        let outer = Rc::new(ReplyQueue::new(100));
        let parts = ReplyQueue::of_parts(3, &outer, 0);
        parts.piece(1, Bytes::from_static(b"$4\r\nab"), false);
        parts.whole(0, b"+OK\r\n");
        parts.piece(1, Bytes::from_static(b"cd\r\n"), true);
        assert_eq!(parts.parts_away(), 1);
        parts.piece(2, Bytes::from_static(b"$4\r\nab"), false);
        assert!(!parts.break_off(2), "an error can still be said");
        parts.whole(2, b"-ERR lost\r\n");
        assert_eq!((parts.parts_away(), parts.said()), (0, String::new()));
        let taken = [0, 1, 2].map(|part| parts.take_part(part));
        assert_eq!(taken, [&b"+OK\r\n"[..], b"$4\r\nabcd\r\n", b"-ERR lost\r\n"]);
        assert!(!parts.is_full());
        parts.piece(0, Bytes::from(vec![0; 401]), false);
        assert!(parts.is_full(), "four times the limit");
    }
}
