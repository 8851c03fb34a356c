//! Decodes the few replies that nearside itself reads: HELLO, COMMAND, PING, pub/sub messages.
//!
//! Invariants: the recursion is bounded, a declared count allocates nothing, and every kind of value
//! is kept apart and in the order in which it was sent. Replies for clients never come here.
//!
//! Written here because redis-protocol's decoder recurses without a limit, folds RESP2's two nulls into one
//! and reorders maps; the tests use it as the oracle for what is well formed.

use super::error::ReplyError;
use super::number;

/// A decoded reply. Attributes are dropped.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Simple(Vec<u8>),
    /// `-` or `!`; the text starts with the error's code.
    Error(Vec<u8>),
    Int(i64),
    Bulk(Vec<u8>),
    Verbatim {
        format: [u8; 3],
        text: Vec<u8>,
    },
    /// `$-1`, `*-1` or `_`
    Null,
    Bool(bool),
    Double(f64),
    BigNumber(Vec<u8>),
    Array(Vec<Value>),
    Set(Vec<Value>),
    Push(Vec<Value>),
    /// The pairs as sent, in their order. RESP2 sends an array instead.
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// The text of a string of any kind; an error is none.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(text) | Self::Bulk(text) | Self::Verbatim { text, .. } => Some(text),
            _ => None,
        }
    }

    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The elements of an array, a set (RESP2 sends an array for it) or a push.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Self::Array(elements) | Self::Set(elements) | Self::Push(elements) => Some(elements),
            _ => None,
        }
    }
}

/// Decodes one complete reply, as the scanner delimits it, nested at most `max_depth` levels (0: no aggregate
/// at all). Each level takes some hundred bytes of stack.
pub fn decode(bytes: &[u8], max_depth: usize) -> Result<Value, ReplyError> {
    let mut decoder = Decoder { rest: bytes, max_depth };
    let value = decoder.value(max_depth)?;
    match decoder.rest.len() {
        0 => Ok(value),
        left => Err(ReplyError::Trailing(left)),
    }
}

struct Decoder<'a> {
    rest: &'a [u8],
    max_depth: usize,
}

impl<'a> Decoder<'a> {
    fn value(&mut self, depth: usize) -> Result<Value, ReplyError> {
        loop {
            let (&marker, rest) = self.rest.split_first().ok_or(ReplyError::Truncated)?;
            self.rest = rest;
            let line = self.line()?;
            let bad = || ReplyError::Header(marker, line[..line.len().min(32)].to_vec());
            let text = || std::str::from_utf8(line).map_err(|_| bad());
            let size = || {
                let number = number::string2ll(line).ok_or_else(bad)?;
                usize::try_from(number).map_err(|_| bad())
            };
            return Ok(match marker {
                b'+' => Value::Simple(line.to_vec()),
                b'-' => Value::Error(line.to_vec()),
                b':' => Value::Int(text()?.parse().map_err(|_| bad())?),
                b',' => Value::Double(text()?.parse().map_err(|_| bad())?),
                b'(' => Value::BigNumber(line.to_vec()),
                b'#' if line == b"t" => Value::Bool(true),
                b'#' if line == b"f" => Value::Bool(false),
                b'_' if line.is_empty() => Value::Null,
                b'$' | b'*' if line == b"-1" => Value::Null,
                b'$' => Value::Bulk(self.body(size()?)?.to_vec()),
                b'!' => Value::Error(self.body(size()?)?.to_vec()),
                b'=' => match self.body(size()?)? {
                    [a, b, c, b':', text @ ..] => {
                        Value::Verbatim { format: [*a, *b, *c], text: text.to_vec() }
                    }
                    _ => return Err(bad()),
                },
                b'*' => Value::Array(self.elements(size()?, depth)?),
                b'~' => Value::Set(self.elements(size()?, depth)?),
                b'>' => Value::Push(self.elements(size()?, depth)?),
                b'%' => Value::Map(self.map(size()?, depth)?),
                b'|' => {
                    self.map(size()?, depth)?;
                    continue;
                }
                b'#' | b'_' => return Err(bad()),
                other => return Err(ReplyError::Type(other)),
            });
        }
    }

    fn elements(&mut self, count: usize, depth: usize) -> Result<Vec<Value>, ReplyError> {
        let depth = self.deeper(depth)?;
        let mut elements = Vec::new();
        for _ in 0..count {
            elements.push(self.value(depth)?);
        }
        Ok(elements)
    }

    fn map(&mut self, count: usize, depth: usize) -> Result<Vec<(Value, Value)>, ReplyError> {
        let depth = self.deeper(depth)?;
        let mut pairs = Vec::new();
        for _ in 0..count {
            pairs.push((self.value(depth)?, self.value(depth)?));
        }
        Ok(pairs)
    }

    fn deeper(&self, depth: usize) -> Result<usize, ReplyError> {
        depth.checked_sub(1).ok_or(ReplyError::TooDeep(self.max_depth))
    }

    /// The line at the start of `rest`, without its CRLF.
    fn line(&mut self) -> Result<&'a [u8], ReplyError> {
        let end = memchr::memmem::find(self.rest, b"\r\n").ok_or(ReplyError::Truncated)?;
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 2..];
        Ok(line)
    }

    fn body(&mut self, len: usize) -> Result<&'a [u8], ReplyError> {
        let (body, rest) = self.rest.split_at_checked(len).ok_or(ReplyError::Truncated)?;
        self.rest = match rest {
            [b'\r', b'\n', rest @ ..] => rest,
            [] | [b'\r'] => return Err(ReplyError::Truncated),
            [b'\r', wrong, ..] | [wrong, ..] => return Err(ReplyError::BulkEnd(*wrong)),
        };
        Ok(body)
    }
}

#[cfg(test)]
mod tests;
