//! Finds where a client's request ends, in a buffer that grows at its end.
//!
//! Invariants:
//! - A byte that was looked at is not looked at again when more arrive, but for a line's few header bytes, and
//!   those of a short request once.
//! - What a request is does not depend on how it was cut into packets.
//! - Memory follows the bytes that came, never a count or a length that was only declared.
//! - What is handed over starts with `*`, and every line and argument in it ends with CRLF.
//!
//! The rules and the error texts are those of `processInlineBuffer` and `processMultibulkBuffer` in
//! networking.c of Redis 7. Like these, it takes any two bytes for the CRLF after an argument, any byte for
//! the LF after a header's CR, and waits at a NUL in a line until the line is too long. But the sloppy
//! request is not passed on as it came: the upstream may be stricter than Redis, and the link is shared.

mod head;

use head::Head;

use super::error::ProtocolError;
use super::request::{ArgRange, Request};
use super::{encode, inline, number};

/// The largest requests that are taken, in bytes but for `max_args`.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// One argument: Redis' `proto-max-bulk-len`.
    pub max_bulk: usize,
    /// Arguments of one request: as Redis has it, there are no more than a request has room for.
    pub max_args: usize,
    /// An inline command or the line of a count or a length: Redis' `PROTO_INLINE_MAX_SIZE`. At least 10.
    pub max_inline: usize,
    /// A whole request: Redis' `client-query-buffer-limit`. Above 4 GiB − 1 it counts as 4 GiB − 1.
    pub max_request: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bulk: 512 << 20, max_args: i32::MAX as usize, max_inline: 64 << 10, max_request: 1 << 30 }
    }
}

/// What lies at the start of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A request that is not all there. It cannot be complete before the buffer holds `need` bytes, which
    /// is more than it holds now. A hint for reading; a client may declare a lot and send nothing.
    Incomplete { need: usize },
    /// This many bytes ask for nothing and get no reply: an empty line, `*0`, `*-1`.
    Skip(usize),
    /// The first so many bytes are one request, to be passed on as they are.
    Request(usize),
    /// The first so many bytes are one request in another form: an inline command, or one with sloppy line
    /// ends. The framer holds the array of bulk strings that says the same.
    Inline(usize),
}

/// Frames the requests of one connection.
///
/// The buffer given to [`next`](Self::next) always starts where the current request starts. After
/// [`Frame::Incomplete`] it is the same bytes and more; after another frame, its bytes are dropped and the
/// next request starts. After an error the connection is to be closed.
pub struct RequestFramer {
    /// What holds now, and what holds for a client that has logged in.
    limits: Limits,
    unlocked: Limits,
    locked: bool,
    step: Step,
    /// The start of the line or argument that is awaited; at the end, of the next request.
    at: usize,
    /// Where the search for the line's end goes on.
    searched: usize,
    /// Arguments still to come, and the length of the awaited one.
    left: usize,
    len: usize,
    sloppy: bool,
    /// Where the arguments lie, in the buffer or, if this is not empty, in `rewritten`.
    args: Vec<ArgRange>,
    /// Of the request to which `args` belongs.
    head: Head,
    /// The last request began with the head of the one before it.
    repeats: bool,
    rewritten: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Start,
    Inline,
    Count,
    Length,
    Argument,
}

/// Arguments of a usual request, at most.
const USUAL_ARGS: usize = 128;

/// The bytes of an empty argument: no request has more arguments than it has room for such.
const SHORTEST: usize = b"$0\r\n\r\n".len();

/// Arguments of a request, and bytes of one, for a client that has yet to log in.
const LOCKED: (usize, usize) = (10, 16384);

/// What is kept of the memory of a large request.
const KEPT_ARGS: usize = 1024;
const KEPT_REWRITTEN: usize = 4096;

impl RequestFramer {
    pub fn new(limits: Limits) -> Self {
        let max_request = limits.max_request.min(u32::MAX as usize);
        // A rewritten line is at most four times as long, and its ranges are `u32`; the usual count lines
        // must fit, as they are read without a look at this limit.
        let max_inline = limits.max_inline.clamp(10, u32::MAX as usize / 16);
        let limits = Limits { max_request, max_inline, ..limits };
        Self {
            limits,
            unlocked: limits,
            locked: false,
            step: Step::Start,
            at: 0,
            searched: 0,
            left: 0,
            len: 0,
            sloppy: false,
            args: Vec::new(),
            head: Head::NONE,
            repeats: false,
            rewritten: Vec::new(),
        }
    }

