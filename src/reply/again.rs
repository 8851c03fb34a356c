//! Requests that were not executed, and are to be sent again: in front of a cluster a slot keeps its request until it is
//! answered, and gets it back when a node refuses it.
//!
//! Invariants:
//! - What is kept is bounded, like what is open; a queue in front of one server keeps nothing.
//! - A slot is put back only while nothing of its reply was passed on, and while no part of its request is on any link. Who
//!   has sent it in parts puts it back when the last of them is answered.
//! - Whoever puts a slot back gets the refusal back if it cannot be: then that is the reply.
//! - A reply behind a slot that was put back stays in its own slot until that is answered, for replies leave in order. So it
//!   can be taken back, too, if it was that of a read.

use bytes::Bytes;
use tokio::time::Instant;

use super::kept::{Again, Kept, Refusal};
use super::queue::ReplyQueue;
use super::slot::ReplySlot;

/// A request that was kept, as it stands.
pub struct Standing {
    pub slot: u64,
    pub request: Bytes,
    /// It is to be sent again; else it was answered.
    pub again: Option<Again>,
}

impl ReplyQueue {
    /// Keeps the request of an open slot, if it has none yet.
    pub fn keep(&self, slot: u64, request: Bytes) {
        let mut inner = self.0.borrow_mut();
        if inner.slots.len() == 1 {
            // Whatever became of what was open before, its client knows.
            inner.is_doubtful = false;
        }
        let len = request.len();
        let Some(slot) = inner.slot(slot).filter(|slot| slot.kept.is_none()) else { return };
        slot.kept = Some(Box::new(Kept { request, rest: None, again: None, is_back: false }));
        inner.kept += len;
    }

    /// Puts the slot among those that are to be sent again; nothing of it is on any link any more. That of a client that is
    /// gone is just dropped.
    ///
    /// Errors: it cannot be, because its request is not kept, part of its reply was passed on, or another request of this
    /// session was lost with the same connection, and may yet be executed.
    pub fn put_back(&self, number: u64, refusal: Refusal) -> Result<(), Refusal> {
        match self.has_begun(number) {
            true => Err(refusal),
            false => self.put_back_rest(number, None, refusal),
        }
    }

    /// Likewise, where only `rest` of the request is to be sent again, and what was passed on of the reply stays. Where that is
    /// less than was sent last, it is counted anew how often: of many parts, one or another may be refused each time.
    pub fn put_back_rest(&self, number: u64, rest: Option<Bytes>, refusal: Refusal) -> Result<(), Refusal> {
        let mut inner = self.0.borrow_mut();
        let unsure = inner.is_doubtful && refusal.said.is_none();
        let Some(slot) = inner.slot(number).filter(|slot| !slot.done) else { return Ok(()) };
        let now = Instant::now();
        let Some(kept) = slot.kept.as_mut().filter(|kept| !unsure && !kept.is_back) else {
            return Err(refusal);
        };
        let (turns, first) = kept.again.as_ref().map_or((0, now), |again| (again.turns, again.first));
        let before = kept.rest.as_ref().unwrap_or(&kept.request).len();
        let turns = if rest.as_ref().is_some_and(|rest| rest.len() < before) { 0 } else { turns };
        let was_asked = kept.again.as_ref().is_some_and(|again| again.refusal.is_ask());
        kept.again = Some(Again { refusal, turns, first, since: now, was_asked });
        (kept.rest, kept.is_back) = (rest, true);
        inner.back += 1;
        inner.wake();
        Ok(())
    }

    /// A request of the slot may have been executed, and its reply is lost: what could not be sent behind it is not sent
    /// again, for it might come first.
    pub fn is_in_doubt(&self, slot: u64) {
        let mut inner = self.0.borrow_mut();
        inner.is_doubtful |= inner.slot(slot).is_some_and(|slot| slot.kept.is_some());
        inner.outer.iter().for_each(|outer| outer.waits.is_in_doubt());
    }

    /// Whether any is to be sent again.
    pub fn has_back(&self) -> bool {
        self.0.borrow().back > 0
    }

    /// All requests that are kept and on no link, in order: those that are to be sent again, and those that were answered
    /// behind the first of them.
    pub fn standing(&self) -> Vec<Standing> {
        let inner = self.0.borrow();
        let numbered = (inner.first..).zip(&inner.slots);
        let standing = numbered.filter_map(|(number, slot)| {
            let kept = slot.kept.as_ref().filter(|kept| kept.is_back || slot.done)?;
            let again = kept.again.clone().filter(|_| kept.is_back);
            let request = kept.rest.clone().filter(|_| kept.is_back).unwrap_or_else(|| kept.request.clone());
            Some(Standing { slot: number, request, again })
        });
        standing.collect()
    }

