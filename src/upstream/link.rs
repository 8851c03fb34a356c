//! One pipelined connection to the upstream, which connects when it is first used and again after a loss.
//!
//! Requests are queued by [`Link::send`] and written by the link's task when it next runs: what the sessions
//! of one tick ask for leaves in one write. The task ends with the last handle of the link.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::{Backoff, LIVED};
use super::client::{Loss, ReplyHandler};
use super::connect::{ConnectError, Connected, Identity, Settings, connect};
use super::reader::{Reader, closed};
use super::state::{Epoch, Expected, Inner, Phase, Queued, Renewal, State, wake};
use crate::io::{Outgoing, Stream};

/// Whether a connection of this identity can be made now.
pub async fn can_connect(settings: &Settings, identity: &Identity) -> bool {
    connect(settings, identity).await.is_ok()
}

/// How often overdue replies are looked for.
const OVERDUE_CHECK: Duration = Duration::from_millis(500);

/// After so long without a word from the upstream it is asked whether the connection still stands before more is sent, if no
/// more than a few requests are in flight: who is awaited by many is not idle.
const QUIET: Duration = Duration::from_millis(5);
const FEW: usize = 3;

/// Capacity that a link keeps when there is nothing to send, in bytes.
const KEPT: usize = 16 << 10;

/// Requests waiting to be written, in bytes, above which senders should hold back.
const CONGESTED: usize = 8 << 20;

/// A handle of a link. The connection is closed when the last handle is dropped.
pub struct Link<C: ReplyHandler>(Rc<Inner<C>>);

impl<C: ReplyHandler> Clone for Link<C> {
    fn clone(&self) -> Self {
        Link(self.0.clone())
    }
}

impl<C: ReplyHandler> Link<C> {
    pub fn new(client: C, identity: Identity, settings: Rc<Settings>) -> Self {
        let state = State {
            phase: Phase::Idle,
            out: Outgoing::default(),
            queued: 0,
            written: 0,
            in_flight: VecDeque::new(),
            backoff: Backoff::default(),
            since: Instant::now(),
            waiting: Vec::new(),
        };
        Link(Rc::new(Inner {
            client,
            identity,
            settings,
            state: RefCell::new(state),
            task: Rc::default(),
            epoch: Rc::default(),
            awaited: Cell::new(Instant::now()),
            answered: Cell::default(),
            quiet: Cell::default(),
            handed_over: Cell::default(),
            renewal: Rc::<Renewal>::default(),
        }))
    }

    pub fn client(&self) -> &C {
        &self.0.client
    }

    /// Queues what `write` writes, and what is expected in answer.
    ///
    /// Errors: the upstream is away and it is too early to try again; `expect` comes back.
    pub fn send(
        &self,
        write: impl FnOnce(&mut Outgoing),
        expect: C::InFlight,
    ) -> Result<(), (C::InFlight, Loss)> {
        if let Err(cause) = self.begin() {
            return Err((expect, Loss { sent: false, cause }));
        }
        let mut state = self.0.state.borrow_mut();
        let before = state.out.len();
        write(&mut state.out);
        let start = state.queued;
        state.queued += (state.out.len() - before) as u64;
        if state.in_flight.len() < FEW {
            let now = Instant::now();
            if now.duration_since(self.0.awaited.get()) > QUIET {
                self.0.quiet.set(true);
            }
            if state.in_flight.is_empty() {
                self.0.awaited.set(now);
                self.0.client.front(Some(&expect));
            }
        }
        state.in_flight.push_back(Queued { start, expect: Expected::Theirs(expect) });
        drop(state);
        wake(&self.0.task);
        Ok(())
    }

    /// Behind a login that was queued just now: makes sure that it is answered. See [`untold`](super::untold).
    pub fn end_login(&self) {
        let mut state = self.0.state.borrow_mut();
        // Else it was not queued.
        if matches!(state.phase, Phase::Up | Phase::Connecting) {
            state.end_login();
            wake(&self.0.task);
        }
    }

    /// Queues what no reply is awaited for. If the upstream is away it is dropped.
    pub fn send_unheard(&self, write: impl FnOnce(&mut Outgoing)) {
        if self.begin().is_err() {
            return;
        }
        let mut state = self.0.state.borrow_mut();
        let before = state.out.len();
        write(&mut state.out);
        state.queued += (state.out.len() - before) as u64;
        drop(state);
        wake(&self.0.task);
    }

