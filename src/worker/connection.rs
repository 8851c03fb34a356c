//! One client's connection: reads, handles every complete request in the buffer, writes.
//!
//! Invariants: a session executes nothing more while its client leaves replies untaken, while too many of its requests are
//! open, or while its link is congested. What it keeps is bounded by `client-output-limit` and `max-request`. Many clients write
//! a whole pipeline before they read the first reply: requests are still read meanwhile, up to that limit, and kept.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::{debug, warn};

use super::sample::sample;
use super::sitting::Sitting;
use super::stall::Stall;
use super::state::Worker;
use super::tunnel::{self, Begun, Side};
use crate::command::{Row, Table};
use crate::io::{LARGE, Stream, begins_tls};
use crate::process::{Present, errors};
use crate::reply::{MAX_SPARE, ReplyQueue, WriteOutcome};
use crate::request::Raw;
use crate::resp::encode;
use crate::resp::framer::{Frame, Limits, RequestFramer};
use crate::session::{Session, Wanted};

/// Room for one read.
const READ: usize = 64 << 10;

/// Serves a client until it leaves, is sent away, or the worker drains.
pub async fn serve(worker: Rc<Worker>, present: Present, sitting: Sitting, mut stream: Stream) {
    let id = present.id;
    let Sitting { queue, draining, .. } = sitting;
    let settings = &worker.process.settings;
    let limits = Limits { max_request: settings.max_request.get(), ..settings.limits };
    let framer = RequestFramer::new(limits);
    let mut connection = Connection {
        session: Session::new(worker.outbound.clone(), present, queue.clone()),
        worker,
        queue,
        draining,
        framer,
        buf: BytesMut::new(),
        at: 0,
        framed: None,
        held_back: false,
        wanted: 0,
        input: Input::Open,
        came: 0,
        stall: Stall::default(),
    };
    loop {
        let mut end = poll_fn(|cx| connection.poll(&mut stream, cx)).await;
        let tunnel = connection.session.tunnel.take();
        if let (Ok(()), Some(wanted)) = (&end, tunnel) {
            match connection.tunnel(wanted, &mut stream).await {
                Ok(true) => continue,
                ended => end = ended.map(drop),
            }
        }
        if let Err(error) = end {
            debug!(client = id, %error, "client is gone");
        }
        break;
    }
    let patience =
        (connection.input == Input::Away).then(|| connection.worker.process.settings.stall_timeout.get());
    drop(connection);
    let _ = stream.shutdown().await;
    if let Some(patience) = patience {
        // What is unread at the close would make of it a reset, which takes the last words with it.
        let rest = async { while matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {} };
        let _ = tokio::time::timeout(patience, rest).await;
    }
}

#[derive(PartialEq)]
enum Input {
    Open,
    /// The client has closed its side, or has said what ends the connection: what it asked for before is
    /// still answered.
    Ended,
    /// The client was sent away: what it still sends is thrown away, so that it can take what it has and hear why.
    Away,
}

struct Connection {
    worker: Rc<Worker>,
    queue: Rc<ReplyQueue>,
    /// It is to end between two requests.
    draining: Rc<Cell<bool>>,
    session: Session,
    framer: RequestFramer,
    buf: BytesMut,
    /// While requests are handled: where the next one starts in `buf`. It is moved to its start once for all of them.
    at: usize,
    /// The request at the start of `buf` was framed, but has to wait.
    framed: Option<Framed>,
    /// The last requests were not even framed: too much is open, or the way to the upstream is congested.
    held_back: bool,
    /// Bytes that the request at the start of `buf` needs at least.
    wanted: usize,
    input: Input,
    /// Bytes that have come so far.
    came: u64,
    /// Runs while the client leaves more than the limit untaken.
    stall: Stall,
}

/// What became of what there was to handle.
struct Handled {
    /// Anything was done.
    any: bool,
    /// It ended for want of a complete request.
    starved: bool,
}

#[derive(Clone, Copy)]
struct Framed {
    len: usize,
    inline: bool,
}