    /// A reply that waits behind what is to be sent again is thrown away, and its request put back, to be sent again too. It was
    /// answered, so it is counted anew how often it goes.
    pub fn recall(&self, number: u64, refusal: Refusal) -> Option<Again> {
        let mut inner = self.0.borrow_mut();
        let slot = inner.slot(number).filter(|slot| slot.done)?;
        let (kept, now) = (slot.kept.as_mut()?, Instant::now());
        kept.again = Some(Again { refusal, turns: 0, first: now, since: now, was_asked: false });
        (kept.rest, kept.is_back) = (None, true);
        let again = kept.again.clone();
        let pieces = std::mem::take(&mut slot.pieces);
        (slot.done, slot.begun, slot.size) = (false, false, 0);
        inner.held -= pieces.iter().map(Bytes::len).sum::<usize>();
        inner.back += 1;
        again
    }

    /// The request of a slot that was put back, as it came; `None` if anything of its reply was passed on.
    pub fn whole_request(&self, number: u64) -> Option<Bytes> {
        let mut inner = self.0.borrow_mut();
        let slot = inner.slot(number).filter(|slot| !slot.begun)?;
        slot.kept.as_ref().filter(|kept| kept.is_back).map(|kept| kept.request.clone())
    }

    /// All of the slot's request, which was put back, is to be sent again.
    pub fn forget_rest(&self, number: u64) {
        if let Some(kept) = self.0.borrow_mut().slot(number).and_then(|slot| slot.kept.as_mut()) {
            kept.rest = None;
        }
    }

    /// The slot's request, which was put back, goes on a link again now.
    pub fn goes_again(&self, number: u64) {
        let mut inner = self.0.borrow_mut();
        let kept = inner.slot(number).and_then(|slot| slot.kept.as_mut());
        let Some(kept) = kept.filter(|kept| kept.is_back) else { return };
        kept.is_back = false;
        if let Some(again) = &mut kept.again {
            again.turns += 1;
        }
        inner.back -= 1;
    }
}

impl ReplySlot {
    /// See [`ReplyQueue::put_back`].
    pub fn put_back(&self, refusal: Refusal) -> Result<(), Refusal> {
        self.queue.put_back(self.slot, refusal)
    }

