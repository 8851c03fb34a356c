//! A connection that stands says nearside's own login again when its password has changed.
//!
//! Invariants:
//! - It is the same user, so the server goes on with the connection as it was: tracking, its redirection and
//!   subscriptions stand, and what is in flight is answered in order. Refused, the connection is as it was, too.
//! - It is said as soon as the user of the link allows it ([`ReplyHandler::may_log_in`]), and once at a time. What is
//!   refused is said again, with a delay that grows: the server may be told of the password later than nearside.
//! - The answer is nobody's but the link's: it counts as one in flight, and no client sees it.

use std::rc::{Rc, Weak};
use std::time::Duration;

use super::backoff::backoff;
use super::client::{At, ReplyHandler};
use super::connect::encode_login;
use super::credentials::Who;
use super::state::{Expected, Inner, Queued, Renewal, wake};
use crate::resp::scanner::Kind;

/// Between two attempts on one connection.
const REFUSED: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

impl<C: ReplyHandler> Inner<C> {
    /// Makes it due with each new password. Never ends.
    pub(super) async fn follow_password(who: Who, renewal: Rc<Renewal>) {
        if let Who::Own(own) = who {
            own.changes(|| {
                renewal.turns.set(0);
                renewal.due.set(true);
            })
            .await;
        }
        std::future::pending().await
    }

    /// Says the newest password, if that was not said and may be said now.
    #[cold]
    pub(super) fn log_in_again(&self) {
        let renewal = &self.renewal;
        let newest = match &self.identity.who {
            Who::Own(own) => own.newest().map(|newest| (newest.number, own.login(&newest))),
            Who::Client(_) => None,
        };
        let Some((number, login)) = newest.filter(|(number, _)| *number != renewal.said.get()) else {
            return renewal.due.set(false);
        };
        if renewal.asked.get() || !self.client.may_log_in() {
            return;
        }
        renewal.due.set(false);
        renewal.asked.set(true);
        let mut state = self.state.borrow_mut();
        let before = state.out.len();
        state.out.with(|tail| encode_login(tail, &login));
        let start = state.queued;
        state.queued += (state.out.len() - before) as u64;
        if state.in_flight.is_empty() {
            self.awaited.set(tokio::time::Instant::now());
        }
        state.in_flight.push_back(Queued { start, expect: Expected::Login(number) });
        state.end_login();
    }

    /// A piece of the answer came. Says whether that was all.
    pub(super) fn logged_in(self: &Rc<Self>, number: u64, chunk: &[u8], at: At) -> bool {
        if at.first {
            self.answered_login(number, (at.kind == Kind::Error).then_some(chunk));
        }
        at.last
    }

    fn answered_login(self: &Rc<Self>, number: u64, refusal: Option<&[u8]>) {
        let (renewal, Who::Own(own)) = (&self.renewal, &self.identity.who) else { return };
        renewal.asked.set(false);
        // There may be a newer one by now.
        renewal.due.set(true);
        match refusal {
            None => {
                renewal.said.set(number);
                renewal.turns.set(0);
                own.taken(number);
            }
            Some(_) => {
                own.doubt();
                if own.newest().is_some_and(|newest| newest.number == number) {
                    renewal.due.set(false);
                    let delay = backoff(REFUSED, renewal.turns.get());
                    renewal.turns.set(renewal.turns.get().saturating_add(1));
                    due_after(delay, Rc::downgrade(self), self.epoch.get());
                }
            }
        }
        self.client.logged_in(refusal);
    }
}

fn due_after<C: ReplyHandler>(delay: Duration, weak: Weak<Inner<C>>, epoch: u64) {
    tokio::task::spawn_local(async move {
        tokio::time::sleep(delay).await;
        if let Some(inner) = weak.upgrade().filter(|inner| inner.epoch.get() == epoch) {
            inner.renewal.due.set(true);
            wake(&inner.task);
        }
    });
}