impl Connection {
    /// Is a plain tunnel from now on. True if the server has refused that: then the session goes on.
    async fn tunnel(&mut self, wanted: Wanted, stream: &mut Stream) -> io::Result<bool> {
        let begun = {
            let side = Side { cx: &self.session.cx, draining: &self.draining };
            tunnel::begin(&side, &wanted, stream, &mut self.buf).await?
        };
        match begun {
            Begun::Over => Ok(false),
            Begun::Refused(said) => {
                self.queue.reply(&said);
                Ok(true)
            }
            Begun::Stands(tunnel, first) => {
                self.session.drop_dedicated();
                let ahead = std::mem::take(&mut self.buf);
                let side = Side { cx: &self.session.cx, draining: &self.draining };
                tunnel::join(&side, &wanted, (tunnel, first), stream, &ahead).await?;
                Ok(false)
            }
        }
    }

    fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.queue.set_waker(cx);
        self.take_buffer();
        let end = self.take_turns(stream, cx);
        self.give_back_buffer();
        end
    }

    fn take_turns(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut again = true;
        loop {
            if self.input == Input::Away {
                return self.poll_away(stream, cx);
            }
            if !again && self.input == Input::Open && !self.draining.get() {
                // The usual end of a turn: the socket is asked only in order to be woken by it.
                if self.is_held_up() || stream.poll_read_ready(cx)?.is_pending() {
                    return Poll::Pending;
                }
            }
            if self.session.is_lost() {
                // A plain connection would be closed with the state that it had. What was asked is told so; nothing
                // more is asked, least of all on another connection, where it would be done as if nothing was lost.
                self.end_input();
                self.framed = None;
            }
            let was_held_up = self.is_held_up();
            let read = self.poll_read(stream, cx)?;
            let Handled { any: handled, starved } = self.handle(cx);
            let left = self.queue.write(stream, cx, &self.worker.spare)?;
            let (ended, draining) = (self.input == Input::Ended, self.draining.get());
            if ended || draining {
                self.session.let_go(draining);
            }
            let gone =
                ended && self.session.ends_with_client() && !left.pending && self.session.is_flushed(cx);
            if left.broken || gone {
                // The rest of a reply that was cut off cannot be sent; and what may never be answered is
                // not waited for when its client has gone.
                return Poll::Ready(Ok(()));
            }
            if self.session.tunnel.is_some() && left.drained {
                return Poll::Ready(Ok(()));
            }
            let over = ended && self.framed.is_none() || draining && self.session.may_leave();
            if over && !handled && left.drained && self.session.is_flushed(cx) {
                return Poll::Ready(Ok(()));
            }
            if self.is_stalled(&left, stream, cx) {
                self.send_away();
                continue;
            }
            if self.session.turn.gives_way() {
                // Woken after the sockets were looked at; a plain wake would come before that sixty times.
                let _ = pin!(tokio::task::yield_now()).poll(cx);
                return Poll::Pending;
            }
            // What waited for room could neither be read nor handled in this turn.
            if !read && !handled && !left.made_room {
                if was_held_up && !self.is_held_up() {
                    // What held it up is over, and the rest of the next request may be there: nothing was read yet.
                    continue;
                }
                return Poll::Pending;
            }
            again = left.made_room || !starved;
        }
    }

    /// Whether no more is read for now: a request waits, or the client does not take its replies. Whatever that is
    /// due to wakes the session when it ends.
    fn is_held_up(&self) -> bool {
        if self.queue.is_full() {
            return self.buf.len() >= self.worker.process.settings.output_limit.get();
        }
        self.framed.is_some() || self.held_back && !self.buf.is_empty()
    }

    /// Reads once; says whether anything came.
    fn poll_read(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> io::Result<bool> {
        let draining = self.draining.get() && self.session.may_leave();
        if self.input == Input::Ended || draining || self.is_held_up() {
            return Ok(false);
        }
        // Grows with what has come, not with what was announced: it doubles, and the last step is exact, for
        // a step beyond would copy the whole request once more.
        let missing = self.wanted.saturating_sub(self.buf.len());
        let room = self.buf.capacity() - self.buf.len();
        if missing == 0 && room < READ / 4 || room < missing {
            let wanted = if missing / 8 <= self.buf.len() { missing } else { self.buf.len() };
            self.buf.reserve(wanted.max(READ));
        }
        let read = pin!(stream.read_buf(&mut self.buf)).poll(cx);
        let came = match read {
            Poll::Ready(Ok(0)) => {
                self.input = Input::Ended;
                false
            }
            Poll::Ready(Ok(n)) => {
                self.came += n as u64;
                true
            }
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => false,
        };
        Ok(came)
    }

    /// Takes the worker's buffer for this poll, unless a part of a request lies in the session's own.
    fn take_buffer(&mut self) {
        if self.buf.is_empty() {
            std::mem::swap(&mut self.buf, &mut self.worker.scratch.borrow_mut());
        }
    }

    /// Hands the buffer to whoever reads next; a small part of a request is moved to a buffer of its own.
    fn give_back_buffer(&mut self) {
        let mut scratch = self.worker.scratch.borrow_mut();
        if self.buf.is_empty() {
            if self.buf.capacity() <= MAX_SPARE && self.buf.capacity() > scratch.capacity() {
                std::mem::swap(&mut self.buf, &mut scratch);
            }
            if self.buf.capacity() > 0 {
                self.buf = BytesMut::new();
            }
        } else if self.framed.is_none() && self.buf.len() <= LARGE && scratch.capacity() == 0 {
            let own = BytesMut::from(&self.buf[..]);
            self.buf.clear();
            *scratch = std::mem::replace(&mut self.buf, own);
        }
    }

    /// Handles what can be handled now.
    fn handle(&mut self, cx: &mut Context<'_>) -> Handled {
        let worker = self.worker.clone();
        let mut table = worker.table.borrow_mut();
        let table = table.load();
        let mut any = self.session.begin_batch(table, cx);
        let before = self.session.turn.handled;
        if !self.buf.is_empty() {
            self.queue.borrow_buffer(&worker.spare);
        }
        let mut starved = false;
        let mut last = None;
        loop {
            self.held_back = !self.session.may_proceed(cx);
            if self.held_back {
                if self.session.wants_to_quit() {
                    // It was killed.
                    self.end_input();
                }
                break;
            }
            let Some(framed) = self.next_frame() else {
                starved = true;
                break;
            };
            if !self.execute(table, framed, &mut last) {
                self.framed = Some(framed);
                break;
            }
            if self.session.wants_to_quit() {
                self.end_input();
                break;
            }
        }
        if worker.process.hot.is_watched() {
            sample(&worker.process, table, &self.buf[..self.at], self.session.turn.hits());
        }
        self.drop_handled();
        any |= self.session.turn.handled != before;
        self.session.end_batch(last);
        Handled { any, starved }
    }

    fn next_frame(&mut self) -> Option<Framed> {
        if let Some(framed) = self.framed.take() {
            return Some(framed);
        }
        self.framer.lock(self.session.is_locked());
        while self.at < self.buf.len() {
            match self.framer.next(&self.buf[self.at..]) {
                Ok(Frame::Request(len)) => return Some(Framed { len, inline: false }),
                Ok(Frame::Skip(len)) => self.at += len,
                _ if begins_tls(&self.buf[self.at..]) => {
                    self.session.turn_away_tls();
                    self.end_input();
                }
                Ok(Frame::Inline(len)) => return Some(Framed { len, inline: true }),
                Ok(Frame::Incomplete { need }) => {
                    self.wanted = need;
                    return None;
                }
                Err(wrong) => {
                    debug!(client = self.session.cx.client.id, %wrong, "closed: malformed request");
                    self.worker.process.metrics.clients_malformed.inc();
                    self.queue.reply_with(|out| encode::protocol_error(out, &wrong));
                    self.end_input();
                }
            }
        }
        None
    }

    /// Executes the request at the start of the buffer; false if it has to wait. `last` is the row of the one before
    /// it in this batch.
    fn execute<'t>(
        &mut self,
        table: &'t Table,
        Framed { len, inline }: Framed,
        last: &mut Option<&'t Row>,
    ) -> bool {
        let request = self.framer.request(&self.buf[self.at..]);
        let row = match *last {
            Some(row) if self.framer.repeats() && row.is_told_by_name() => Some(row),
            _ => table.lookup(&request),
        };
        *last = row;
        let Some(admission) = self.session.admit(row, &request) else { return false };
        self.wanted = 0;
        if len < LARGE || inline {
            self.session.execute(admission, &request, Raw::Copy(request.raw()));
            self.at += len;
            return true;
        }
        self.drop_handled();
        let whole: Bytes = self.buf.split_to(len).freeze();
        let request = self.framer.request(&whole);
        self.session.execute(admission, &request, Raw::Own(whole.clone()));
        true
    }

    /// Gives up what is handled of the buffer.
    fn drop_handled(&mut self) {
        match std::mem::take(&mut self.at) {
            // Back to the start of the buffer: the next read needs no other.
            all if all == self.buf.len() => self.buf.clear(),
            some => self.buf.advance(some),
        }
    }

    /// Takes no more requests.
    fn end_input(&mut self) {
        self.input = Input::Ended;
        self.buf.clear();
        self.at = 0;
    }

    /// Whether the client is over the limit and has neither taken nor sent a byte for `client-stall-timeout`, or is
    /// far over it.
    fn is_stalled(&mut self, left: &WriteOutcome, stream: &mut Stream, cx: &mut Context<'_>) -> bool {
        if left.overrun {
            return true;
        }
        if !left.pending || !left.full {
            self.stall.end();
            return false;
        }
        self.is_still(stream, cx)
    }

    /// Whether nothing has moved for `client-stall-timeout`, since this was first asked.
    fn is_still(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> bool {
        let (queue, came) = (&self.queue, self.came);
        let timeout = self.worker.process.settings.stall_timeout.get();
        self.stall.is_over(timeout, || queue.written() + came, || queue.write_now(stream), cx)
    }

    /// The client is told why, behind the replies that it has left; then the connection is closed.
    fn send_away(&mut self) {
        let settings = &self.worker.process.settings;
        self.worker.process.metrics.clients_stalled.inc();
        if let Some(untold) = self.worker.process.metrics.stalled_told.now() {
            warn!(
                client = self.session.cx.client.id,
                untaken = self.queue.untaken(),
                untold,
                "sent away: the client leaves its replies untaken; let it read them, or raise client-output-limit or \
                 client-stall-timeout"
            );
        }
        self.queue.end_with(&errors::line(&errors::untaken(settings.output_limit.get())));
        self.end_input();
        self.framed = None;
        self.input = Input::Away;
        self.stall.end();
    }

    /// Lets the client take what it has, and throws away what it still sends, until it has all or nothing moves.
    fn poll_away(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let left = self.queue.write(stream, cx, &self.worker.spare)?;
            if left.broken || !left.pending {
                return Poll::Ready(Ok(()));
            }
            if self.is_still(stream, cx) {
                // There is nobody to be heard by.
                self.input = Input::Ended;
                return Poll::Ready(Ok(()));
            }
            self.buf.clear();
            self.buf.reserve(READ);
            match std::task::ready!(pin!(stream.read_buf(&mut self.buf)).poll(cx))? {
                0 => return self.poll_rest(stream, cx),
                n => self.came += n as u64,
            }
            self.buf.clear();
        }
    }

    /// The client sends no more: lets it take what it has.
    fn poll_rest(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let left = self.queue.write(stream, cx, &self.worker.spare)?;
        match left.broken || !left.pending || self.is_still(stream, cx) {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }
}