    /// Whether the client has yet to log in: then only so much is taken as a login needs, as Redis has it in
    /// `processMultibulkBuffer`. Counts from the next header on.
    pub fn lock(&mut self, locked: bool) {
        if locked == self.locked {
            return;
        }
        self.locked = locked;
        self.head.forget();
        let Limits { max_args, max_bulk, .. } = self.unlocked;
        let (args, bulk) = if locked { LOCKED } else { (max_args, max_bulk) };
        self.limits.max_args = args.min(max_args);
        self.limits.max_bulk = bulk.min(max_bulk);
    }

    /// What lies at the start of `buf`. A call with an empty buffer also gives back the memory of a large
    /// request before it.
    pub fn next(&mut self, buf: &[u8]) -> Result<Frame, ProtocolError> {
        if self.step == Step::Start {
            if let Some(end) = self.usual(buf) {
                return Ok(Frame::Request(end));
            }
            self.reset();
            let Some(first) = buf.first() else { return Ok(Frame::Incomplete { need: 1 }) };
            self.step = if *first == b'*' { Step::Count } else { Step::Inline };
        }
        let frame = if self.step == Step::Inline { self.inline(buf)? } else { self.multibulk(buf)? };
        if !matches!(frame, Frame::Incomplete { .. }) {
            self.step = Step::Start;
        }
        Ok(frame)
    }

    /// The usual request, all there and of a few arguments, in one pass without a step's state: half the work
    /// of a hit's framing. `None` says nothing, and costs a second look at what came of one request.
    #[inline]
    fn usual(&mut self, buf: &[u8]) -> Option<usize> {
        if let (true, [_, last]) = (self.head.begins(buf), &self.args[..]) {
            let end = (last.start + last.len) as usize;
            if buf.get(end..end + 2)? == b"\r\n" {
                self.repeats = true;
                return Some(self.at);
            }
        }
        if !self.rewritten.is_empty() || self.args.capacity() > KEPT_ARGS {
            return None;
        }
        let (count, mut at) = number::short_line(buf, 0, b'*')?;
        if count == 0 || count > self.limits.max_args.min(USUAL_ARGS) {
            return None;
        }
        self.repeats = false;
        self.head.forget();
        self.args.clear();
        for _ in 0..count {
            let (len, start) = number::short_line(buf, at, b'$')?;
            let end = start + len;
            if len > self.limits.max_bulk || buf.get(end..end + 2)? != b"\r\n" {
                return None;
            }
            // What does not fit into 32 bits is over the limit of a request.
            self.args.push(ArgRange { start: start as u32, len: len as u32 });
            at = end + 2;
        }
        self.at = at;
        if at > self.limits.max_request {
            return None;
        }
        self.head.keep(buf, &self.args);
        Some(at)
    }

    /// The request that the last call of [`next`](Self::next) found in `buf`.
    ///
    /// Precondition: that call gave [`Frame::Request`] or [`Frame::Inline`], and `buf` still starts
    /// with the same bytes.
    pub fn request<'a>(&'a self, buf: &'a [u8]) -> Request<'a> {
        let raw = if self.rewritten.is_empty() { &buf[..self.at] } else { &self.rewritten };
        Request::new(raw, &self.args)
    }

    /// Whether the last request differs from the one before it in nothing but its second and last argument.
    pub fn repeats(&self) -> bool {
        self.repeats
    }

    fn reset(&mut self) {
        self.repeats = false;
        self.head.forget();
        self.at = 0;
        self.searched = 0;
        self.sloppy = false;
        self.args.clear();
        self.rewritten.clear();
        if self.args.capacity() > KEPT_ARGS {
            self.args.shrink_to(KEPT_ARGS);
        }
        if self.rewritten.capacity() > KEPT_REWRITTEN {
            self.rewritten.shrink_to(KEPT_REWRITTEN);
        }
    }

