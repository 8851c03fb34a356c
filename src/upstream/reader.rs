//! The reading half of a link: cuts what comes into frames and hands them to the client, in pieces if they are
//! long.

use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use super::client::{At, Chunk, ReplyHandler};
use super::connect::ConnectError;
use super::state::{Expected, Inner, Queued};
use super::untold::REFUSED;
use crate::resp::scanner::{Kind, ReplyScanner, Scan};

/// How much of an unfinished reply is gathered before it is handed over in pieces.
const PIECE: usize = 64 << 10;

/// Reads a connection and hands over what comes.
#[derive(Default)]
pub(super) struct Reader {
    buf: BytesMut,
    /// How much of `buf` the scanner has seen.
    seen: usize,
    scanner: ReplyScanner,
    /// A piece of the present frame was handed over.
    begun: bool,
    /// The frame that has begun answers no request.
    pushing: bool,
}

/// Room for one read.
const READ: usize = 64 << 10;

/// Reads in a row before other tasks get their turn.
const READS: usize = 16;

/// The other side has ended the connection.
pub(super) fn closed() -> ConnectError {
    ConnectError::Io("the upstream closed the connection".into())
}

impl Reader {
    pub(super) fn poll<C: ReplyHandler>(
        &mut self,
        inner: &Rc<Inner<C>>,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<ConnectError> {
        for _ in 0..READS {
            let room = {
                let state = inner.state.borrow();
                inner.client.has_room(state.front(), cx)
            };
            if !room {
                return Poll::Pending;
            }
            self.buf.reserve(READ);
            match pin!(stream.read_buf(&mut self.buf)).poll(cx) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(closed());
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(error.into()),
                Poll::Pending => {
                    if self.buf.is_empty() {
                        self.buf = BytesMut::new();
                    }
                    return Poll::Pending;
                }
            }
            if let Err(cause) = self.handle(inner) {
                return Poll::Ready(cause);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Hands over every whole frame, and the beginning of a long one.
    fn handle<C: ReplyHandler>(&mut self, inner: &Rc<Inner<C>>) -> Result<(), ConnectError> {
        inner.awaited.set(Instant::now());
        inner.client.heard();
        let mut answered = false;
        while self.seen < self.buf.len() {
            match self.scanner.scan(&self.buf[self.seen..]) {
                Ok(Scan::Done { used, kind }) => {
                    self.deliver(inner, self.seen + used, kind, true)?;
                    answered |= !self.pushing;
                }
                Ok(Scan::More) => {
                    self.seen = self.buf.len();
                    if let Some(kind) = self.scanner.kind().filter(|_| self.seen >= PIECE) {
                        self.deliver(inner, self.seen, kind, false)?;
                    }
                }
                Err(garbage) => {
                    return Err(ConnectError::Io(format!("not understood: {garbage}").into()));
                }
            }
        }
        if answered {
            inner.tell_front();
        }
        Ok(())
    }

    fn deliver<C: ReplyHandler>(
        &mut self,
        inner: &Rc<Inner<C>>,
        len: usize,
        kind: Kind,
        last: bool,
    ) -> Result<(), ConnectError> {
        let at = At { kind, first: !self.begun, last };
        self.begun = !last;
        self.seen = 0;
        let mut state = inner.state.borrow_mut();
        if at.first {
            self.pushing = inner.client.is_push(state.front(), kind, &self.buf[..len]);
        }
        let chunk = Chunk { buf: &mut self.buf, len };
        if self.pushing {
            drop(state);
            inner.client.push(chunk, at);
            return Ok(());
        }
        let Some(request) = state.in_flight.pop_front() else {
            return Err(match kind {
                Kind::Error => ConnectError::turned_away(&chunk),
                _ => ConnectError::Io("a reply came to no request".into()),
            });
        };
        let untold = at.first && kind == Kind::Error && state.is_untold(&chunk);
        if kind != Kind::Error {
            inner.answered.set(true);
        }
        drop(state);
        let (mut refused, mut chunk) = (BytesMut::new(), chunk);
        if untold {
            refused.extend_from_slice(REFUSED);
            let len = refused.len();
            chunk = Chunk { buf: &mut refused, len };
        }
        let Queued { start, expect } = request;
        let more = match expect {
            Expected::Theirs(expect) => inner.client.reply(expect, chunk, at).map(Expected::Theirs),
            Expected::Login(number) => {
                (!inner.logged_in(number, &chunk, at)).then_some(Expected::Login(number))
            }
            Expected::LoginEnd => {
                if at.last {
                    inner.client.settled();
                }
                (!at.last).then_some(Expected::LoginEnd)
            }
        };
        if let Some(expect) = more {
            inner.state.borrow_mut().in_flight.push_front(Queued { start, expect });
        }
        Ok(())
    }
}
