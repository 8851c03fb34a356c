//! What can be wrong with the bytes of a peer.

use thiserror::Error;

/// A request that breaks the protocol. Redis answers with this error and closes the connection.
///
/// `Display` is the reply's line without the leading `-`, worded as `networking.c` of Redis 7 does;
/// [`crate::resp::encode::protocol_error`] writes the whole reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    #[error("ERR Protocol error: too big inline request")]
    InlineTooBig,
    #[error("ERR Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    #[error("ERR Protocol error: too big mbulk count string")]
    CountTooBig,
    #[error("ERR Protocol error: invalid multibulk length")]
    InvalidCount,
    #[error("ERR Protocol error: too big bulk count string")]
    LengthTooBig,
    /// The byte that stood in the place of the `$`.
    #[error("ERR Protocol error: expected '$', got '{}'", on_one_line(*.0))]
    ExpectedBulk(u8),
    #[error("ERR Protocol error: invalid bulk length")]
    InvalidLength,
    /// Of a client that has not logged in.
    #[error("ERR Protocol error: unauthenticated multibulk length")]
    LockedCount,
    /// Of a client that has not logged in.
    #[error("ERR Protocol error: unauthenticated bulk length")]
    LockedLength,
    /// nearside's own: Redis closes the connection without a word (`client-query-buffer-limit`).
    #[error("ERR Protocol error: request larger than max-request")]
    RequestTooLarge,
}

/// An error reply must stay on one line, so Redis puts a space for CR and LF.
fn on_one_line(byte: u8) -> char {
    if matches!(byte, b'\r' | b'\n') { ' ' } else { char::from(byte) }
}

/// Bytes from the upstream that are no reply. The connection has lost its place and must be closed.
///
/// For the log: the text is short whatever the upstream sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReplyError {
    #[error("no reply starts with byte 0x{0:02x}")]
    Type(u8),
    #[error("streamed reply '{}?', which no server sends", char::from(*.0))]
    Streamed(u8),
    /// The type byte and the start of what followed it.
    #[error("bad reply header '{}{}'", char::from(*.0), .1.escape_ascii())]
    Header(u8, Vec<u8>),
    #[error("reply line longer than {0} bytes")]
    LongLine(usize),
    #[error("bulk string ends with byte 0x{0:02x} in the place of CRLF")]
    BulkEnd(u8),
    #[error("reply with more elements than can be counted")]
    TooMany,
    #[error("reply nested deeper than {0} levels")]
    TooDeep(usize),
    #[error("reply ends too early")]
    Truncated,
    #[error("{0} bytes after the end of the reply")]
    Trailing(usize),
}