    /// Starts to connect if there is no connection. Errors: it is too early to try again.
    fn begin(&self) -> Result<(), ConnectError> {
        let mut state = self.0.state.borrow_mut();
        match &state.phase {
            Phase::Up | Phase::Connecting => return Ok(()),
            Phase::Down { until, cause } if Instant::now() < *until || !self.0.client.reconnects() => {
                return Err(cause.clone());
            }
            Phase::Down { .. } | Phase::Idle => {}
        }
        state.phase = Phase::Connecting;
        drop(state);
        self.0.client.attempt();
        let current =
            Current { task: self.0.task.clone(), epoch: self.0.epoch.clone(), mine: self.0.epoch.get() };
        let weak = Rc::downgrade(&self.0);
        let (identity, settings) = (self.0.identity.clone(), self.0.settings.clone());
        tokio::task::spawn_local(async move {
            let _fall = Fall(weak.clone());
            let connecting = connect(&settings, &identity);
            let cause = match current.or_over(connecting).await {
                Some(Ok(Connected { stream, own, said, mut moves })) => tokio::select! {
                    // What the upstream has moved away from is read no further.
                    biased;
                    () = moves.next() => Some(ConnectError::Io(moves.cause().into())),
                    cause = run(stream, (own.id(), said), &weak, &current) => cause,
                },
                Some(Err(cause)) => Some(cause),
                None => None,
            };
            if let (Some(cause), Some(inner)) = (cause, weak.upgrade())
                && inner.fail(cause, true)
            {
                let _ = Link(inner).begin();
            }
        });
        Ok(())
    }

    /// Connects, if there is no connection, as soon as it is not too early to try again.
    pub fn reconnect(&self) {
        let until = match self.0.state.borrow().phase {
            Phase::Down { until, .. } => until,
            _ => Instant::now(),
        };
        if until <= Instant::now() {
            let _ = self.begin();
            return;
        }
        let weak = Rc::downgrade(&self.0);
        tokio::task::spawn_local(async move {
            tokio::time::sleep_until(until).await;
            if let Some(inner) = weak.upgrade() {
                let _ = Link(inner).begin();
            }
        });
    }

    /// Connects now, if there is no connection, however lately an attempt has failed: the upstream is known to be there.
    pub fn reconnect_now(&self) {
        let mut state = self.0.state.borrow_mut();
        if matches!(state.phase, Phase::Down { .. }) {
            state.phase = Phase::Idle;
        }
        drop(state);
        let _ = self.begin();
    }

    /// Ready when the connection stands, or cannot be made.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Loss>> {
        if let Err(cause) = self.begin() {
            return Poll::Ready(Err(Loss { sent: false, cause }));
        }
        let mut state = self.0.state.borrow_mut();
        if matches!(state.phase, Phase::Up) {
            return Poll::Ready(Ok(()));
        }
        state.waiting.push(cx.waker().clone());
        Poll::Pending
    }

    /// Whether so much waits to be written that senders should hold back; if so the waker is kept.
    pub fn is_congested(&self, cx: &mut Context<'_>) -> bool {
        let mut state = self.0.state.borrow_mut();
        let congested = state.out.len() > CONGESTED;
        if congested {
            state.waiting.push(cx.waker().clone());
        }
        congested
    }

    /// Whether so much waits to be written.
    pub fn is_crowded(&self) -> bool {
        self.0.state.borrow().out.len() > CONGESTED
    }

    /// Whether all that was asked for is written, or never will be; if not, the waker is kept.
    pub fn is_flushed(&self, cx: &mut Context<'_>) -> bool {
        let mut state = self.0.state.borrow_mut();
        let flushed = state.out.is_flushed() || matches!(state.phase, Phase::Idle | Phase::Down { .. });
        if !flushed {
            state.waiting.push(cx.waker().clone());
        }
        flushed
    }

    pub fn is_up(&self) -> bool {
        matches!(self.0.state.borrow().phase, Phase::Up)
    }

    /// Since when the connection stands, or how long ago the last one was made.
    pub fn lived(&self) -> Duration {
        self.0.state.borrow().since.elapsed()
    }

    /// It is another's from now on: nothing on it belongs to that one yet.
    pub fn hand_over(&self) {
        self.0.handed_over.set(Some(self.0.state.borrow().queued));
    }

    /// Whether the connection stands, and has stood for a while.
    pub fn has_lived(&self) -> bool {
        self.is_up() && self.lived() >= LIVED
    }

    /// Whether the connection was lost, or could not be made.
    pub fn is_down(&self) -> bool {
        matches!(self.0.state.borrow().phase, Phase::Down { .. })
    }

    /// Whether both are handles of one link.
    pub fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Whether there is no connection because the upstream has refused it.
    pub fn is_refused(&self) -> bool {
        matches!(self.0.state.borrow().phase, Phase::Down { cause: ConnectError::Refused(_), .. })
    }

    /// Looks at what is expected in answer to the oldest request.
    pub fn with_front<T>(&self, look: impl FnOnce(&C::InFlight) -> T) -> Option<T> {
        self.0.state.borrow().front().map(look)
    }

    /// Requests whose replies have not all come.
    pub fn in_flight(&self) -> usize {
        self.0.state.borrow().in_flight.len()
    }

    /// Whether any request in flight is of a kind.
    pub fn awaits(&self, kind: impl Fn(&C::InFlight) -> bool) -> bool {
        self.0.state.borrow().in_flight.iter().filter_map(|request| request.expect.theirs()).any(kind)
    }

    /// Whether anyone else holds the link.
    pub fn is_shared(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }

    /// Closes the connection; the requests in flight are told. The next request connects again at once.
    pub fn close(&self, cause: &str) {
        self.0.fail(ConnectError::Io(cause.into()), false);
        self.0.state.borrow_mut().phase = Phase::Idle;
    }
}

