//! Finds where an upstream's reply ends, in a stream of chunks; RESP2 and RESP3.
//!
//! Invariants:
//! - Every byte is seen once, wherever the chunks are cut; a scanner keeps less than 100 bytes and allocates
//!   nothing (but for the text of an error).
//! - Nesting costs nothing: only the number of elements still to come is kept, for all levels together.
//! - A status or an error ends at the first CRLF, as for hiredis: a lone CR or LF, which a module may send,
//!   is part of it.

use std::ops::Range;

use super::error::ReplyError;
use super::number;

/// Bytes in the line of a status, an error, a double or a big number.
const MAX_LINE: usize = 64 << 10;
/// Characters in the line of a count, a length or an integer, CR included.
const MAX_NUMBER: usize = 33;
/// Bytes of one bulk string.
const MAX_BULK: i64 = 4 << 30;

/// What a reply is, by its outermost type; attributes before it do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `+`
    Simple,
    /// `-` or `!`
    Error,
    /// `:`
    Integer,
    /// `$`
    Bulk,
    /// `$-1`, `*-1` or `_`
    Null,
    /// `*`, `%` or `~`
    Aggregate,
    /// `>`: not the reply to a request
    Push,
    /// `,` `#` `(` or `=`
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The reply ends after `used` bytes of the chunk; the next one starts there.
    Done { used: usize, kind: Kind },
    /// The whole chunk belongs to the reply, which goes on.
    More,
}

/// Scans the replies of one connection. After an error the connection is to be closed.
#[derive(Debug)]
pub struct ReplyScanner {
    /// Elements still to come, the current one included; 0 between replies.
    open: u64,
    kind: Option<Kind>,
    part: Part,
    /// The type byte of the current element.
    marker: u8,
    /// Bytes of the bulk string still to come, without its CRLF.
    body: u64,
    /// The last byte was a CR that may belong to a CRLF.
    cr: bool,
    /// Bytes of the line so far; the first ones of a short line are in `line`.
    len: usize,
    line: [u8; MAX_NUMBER],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Type,
    /// A line whose content means nothing here.
    Text,
    /// A line with a number or the like.
    Header,
    Body,
}

impl Default for ReplyScanner {
    fn default() -> Self {
        Self::new()
    }
}

impl ReplyScanner {
    pub fn new() -> Self {
        Self {
            open: 0,
            kind: None,
            part: Part::Type,
            marker: 0,
            body: 0,
            cr: false,
            len: 0,
            line: [0; MAX_NUMBER],
        }
    }

    /// Scans on with the bytes that follow those of the last call.
    pub fn scan(&mut self, chunk: &[u8]) -> Result<Scan, ReplyError> {
        if self.open == 0 && !chunk.is_empty() {
            self.open = 1;
        }
        let mut used = 0;
        while used < chunk.len() {
            let rest = &chunk[used..];
            used += match self.part {
                Part::Type => self.start(rest)?,
                Part::Text => self.text(rest)?,
                Part::Header => self.header(rest)?,
                Part::Body => self.body(rest)?,
            };
            if self.open == 0 {
                return Ok(Scan::Done { used, kind: self.kind.take().unwrap_or(Kind::Other) });
            }
        }
        Ok(Scan::More)
    }

    /// What the reply is that has begun. Known from its first byte; of `$` and `*`, which may be nulls, from
    /// their first line; after attributes, when these have passed.
    pub fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// Between two replies: no byte of the next one was seen.
    pub fn is_idle(&self) -> bool {
        self.open == 0
    }

    /// Bytes of a bulk string and its CRLF that are still to come, 0 outside of one. A hint for reading.
    pub fn missing(&self) -> usize {
        match self.part {
            Part::Body => {
                usize::try_from(self.body).unwrap_or(usize::MAX).saturating_add(2 - self.cr as usize)
            }
            _ => 0,
        }
    }

    /// An element starts with `rest`, which is not empty.
    fn start(&mut self, rest: &[u8]) -> Result<usize, ReplyError> {
        self.marker = rest[0];
        self.len = 0;
        let (kind, numbered) = match self.marker {
            b'$' | b'*' if rest.get(1..5) == Some(b"-1\r\n") => {
                self.number(-1)?;
                return Ok(5);
            }
            b'$' | b'*' => (None, true),
            b':' => (Some(Kind::Integer), true),
            b'+' => return Ok(self.start_text(rest, Kind::Simple)),
            b'-' => return Ok(self.start_text(rest, Kind::Error)),
            b',' | b'(' => return Ok(self.start_text(rest, Kind::Other)),
            b'_' => (Some(Kind::Null), false),
            b'#' => (Some(Kind::Other), false),
            b'=' => (Some(Kind::Other), true),
            b'!' => (Some(Kind::Error), true),
            b'%' | b'~' => (Some(Kind::Aggregate), true),
            b'>' => (Some(Kind::Push), true),
            b'|' => (None, true),
            other => return Err(ReplyError::Type(other)),
        };
        self.note(kind);
        if numbered && let Some((number, used)) = number::short_line(rest, 0, rest[0]) {
            self.number(number as i64)?;
            return Ok(used);
        }
        self.part = Part::Header;
        Ok(1)
    }

    fn start_text(&mut self, rest: &[u8], kind: Kind) -> usize {
        self.note(Some(kind));
        // The usual one lies whole in the chunk, without another CR.
        if let Some(cr) = memchr::memchr(b'\r', rest)
            && cr <= MAX_LINE
            && rest.get(cr + 1) == Some(&b'\n')
        {
            self.close();
            return cr + 2;
        }
        self.part = Part::Text;
        1
    }

