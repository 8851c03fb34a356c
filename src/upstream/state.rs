//! What a link and its connection's task share: the requests in flight, how the connection stands, and its end.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::client::{Loss, ReplyHandler};
use super::connect::{ConnectError, Identity, Settings};
use super::renewal::Renewal;
use crate::io::Outgoing;

pub(super) struct Inner<C: ReplyHandler> {
    pub(super) client: C,
    pub(super) identity: Identity,
    pub(super) settings: Rc<Settings>,
    pub(super) state: RefCell<State<C>>,
    /// Wakes the connection's task.
    pub(super) task: Rc<Cell<Option<Waker>>>,
    pub(super) epoch: Epoch,
    /// From when on an answer is awaited: when the upstream last said anything, or was asked after all was answered.
    /// What stands behind another request cannot be answered before it is, so no request needs a time of its own.
    pub(super) awaited: Cell<Instant>,
    /// Something was answered on the present connection, and not with an error.
    pub(super) answered: Cell<bool>,
    pub(super) renewal: Rc<Renewal>,
}

/// Counts the connections of a link; a task whose number is not the present one ends.
pub(super) type Epoch = Rc<Cell<u64>>;

pub(super) struct State<C: ReplyHandler> {
    pub(super) phase: Phase,
    pub(super) out: Outgoing,
    /// Bytes queued and written in the present connection.
    pub(super) queued: u64,
    pub(super) written: u64,
    pub(super) in_flight: VecDeque<Queued<C::InFlight>>,
    pub(super) backoff: Backoff,
    /// When the present connection was made.
    pub(super) since: Instant,
    /// Who waits for the phase or the congestion to change.
    pub(super) waiting: Vec<Waker>,
}

pub(super) struct Queued<E> {
    /// Where in the connection's stream the request begins.
    pub(super) start: u64,
    pub(super) expect: Expected<E>,
}

pub(super) enum Expected<E> {
    /// What the link's user awaits.
    Theirs(E),
    /// The answer to nearside's own login, with the password of this number.
    Login(u64),
}

impl<E> Expected<E> {
    pub(super) fn theirs(&self) -> Option<&E> {
        match self {
            Expected::Theirs(expect) => Some(expect),
            Expected::Login(_) => None,
        }
    }
}

pub(super) enum Phase {
    Idle,
    Connecting,
    Up,
    Down { until: Instant, cause: ConnectError },
}

impl<C: ReplyHandler> State<C> {
    /// What is expected in answer to the oldest request, if that is for the link's user.
    pub(super) fn front(&self) -> Option<&C::InFlight> {
        self.in_flight.front().and_then(|front| front.expect.theirs())
    }
}

impl<C: ReplyHandler> Inner<C> {
    /// The connection is lost, or could not be made: the requests in flight are told.
    pub(super) fn fail(&self, cause: ConnectError) {
        self.epoch.set(self.epoch.get() + 1);
        wake(&self.task);
        let mut state = self.state.borrow_mut();
        let was_up = matches!(state.phase, Phase::Up);
        let answered = self.answered.replace(false);
        let lived = state.since.elapsed();
        let delay = if was_up { state.backoff.lost(answered, lived) } else { state.backoff.failed() };
        state.phase = Phase::Down { until: Instant::now() + delay, cause: cause.clone() };
        let written = std::mem::take(&mut state.written);
        state.queued = 0;
        state.out = Outgoing::default();
        let in_flight = std::mem::take(&mut state.in_flight);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        let mut loss = Loss { sent: false, cause };
        self.client.down(was_up, &loss);
        self.client.front(None);
        for Queued { start, expect } in in_flight {
            loss.sent = was_up && start < written;
            if let Expected::Theirs(expect) = expect {
                self.client.lost(expect, &loss);
            }
        }
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(super) fn tell_front(&self) {
        let state = self.state.borrow();
        self.client.front(state.front());
    }

    pub(super) fn overdue(&self) -> Option<ConnectError> {
        let limit = self.settings.reply_timeout;
        let state = self.state.borrow();
        let front = state.in_flight.front()?.expect.theirs();
        let waited = self.awaited.get().elapsed();
        if limit.is_zero() || waited <= limit || front.is_some_and(|front| self.client.may_wait(front)) {
            return None;
        }
        let limit = humantime::format_duration(limit);
        Some(ConnectError::Io(format!("no reply within {limit} (upstream-timeout)").into()))
    }
}

impl<C: ReplyHandler> Drop for Inner<C> {
    fn drop(&mut self) {
        self.epoch.set(self.epoch.get() + 1);
        wake(&self.task);
        for request in self.state.get_mut().in_flight.drain(..) {
            let cause = ConnectError::Io("the link was closed".into());
            if let Expected::Theirs(expect) = request.expect {
                self.client.lost(expect, &Loss { sent: true, cause });
            }
        }
    }
}

pub(super) fn wake(task: &Cell<Option<Waker>>) {
    if let Some(waker) = task.take() {
        waker.wake();
    }
}
