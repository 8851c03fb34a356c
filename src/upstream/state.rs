//! What a link and its connection's task share: the requests in flight, how the connection stands, and its end.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::client::{Loss, ReplyHandler};
use super::connect::{ConnectError, Identity, Settings};
use super::untold;
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
    /// The upstream has said nothing for a while: whether it has closed the connection is asked before more is sent.
    pub(super) quiet: Cell<bool>,
    /// How much was queued when the link was given to its present user, to whom nothing on it belongs from before.
    pub(super) handed_over: Cell<Option<u64>>,
    pub(super) renewal: Rc<Renewal>,
}

/// How it stands with the login of the present connection.
#[derive(Default)]
pub(super) struct Renewal {
    /// The number of the password that the server has taken.
    pub(super) said: Cell<u64>,
    /// There may be a newer one to say.
    pub(super) due: Cell<bool>,
    pub(super) asked: Cell<bool>,
    /// How often in a row it was refused.
    pub(super) turns: Cell<u32>,
}

impl Renewal {
    /// A connection stands that has said the password of this number.
    pub(super) fn begin(&self, said: u64) {
        self.said.set(said);
        self.due.set(true);
        self.asked.set(false);
        self.turns.set(0);
    }

    pub(super) fn is_due(&self) -> bool {
        self.due.get()
    }
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
    /// That to the end of the login before it: see [`untold`](super::untold).
    LoginEnd,
}

impl<E> Expected<E> {
    pub(super) fn theirs(&self) -> Option<&E> {
        match self {
            Expected::Theirs(expect) => Some(expect),
            Expected::Login(_) | Expected::LoginEnd => None,
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
    /// Queues the end of the login that was queued last.
    pub(super) fn end_login(&mut self) {
        let (before, start) = (self.out.len(), self.queued);
        self.out.with(untold::encode_end);
        self.queued += (self.out.len() - before) as u64;
        self.in_flight.push_back(Queued { start, expect: Expected::LoginEnd });
    }

    /// Whether this answers the end of the login that was just taken from the front, and so not the login; that is over then.
    pub(super) fn is_untold(&mut self, reply: &[u8]) -> bool {
        let ends = |queued: &Queued<C::InFlight>| matches!(queued.expect, Expected::LoginEnd);
        let untold = self.in_flight.front().is_some_and(ends) && untold::is_end(reply);
        if untold {
            self.in_flight.pop_front();
        }
        untold
    }

    /// What is expected in answer to the oldest request, if that is for the link's user.
    pub(super) fn front(&self) -> Option<&C::InFlight> {
        self.in_flight.front().and_then(|front| front.expect.theirs())
    }
}

impl<C: ReplyHandler> Inner<C> {
    /// The connection is lost, or could not be made: the requests in flight are told, but for those that go on the next
    /// connection if it `may_carry` them there; says whether there are any.
    pub(super) fn fail(&self, cause: ConnectError, may_carry: bool) -> bool {
        self.epoch.set(self.epoch.get() + 1);
        wake(&self.task);
        let mut state = self.state.borrow_mut();
        let was_up = matches!(state.phase, Phase::Up);
        let answered = self.answered.replace(false);
        let lived = state.since.elapsed();
        let delay = if was_up { state.backoff.lost(answered, lived) } else { state.backoff.failed() };
        state.phase = Phase::Down { until: Instant::now() + delay, cause: cause.clone() };
        let written = state.written;
        let carried = match may_carry && was_up && delay.is_zero() {
            true => self.unsent(&mut state),
            false => VecDeque::new(),
        };
        if carried.is_empty() {
            state.out = Outgoing::default();
        } else {
            state.phase = Phase::Idle;
        }
        (state.written, state.queued) = (0, state.out.len() as u64);
        let in_flight = std::mem::take(&mut state.in_flight);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        let mut loss = Loss { sent: false, cause };
        let carries_on = !carried.is_empty();
        self.handed_over.set(carries_on.then_some(0));
        self.client.down(was_up, carries_on, &loss);
        self.client.front(None);
        for Queued { start, expect } in in_flight {
            loss.sent = was_up && start < written;
            if let Expected::Theirs(expect) = expect {
                self.client.lost(expect, &loss);
            }
        }
        self.carry_on(carried);
        waiting.into_iter().for_each(Waker::wake);
        carries_on
    }

    /// Takes out what was not sent, from the first request of the link's user on, if nothing of that one's was sent that is
    /// not answered: that was not executed, so it may be sent again, in the order in which it came. What was sent might
    /// still be executed, after what would go on the next connection. Likewise if somebody has state on this one.
    fn unsent(&self, state: &mut State<C>) -> VecDeque<Queued<C::InFlight>> {
        let written = state.written;
        let is_users = |queued: &Queued<C::InFlight>| {
            queued.expect.theirs().is_some_and(|expect| !self.client.is_of_the_link(expect))
        };
        let first = state.in_flight.iter().position(is_users);
        let Some((first, start)) = first.and_then(|i| Some((i, state.in_flight.get(i)?.start))) else {
            return VecDeque::new();
        };
        if start < written || !self.client.reconnects() && self.handed_over.get() != Some(start) {
            return VecDeque::new();
        }
        // Questions about the connection that were not sent either have no meaning on another.
        state.out.advance((start - written) as usize);
        let mut carried = state.in_flight.split_off(first);
        carried.iter_mut().for_each(|queued| queued.start -= start);
        carried
    }

    fn carry_on(&self, carried: VecDeque<Queued<C::InFlight>>) {
        if carried.is_empty() {
            return;
        }
        carried
            .iter()
            .filter_map(|queued| queued.expect.theirs())
            .for_each(|expect| self.client.carried(expect));
        // What was queued meanwhile stands behind.
        let mut state = self.state.borrow_mut();
        let later = std::mem::replace(&mut state.in_flight, carried);
        state.in_flight.extend(later);
        drop(state);
        self.awaited.set(Instant::now());
        self.tell_front();
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
        let state = self.state.get_mut();
        let written = if matches!(state.phase, Phase::Up) { state.written } else { 0 };
        for Queued { start, expect } in state.in_flight.drain(..) {
            let cause = ConnectError::Io("the link was closed".into());
            if let Expected::Theirs(expect) = expect {
                self.client.lost(expect, &Loss { sent: start < written, cause });
            }
        }
    }
}

pub(super) fn wake(task: &Cell<Option<Waker>>) {
    if let Some(waker) = task.take() {
        waker.wake();
    }
}