    /// The current element's kind is the reply's if it is the only one that is open.
    fn note(&mut self, kind: Option<Kind>) {
        if self.open == 1 && self.kind.is_none() {
            self.kind = kind;
        }
    }

    /// The current element ends.
    fn close(&mut self) {
        self.part = Part::Type;
        self.open -= 1;
    }

    fn text(&mut self, rest: &[u8]) -> Result<usize, ReplyError> {
        if std::mem::take(&mut self.cr) && rest[0] == b'\n' {
            self.close();
            return Ok(1);
        }
        for cr in memchr::memchr_iter(b'\r', rest) {
            if self.len + cr > MAX_LINE {
                break;
            }
            match rest.get(cr + 1) {
                Some(b'\n') => {
                    self.close();
                    return Ok(cr + 2);
                }
                Some(_) => {}
                None => self.cr = true,
            }
        }
        self.len += rest.len();
        if self.len > MAX_LINE + usize::from(self.cr) {
            return Err(ReplyError::LongLine(MAX_LINE));
        }
        Ok(rest.len())
    }

    fn header(&mut self, rest: &[u8]) -> Result<usize, ReplyError> {
        let window = &rest[..rest.len().min(MAX_NUMBER + 1 - self.len)];
        let lf = memchr::memchr(b'\n', window);
        let came = &window[..lf.unwrap_or(window.len())];
        let line_end = self.len + came.len();
        let Some(space) = self.line.get_mut(self.len..line_end) else {
            return Err(self.bad_header(&[&self.line[..self.len], came].concat()));
        };
        space.copy_from_slice(came);
        self.len = line_end;
        if lf.is_none() {
            return Ok(came.len());
        }
        let line = self.line;
        let Some(text) = line[..line_end].strip_suffix(b"\r") else {
            return Err(self.bad_header(&line[..line_end]));
        };
        match (self.marker, text) {
            (b'_', b"") | (b'#', b"t" | b"f") => self.close(),
            (b':', _) if is_integer(text) => self.close(),
            (b'_' | b'#' | b':', _) => return Err(self.bad_header(text)),
            (_, b"?") => return Err(ReplyError::Streamed(self.marker)),
            _ => match number::string2ll(text) {
                Some(number) => self.number(number)?,
                None => return Err(self.bad_header(text)),
            },
        }
        Ok(came.len() + 1)
    }

    /// What the number in the current element's first line means.
    fn number(&mut self, number: i64) -> Result<(), ReplyError> {
        match (self.marker, number) {
            (b':', _) => self.close(),
            (b'$' | b'*', -1) => {
                self.note(Some(Kind::Null));
                self.close();
            }
            (b'$' | b'=' | b'!', 0..=MAX_BULK) => {
                self.note(Some(Kind::Bulk));
                self.body = number as u64;
                self.part = Part::Body;
            }
            (b'*' | b'~' | b'>', 0..) => {
                self.note(Some(Kind::Aggregate));
                self.close();
                self.expect(number as u64)?;
            }
            (b'%', 0..) => {
                self.close();
                self.expect((number as u64).saturating_mul(2))?;
            }
            // Attributes stand before the element that they belong to; that one is still to come.
            (b'|', 0..) => {
                self.part = Part::Type;
                self.expect((number as u64).saturating_mul(2))?;
            }
            _ => return Err(self.bad_header(number.to_string().as_bytes())),
        }
        Ok(())
    }

    fn expect(&mut self, elements: u64) -> Result<(), ReplyError> {
        // `i64::MAX` bytes are more than any server will ever send, and so are as many elements.
        self.open = self
            .open
            .checked_add(elements)
            .filter(|open| *open <= i64::MAX as u64)
            .ok_or(ReplyError::TooMany)?;
        Ok(())
    }

    fn body(&mut self, rest: &[u8]) -> Result<usize, ReplyError> {
        let mut used = usize::try_from(self.body).unwrap_or(usize::MAX).min(rest.len());
        self.body -= used as u64;
        while self.body == 0 && used < rest.len() {
            let (expected, last) = if self.cr { (b'\n', true) } else { (b'\r', false) };
            if rest[used] != expected {
                return Err(ReplyError::BulkEnd(rest[used]));
            }
            used += 1;
            self.cr = !last;
            if last {
                self.close();
                break;
            }
        }
        Ok(used)
    }

    #[cold]
    fn bad_header(&self, text: &[u8]) -> ReplyError {
        ReplyError::Header(self.marker, text.to_vec())
    }
}

/// RESP3 allows a plus sign in integers, and the value means nothing here.
fn is_integer(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// Where the elements of an array lie that is all there; `None` if it is none.
pub fn elements(array: &[u8]) -> Option<Vec<Range<usize>>> {
    let header = memchr::memchr(b'\n', array).filter(|_| array.starts_with(b"*"))?;
    let (mut start, mut scanner, mut elements) = (header + 1, ReplyScanner::new(), Vec::new());
    while start < array.len() {
        let Ok(Scan::Done { used, .. }) = scanner.scan(&array[start..]) else { return None };
        elements.push(start..start + used);
        start += used;
    }
    Some(elements)
}

#[cfg(test)]
mod splits;
#[cfg(test)]
mod tests;