/// If the connection's task panics, the link is given up, or it would look as if it stood and nobody read it.
struct Fall<C: ReplyHandler>(Weak<Inner<C>>);

impl<C: ReplyHandler> Drop for Fall<C> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        if let Some(inner) = self.0.upgrade() {
            tokio::task::spawn_local(async move {
                inner.fail(ConnectError::Io("a fault in nearside; see its log".into()), false);
            });
        }
    }
}

/// What a connection's task knows of whether it is still the link's.
struct Current {
    task: Rc<Cell<Option<Waker>>>,
    epoch: Epoch,
    mine: u64,
}

impl Current {
    /// Whether the link was closed, or has failed, since the task began; if not, the waker is kept.
    fn is_over(&self, cx: &mut Context<'_>) -> bool {
        let over = self.epoch.get() != self.mine;
        if !over {
            self.task.set(Some(cx.waker().clone()));
        }
        over
    }

    /// `None` if it is over before the future is ready.
    async fn or_over<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        poll_fn(|cx| match self.is_over(cx) {
            true => Poll::Ready(None),
            false => future.as_mut().poll(cx).map(Some),
        })
        .await
    }
}

/// Serves one connection, which the upstream calls `id` and which has said the password of number `said`, until it is lost;
/// says why, or `None` if it was closed from our side.
async fn run<C: ReplyHandler>(
    mut stream: Stream,
    (id, said): (Option<i64>, u64),
    weak: &Weak<Inner<C>>,
    current: &Current,
) -> Option<ConnectError> {
    let inner = weak.upgrade()?;
    let renewal = inner.renewal.clone();
    let mut changes = pin!(Inner::<C>::follow_password(inner.identity.who.clone(), renewal.clone()));
    renewal.begin(said);
    let waiting = {
        let mut state = inner.state.borrow_mut();
        state.phase = Phase::Up;
        state.since = Instant::now();
        std::mem::take(&mut state.waiting)
    };
    inner.client.up(id);
    inner.tell_front();
    waiting.into_iter().for_each(Waker::wake);
    drop(inner);
    let mut reader = Reader::default();
    let mut check = pin!(tokio::time::sleep(OVERDUE_CHECK));
    poll_fn(|cx| {
        let Some(inner) = weak.upgrade().filter(|_| !current.is_over(cx)) else {
            return Poll::Ready(None);
        };
        while check.as_mut().poll(cx).is_ready() {
            if let Some(cause) = inner.overdue() {
                return Poll::Ready(Some(cause));
            }
            check.as_mut().reset(Instant::now() + OVERDUE_CHECK);
        }
        if let Poll::Ready(cause) = reader.poll(&inner, &mut stream, cx) {
            return Poll::Ready(Some(cause));
        }
        let _ = changes.as_mut().poll(cx);
        if renewal.is_due() {
            inner.log_in_again();
        }
        if inner.quiet.take() {
            match stream.has_ended(cx) {
                Ok(false) => {}
                Ok(true) => return Poll::Ready(Some(closed())),
                Err(error) => return Poll::Ready(Some(error.into())),
            }
        }
        let mut state = inner.state.borrow_mut();
        let State { out, written, waiting, .. } = &mut *state;
        if let Poll::Ready(Err(error)) = out.poll_write(&mut stream, cx, written) {
            return Poll::Ready(Some(error.into()));
        }
        out.trim(KEPT);
        if out.len() <= CONGESTED / 2 {
            waiting.drain(..).for_each(Waker::wake);
        }
        Poll::Pending
    })
    .await
}
