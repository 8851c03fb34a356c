//! Which replies a client wants, as `CLIENT REPLY` has it, and what it gets all the same.
//!
//! Invariants: a switch takes effect when its own reply is at the front, so in the order of the requests, whatever comes
//! first; how, stands with the [slots](super::slots). One that the upstream refuses has no effect.

use bytes::Bytes;

use super::queue::ReplyQueue;
use super::slots::Replies;

impl ReplyQueue {
    /// Opens the next slot for what tells which replies the client wants, if the upstream takes that.
    pub fn open_switch(&self, replies: Replies) -> u64 {
        let slot = self.open();
        if let Some(slot) = self.0.borrow_mut().slots.back_mut() {
            slot.switch = Some(replies);
        }
        slot
    }

    /// Whether the client wants no reply to what comes next, if all that came before is answered.
    pub fn is_muted(&self) -> bool {
        self.0.borrow().replies != Replies::On
    }

    /// The client wants all replies again.
    pub fn end_off(&self) {
        let mut inner = self.0.borrow_mut();
        if inner.replies == Replies::Off {
            inner.replies = Replies::On;
        }
    }

    /// A reply that belongs to no request, for it cannot be told to which.
    pub fn push_reply(&self, bytes: Bytes) {
        if !self.is_muted() {
            self.push(bytes);
        }
    }

    /// The slot's reply is a confirmation.
    pub(super) fn confirms(&self, slot: u64) {
        if let Some(slot) = self.0.borrow_mut().slot(slot) {
            slot.confirms = true;
        }
    }

    /// The slot's reply has this confirmation in it, which the client gets even if it does not want the reply.
    pub(super) fn confirms_within(&self, slot: u64, element: &[u8]) {
        let mut inner = self.0.borrow_mut();
        if slot == inner.first && inner.replies != Replies::On {
            inner.out.copy(element);
            inner.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &[u8] = b"+OK\r\n";

    fn whole(queue: &ReplyQueue, slot: u64, bytes: &'static [u8]) {
        queue.piece(slot, Bytes::from_static(bytes), true);
    }

    /// Replies come from the last to the first, with one at once among them.
    #[test]
    fn the_order_of_the_requests_decides() {
        let queue = ReplyQueue::new(1 << 20);
        let before = queue.open();
        let off = queue.open_switch(Replies::Off);
        let unwanted = queue.open();
        let skip = queue.open_switch(Replies::Skip);
        queue.reply(b"+AT ONCE\r\n");
        let on = queue.open_switch(Replies::On);
        let wanted = queue.open();
        let refused = queue.open_switch(Replies::Off);
        let skips = queue.open_switch(Replies::Skip);
        whole(&queue, skips, OK);
        whole(&queue, refused, b"-NOPERM\r\n");
        whole(&queue, wanted, b"+WANTED\r\n");
        [on, skip, off].into_iter().for_each(|slot| whole(&queue, slot, OK));
        whole(&queue, unwanted, b"+UNWANTED\r\n");
        assert_eq!(queue.said(), "");
        whole(&queue, before, b"+BEFORE\r\n");
        assert_eq!(queue.said(), "+BEFORE\r\n+OK\r\n+WANTED\r\n-NOPERM\r\n");
        assert_eq!((queue.waiting(), queue.untaken()), (0, 0));
        assert!(queue.is_muted());
        queue.end_off();
        queue.reply(b"+SKIPPED\r\n");
        queue.reply(b"+NOT\r\n");
        assert_eq!(queue.said(), "+NOT\r\n");
    }

    #[test]
    fn what_is_not_wanted_is_thrown_away_piece_by_piece_and_confirmations_are_not() {
        let queue = ReplyQueue::new(1 << 20);
        let off = queue.open_switch(Replies::Off);
        whole(&queue, off, OK);
        let slot = queue.open();
        queue.piece(slot, Bytes::from_static(b"$4\r\nab"), false);
        queue.confirms_within(slot, b"+WITHIN\r\n");
        queue.piece(slot, Bytes::from_static(b"cd\r\n"), true);
        let slot = queue.open();
        queue.confirms(slot);
        queue.piece(slot, Bytes::from_static(b"+CONF"), false);
        queue.piece(slot, Bytes::from_static(b"IRMED\r\n"), true);
        queue.push_reply(Bytes::from_static(b"+FED\r\n"));
        queue.push(Bytes::from_static(b"+PUSHED\r\n"));
        queue.reply(b"+AT ONCE\r\n");
        assert_eq!(queue.said(), "+WITHIN\r\n+CONFIRMED\r\n+PUSHED\r\n");
        queue.end_off();
        queue.push_reply(Bytes::from_static(b"+FED\r\n"));
        assert_eq!(queue.said(), "+FED\r\n");
    }

    /// Nobody is told of a lost reply that was not wanted, but by the end.
    #[test]
    fn a_lost_reply_ends_it() {
        let queue = ReplyQueue::new(1 << 20);
        whole(&queue, queue.open_switch(Replies::Off), OK);
        let slot = queue.open();
        assert!(!queue.break_off(slot));
        assert!(!queue.0.borrow().broken);
        whole(&queue, slot, b"-ERR lost\r\n");
        assert!(queue.0.borrow().broken);
        assert_eq!(queue.said(), "");
    }
}
