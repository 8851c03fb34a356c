//! The TLS handshakes of a worker that are under way.
//!
//! Invariants: at most [`MOST`] are; for one more the oldest gives way, so clients that connect and say nothing, or drip,
//! keep nobody out for longer than it takes them to come. One at a time is carried on, and between two of them whoever else
//! is ready has its turn: a storm of handshakes delays a hit by one step of one.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use tokio::sync::{Notify, Semaphore};

/// Of one worker. One that is under way holds 20 KB.
const MOST: usize = 512;

/// See the [module](self).
pub(super) struct Handshakes {
    begun: RefCell<VecDeque<Rc<Notify>>>,
    turn: Semaphore,
}

impl Default for Handshakes {
    fn default() -> Self {
        Self { begun: RefCell::default(), turn: Semaphore::new(1) }
    }
}

impl Handshakes {
    /// One begins.
    pub(super) fn begin(&self) -> Place<'_> {
        let mine = Rc::new(Notify::new());
        let mut begun = self.begun.borrow_mut();
        if begun.len() >= MOST
            && let Some(oldest) = begun.pop_front()
        {
            oldest.notify_one();
        }
        begun.push_back(mine.clone());
        Place { all: self, mine }
    }
}

/// One that is under way.
pub(super) struct Place<'a> {
    all: &'a Handshakes,
    mine: Rc<Notify>,
}

impl Place<'_> {
    /// Carries it on, a step at a time, whenever it is its turn. `None`: it had to give way.
    pub(super) async fn run<T>(&self, handshake: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.mine.notified() => None,
            done = in_turn(&self.all.turn, handshake) => Some(done),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.all.begun.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.mine));
    }
}

async fn in_turn<T>(turn: &Semaphore, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        {
            // It is never closed.
            let _turn = turn.acquire().await;
            // Ready again only after the sockets were looked at.
            tokio::task::yield_now().await;
            if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
                return done;
            }
        }
        // Until it is woken. Nothing is awaited between the poll and this, so no wake is missed.
        let mut woken = false;
        poll_fn(|_| match std::mem::replace(&mut woken, true) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn for_one_too_many_the_oldest_gives_way() {
        let handshakes = Handshakes::default();
        let first = handshakes.begin();
        let others: Vec<_> = (1..MOST).map(|_| handshakes.begin()).collect();
        assert!(!pin!(first.mine.notified()).as_mut().enable());
        let last = handshakes.begin();
        assert_eq!(first.run(pending::<()>()).await, None);
        assert_eq!(last.run(async { 7 }).await, Some(7));
        drop((others, first, last));
        assert!(handshakes.begun.borrow().is_empty());
    }

    #[tokio::test]
    async fn each_step_waits_for_its_turn_and_no_wake_is_missed() {
        let handshakes = Handshakes::default();
        let (steps, inside) = (Cell::new(0), Cell::new(false));
        let handshake = || async {
            for _ in 0..20 {
                assert!(!inside.replace(true));
                steps.set(steps.get() + 1);
                inside.set(false);
                tokio::time::sleep(std::time::Duration::from_micros(50)).await;
            }
        };
        let (a, b) = (handshakes.begin(), handshakes.begin());
        let both = async { tokio::join!(a.run(handshake()), b.run(handshake())) };
        tokio::time::timeout(std::time::Duration::from_secs(10), both).await.expect("no wake is missed");
        assert_eq!(steps.get(), 40);
    }
}