    /// The request of this slot, which was put back, is not sent again: its client gets this.
    pub fn refuse(&self, refusal: &Refusal) {
        self.queue.goes_again(self.slot);
        if refusal.said.is_some() || !self.queue.break_off(self.slot) {
            self.whole(&refusal.line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::super::kept::KEPT;
    use super::super::slots::Replies;
    use super::*;
    use crate::resp::Redirection;

    fn refusal(said: Option<Redirection>) -> Refusal {
        Refusal { said, by: None, line: Bytes::from_static(b"-TRYAGAIN\r\n") }
    }

    fn tryagain() -> Refusal {
        refusal(Some(Redirection::TryAgain))
    }

    fn kept(queue: &ReplyQueue, request: &'static str) -> u64 {
        let slot = queue.open();
        queue.keep(slot, Bytes::from_static(request.as_bytes()));
        slot
    }

    fn standing(queue: &ReplyQueue) -> String {
        let standing = queue.standing();
        let each = standing.iter().map(|of| {
            let turns = of.again.as_ref().map_or("done".into(), |again| again.turns.to_string());
            format!("{} {turns}", String::from_utf8_lossy(&of.request))
        });
        each.collect::<Vec<_>>().join(", ")
    }

    fn whole(queue: &ReplyQueue, slot: u64, reply: &'static str) {
        queue.piece(slot, Bytes::from_static(reply.as_bytes()), true);
    }

    #[test]
    fn of_a_request_that_becomes_less_it_is_counted_anew_how_often_it_went() {
        let queue = ReplyQueue::new(1 << 20);
        let slot = kept(&queue, "MGET a b c");
        let rest = |rest: &'static str| {
            queue.put_back_rest(slot, Some(Bytes::from_static(rest.as_bytes())), tryagain())
        };
        for (less, seen) in [
            ("MGET b c", "MGET b c 0"),
            ("MGET b c", "MGET b c 1"),
            ("MGET c", "MGET c 0"),
            ("MGET c", "MGET c 1"),
        ] {
            rest(less).unwrap();
            assert_eq!(standing(&queue), seen);
            queue.goes_again(slot);
        }
    }

    #[test]
    fn what_is_put_back_keeps_its_place_and_is_no_more_on_a_link() {
        let queue = ReplyQueue::new(1 << 20);
        let [a, b, c] = ["a", "b", "c"].map(|request| kept(&queue, request));
        assert!(queue.has_sent() && !queue.has_back());
        queue.put_back(b, tryagain()).unwrap();
        whole(&queue, c, "+C\r\n");
        assert!(queue.has_sent(), "the first is on a link still");
        whole(&queue, a, "+A\r\n");
        assert!(!queue.has_sent() && queue.has_back());
        assert_eq!((queue.said(), standing(&queue)), ("+A\r\n".into(), "b 0, c done".into()));
        queue.goes_again(b);
        assert!(queue.has_sent() && !queue.has_back());
        queue.put_back(b, tryagain()).unwrap();
        assert_eq!(standing(&queue), "b 1, c done");
        queue.goes_again(b);
        whole(&queue, b, "+B\r\n");
        assert_eq!((queue.said(), queue.waiting(), standing(&queue)), ("+B\r\n+C\r\n".into(), 0, "".into()));
        assert_eq!(queue.0.borrow().kept, 0);
    }

    #[test]
    fn a_reply_that_waits_behind_it_can_be_taken_back() {
        let queue = ReplyQueue::new(1 << 20);
        let [a, b] = ["a", "b"].map(|request| kept(&queue, request));
        whole(&queue, b, "+OLD\r\n");
        queue.put_back(a, tryagain()).unwrap();
        let held = queue.untaken();
        queue.recall(b, tryagain()).unwrap();
        assert_eq!((held, queue.untaken(), standing(&queue)), (6, 0, "a 0, b 0".into()));
        assert!(!queue.has_sent());
        [a, b].into_iter().for_each(|slot| queue.goes_again(slot));
        assert!(queue.has_sent() && !queue.has_back());
        whole(&queue, b, "+NEW\r\n");
        whole(&queue, a, "+A\r\n");
        assert_eq!(queue.said(), "+A\r\n+NEW\r\n");
    }

    #[test]
    fn what_was_not_kept_or_is_begun_is_not_put_back() {
        let queue = ReplyQueue::new(1 << 20);
        let not_kept = queue.open();
        assert!(queue.put_back(not_kept, tryagain()).is_err());
        whole(&queue, not_kept, "+A\r\n");
        let begun = kept(&queue, "b");
        queue.piece(begun, Bytes::from_static(b"$2\r\n"), false);
        assert!(queue.put_back(begun, tryagain()).is_err());
        queue.piece(begun, Bytes::from_static(b"ab\r\n"), true);
        assert!(queue.put_back(begun, tryagain()).is_ok() && !queue.has_back(), "nobody waits for it");
        let gone = kept(&queue, "c");
        queue.put_back(gone, tryagain()).unwrap();
        queue.close();
        assert!(!queue.has_back() && queue.standing().is_empty() && queue.0.borrow().kept == 0);
    }

    #[test]
    fn behind_what_may_have_been_executed_nothing_goes_again_that_was_lost_with_it() {
        let queue = ReplyQueue::new(1 << 20);
        let [a, b, c] = ["a", "b", "c"].map(|request| kept(&queue, request));
        queue.is_in_doubt(a);
        whole(&queue, a, "-ERR lost\r\n");
        assert!(queue.put_back(b, refusal(None)).is_err());
        queue.put_back(c, tryagain()).unwrap();
        whole(&queue, b, "-ERR lost\r\n");
        queue.goes_again(c);
        whole(&queue, c, "+C\r\n");
        let later = kept(&queue, "later");
        assert!(queue.put_back(later, refusal(None)).is_ok());
    }

    #[test]
    fn a_session_is_woken_when_the_last_is_answered_that_stands_in_the_way() {
        let queue = ReplyQueue::new(1 << 20);
        let count = std::sync::Arc::new(Count::default());
        let waker = count.clone().into();
        queue.set_waker(&std::task::Context::from_waker(&waker));
        let [a, b] = ["a", "b"].map(|request| kept(&queue, request));
        whole(&queue, b, "+B\r\n");
        assert_eq!(count.0.load(std::sync::atomic::Ordering::Relaxed), 0);
        let c = kept(&queue, "c");
        queue.put_back(a, tryagain()).unwrap();
        assert_eq!(count.0.swap(0, std::sync::atomic::Ordering::Relaxed), 1);
        whole(&queue, c, "+C\r\n");
        assert_eq!(count.0.load(std::sync::atomic::Ordering::Relaxed), 1);
    }

    #[derive(Default)]
    struct Count(std::sync::atomic::AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// What the client does not want is thrown away, whatever became of it meanwhile; what is lost ends the connection then.
    #[test]
    fn who_wants_no_reply_gets_none_from_what_went_again() {
        let queue = Rc::new(ReplyQueue::new(1 << 20));
        let off = queue.open_switch(Replies::Off);
        let [a, b, c] = ["a", "b", "c"].map(|request| kept(&queue, request));
        queue.put_back(a, tryagain()).unwrap();
        queue.put_back(b, tryagain()).unwrap();
        queue.put_back(c, refusal(None)).unwrap();
        whole(&queue, off, "+OK\r\n");
        queue.goes_again(a);
        whole(&queue, a, "+A\r\n");
        ReplySlot { queue: queue.clone(), slot: b }.refuse(&tryagain());
        assert!(!queue.0.borrow().broken && queue.waiting() == 1);
        ReplySlot { queue: queue.clone(), slot: c }.refuse(&refusal(None));
        assert!(queue.0.borrow().broken && queue.waiting() == 0);
        assert_eq!(queue.said(), "");
    }

    #[test]
    fn while_much_is_kept_only_a_few_are_open() {
        let queue = ReplyQueue::new(1 << 20);
        for _ in 0..20 {
            kept(&queue, "small");
        }
        assert!(queue.may_open());
        let large = queue.open();
        queue.keep(large, vec![0; KEPT + 1].into());
        assert!(!queue.may_open());
        (0..6).for_each(|slot| whole(&queue, slot, "+OK\r\n"));
        assert!(queue.may_open(), "few are");
    }
}
