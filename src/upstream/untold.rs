//! A login that is refused, and not answered.
//!
//! Redis from 7.2 on, and Valkey before 9, say nothing to an `AUTH` that they refuse while the answer to something before it
//! is still to be sent: the next reply would be taken for it, and each one after that for another's.
//!
//! Invariant: behind a login that stands behind something else goes its end, a second `AUTH` without a password. That is
//! refused by any server before it looks at anything else, in words that are no answer to a login: so what comes first
//! tells whether the login was answered.

use bytes::BytesMut;

use crate::resp::encode;

/// What a login that is not answered was told.
pub(super) const REFUSED: &[u8] = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n";

/// Writes the end of a login.
pub(super) fn encode_end(out: &mut BytesMut) {
    encode::command(out, &[b"AUTH"]);
}

/// Whether this is the answer to the end of a login.
pub(super) fn is_end(reply: &[u8]) -> bool {
    reply.starts_with(b"-ERR wrong number of arguments")
}
