//! Backpressure: how long those who bring replies wait for a client that leaves them untaken.
//!
//! Invariants: a link that one session has for itself waits as long as its client does. One that others share
//! waits only while the client takes what it has; then what is under way is kept beyond the limit, and with too much
//! of it the client is sent away.

use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::queue::ReplyQueue;
use super::slots::Hold;

/// How long a shared link waits for a client, which keeps its other clients waiting too; anew whenever the
/// client has taken a fair piece.
const HOLD: Duration = Duration::from_millis(100);

/// How many times the limit a client may leave untaken, counting what was under way when it was reached.
const OVERRUN: usize = 4;

impl ReplyQueue {
    /// Whether there is room for what a dedicated link brings; if not, `cx` is woken when there is.
    ///
    /// What is held in slots does not count: it may be held because of the very reply that the link brings.
    pub fn has_room(&self, cx: &mut Context<'_>) -> bool {
        let mut inner = self.0.borrow_mut();
        let full = inner.is_crowded();
        if full {
            inner.blocked_links.push(cx.waker().clone());
        }
        !full
    }

    /// Like [`ReplyQueue::has_room`], for a link that others wait for too. It is held up only while the client
    /// takes what it has; then what is under way is kept beyond the limit, and if that is too much, the
    /// client is sent away.
    pub fn has_shared_room(self: &Rc<Self>, cx: &mut Context<'_>) -> bool {
        let mut inner = self.0.borrow_mut();
        if !inner.is_crowded() {
            inner.hold = None;
            return true;
        }
        if inner.out.len() + inner.held > inner.limit.saturating_mul(OVERRUN) {
            inner.overrun = true;
            inner.wake();
            return true;
        }
        let (now, written, fair) = (Instant::now(), inner.written, inner.fair_piece());
        let renewed = match &inner.hold {
            Some(hold) if written - hold.written < fair => {
                if now >= hold.until {
                    return true;
                }
                false
            }
            _ => true,
        };
        if renewed {
            inner.hold = Some(Hold { until: now + HOLD, written });
            let this = self.clone();
            tokio::task::spawn_local(async move {
                tokio::time::sleep(HOLD).await;
                this.0.borrow_mut().blocked_links.drain(..).for_each(Waker::wake);
            });
        }
        inner.blocked_links.push(cx.waker().clone());
        false
    }
}