    fn multibulk(&mut self, buf: &[u8]) -> Result<Frame, ProtocolError> {
        if self.step == Step::Count {
            let bad = (ProtocolError::CountTooBig, ProtocolError::InvalidCount);
            let Some(count) = self.header(buf, b'*', bad)? else { return Ok(incomplete(buf)) };
            self.left = match usize::try_from(count) {
                Err(_) | Ok(0) => return Ok(Frame::Skip(self.at)),
                Ok(count) if count <= self.limits.max_args => {
                    if count.saturating_mul(SHORTEST) > self.limits.max_request {
                        return Err(ProtocolError::RequestTooLarge);
                    }
                    count
                }
                Ok(count) if count <= self.unlocked.max_args => return Err(ProtocolError::LockedCount),
                Ok(_) => return Err(ProtocolError::InvalidCount),
            };
            self.step = Step::Length;
        }
        loop {
            if self.step == Step::Length {
                let bad = (ProtocolError::LengthTooBig, ProtocolError::InvalidLength);
                let Some(len) = self.header(buf, b'$', bad)? else { return Ok(incomplete(buf)) };
                self.len = match usize::try_from(len) {
                    Ok(len) if len <= self.limits.max_bulk => len,
                    Ok(len) if len <= self.unlocked.max_bulk => return Err(ProtocolError::LockedLength),
                    _ => return Err(ProtocolError::InvalidLength),
                };
                if self.at.saturating_add(self.len).saturating_add(2) > self.limits.max_request {
                    return Err(ProtocolError::RequestTooLarge);
                }
                self.step = Step::Argument;
            }
            let text_end = self.at + self.len;
            let end = text_end + 2;
            let Some(line_end) = buf.get(text_end..end) else { return Ok(Frame::Incomplete { need: end }) };
            self.sloppy |= line_end != b"\r\n";
            // Both fit: `end` is within `max_request`.
            self.args.push(ArgRange { start: self.at as u32, len: self.len as u32 });
            self.at = end;
            self.searched = end;
            self.left -= 1;
            if self.left == 0 {
                break;
            }
            self.step = Step::Length;
        }
        if !self.sloppy {
            return Ok(Frame::Request(self.at));
        }
        let args = std::mem::take(&mut self.args);
        let words: Vec<&[u8]> = Request::new(buf, &args).args().collect();
        self.rewrite(&words);
        Ok(Frame::Inline(self.at))
    }

    /// The number in the line at `at`, which it steps over. `bad` is what to say of a line that is too long
    /// or holds no number.
    fn header(
        &mut self,
        buf: &[u8],
        marker: u8,
        bad: (ProtocolError, ProtocolError),
    ) -> Result<Option<i64>, ProtocolError> {
        if let Some((number, end)) = number::short_line(buf, self.at, marker) {
            self.at = end;
            self.searched = end;
            return Ok(Some(number as i64));
        }
        self.any_header(buf, marker, bad)
    }

    #[cold]
    fn any_header(
        &mut self,
        buf: &[u8],
        marker: u8,
        (too_big, invalid): (ProtocolError, ProtocolError),
    ) -> Result<Option<i64>, ProtocolError> {
        let Some(cr) = self.find(buf, b'\r', too_big)? else { return Ok(None) };
        let Some(lf) = buf.get(cr + 1) else { return Ok(None) };
        // With nothing between, the CR itself stands where the marker should.
        if buf[self.at] != marker {
            return Err(ProtocolError::ExpectedBulk(buf[self.at]));
        }
        let number = number::string2ll(&buf[self.at + 1..cr]).ok_or(invalid)?;
        self.sloppy |= *lf != b'\n';
        self.at = cr + 2;
        self.searched = self.at;
        Ok(Some(number))
    }

    fn inline(&mut self, buf: &[u8]) -> Result<Frame, ProtocolError> {
        let Some(lf) = self.find(buf, b'\n', ProtocolError::InlineTooBig)? else {
            return Ok(incomplete(buf));
        };
        let line = &buf[..lf];
        let words =
            inline::split(line.strip_suffix(b"\r").unwrap_or(line)).ok_or(ProtocolError::UnbalancedQuotes)?;
        self.at = lf + 1;
        if words.is_empty() {
            return Ok(Frame::Skip(self.at));
        }
        self.rewrite(&words);
        Ok(Frame::Inline(self.at))
    }

    /// Where the line that starts at `at` has its `end` byte, if it came.
    fn find(&mut self, buf: &[u8], end: u8, too_big: ProtocolError) -> Result<Option<usize>, ProtocolError> {
        // One byte more than a line may have: the result must not depend on how much came at once.
        let window = &buf[..buf.len().min(self.at + self.limits.max_inline + 1)];
        match memchr::memchr2(end, 0, &window[self.searched..]) {
            None => self.searched = window.len(),
            Some(found) => {
                self.searched += found;
                if window[self.searched] == end {
                    return Ok(Some(self.searched));
                }
            }
        }
        if buf.len() - self.at > self.limits.max_inline { Err(too_big) } else { Ok(None) }
    }

    /// Puts the request as an array of bulk strings into `rewritten`.
    fn rewrite<W: AsRef<[u8]>>(&mut self, words: &[W]) {
        encode::array(&mut self.rewritten, words.len());
        for word in words {
            let word = word.as_ref();
            encode::bulk(&mut self.rewritten, word);
            let start = self.rewritten.len() - 2 - word.len();
            self.args.push(ArgRange { start: start as u32, len: word.len() as u32 });
        }
    }
}

fn incomplete(buf: &[u8]) -> Frame {
    Frame::Incomplete { need: buf.len() + 1 }
}

#[cfg(test)]
mod splits;
#[cfg(test)]
mod tests;
