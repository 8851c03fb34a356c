//! Whoever uses a link: what it is asked and told.

use std::ops::Deref;
use std::task::Context;

use bytes::{Buf, Bytes, BytesMut};

use super::connect::ConnectError;
use crate::io::LARGE;
use crate::resp::scanner::Kind;

/// What a link does with what arrives. Called on the link's thread, never while the link is borrowed, so a
/// client may send on any link, this one included.
pub trait ReplyHandler: 'static {
    /// What is expected in answer to one call of [`Link::send`]: one reply or several.
    type InFlight;

    /// Bytes came; the frames in them are handed over next.
    fn heard(&self) {}

    /// From now on this request is the one that is answered next; there is none, or an answer has come, too, if it is the
    /// same.
    fn front(&self, _front: Option<&Self::InFlight>) {}

    /// Whether this frame answers no request. `start` holds at least the frame's beginning.
    fn is_push(&self, front: Option<&Self::InFlight>, kind: Kind, start: &[u8]) -> bool;

    /// A frame that answers no request, or a piece of it.
    fn push(&self, chunk: Chunk<'_>, at: At);

    /// A reply, or a piece of it. Gives back what is still expected after it; a reply in pieces goes on
    /// with what is given back.
    fn reply(&self, expect: Self::InFlight, chunk: Chunk<'_>, at: At) -> Option<Self::InFlight>;

    /// The link was lost before all replies came.
    fn lost(&self, expect: Self::InFlight, loss: &Loss);

    /// A connection is about to be made.
    fn attempt(&self) {}

    /// The connection stands, and nothing was sent on it yet. `id` is what the upstream calls it, if it says so.
    fn up(&self, _id: Option<i64>) {}

    /// The connection is gone, or could not be made; called before the requests in flight are told. `carries_on`: of its
    /// user's requests none was sent, and they go on the next connection, which is made now.
    fn down(&self, _was_up: bool, _carries_on: bool, _loss: &Loss) {}

    /// Whether it is a question about the connection itself, which nobody else waits for.
    fn is_of_the_link(&self, _expect: &Self::InFlight) -> bool {
        false
    }

    /// It goes on the next connection, since it was not sent on the one that was lost.
    fn carried(&self, _expect: &Self::InFlight) {}

    /// Whether the reader of the front request's reply can take more now; if not, it keeps the waker.
    fn has_room(&self, _front: Option<&Self::InFlight>, _cx: &mut Context<'_>) -> bool {
        true
    }

    /// Whether a connection that was lost may be replaced by another: not if somebody has state on it.
    fn reconnects(&self) -> bool {
        true
    }

    /// Whether the link may say nearside's own login now: it is answered as any request then, and changes nothing.
    fn may_log_in(&self) -> bool {
        true
    }

    /// It was said again on a connection that stands, since the password has changed, and was taken, or refused in these
    /// words.
    fn logged_in(&self, _refusal: Option<&[u8]>) {}

    /// What nearside itself has said, behind a login, is answered: it was in flight until then.
    fn settled(&self) {}

    /// Whether the reply may be long in coming, as that of a blocking command.
    fn may_wait(&self, _expect: &Self::InFlight) -> bool {
        false
    }
}

/// Which piece of a frame a [`Chunk`] is.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub kind: Kind,
    pub first: bool,
    pub last: bool,
}

/// Bytes that came, as a slice, or without a copy as [`Bytes`] if they are many.
pub struct Chunk<'a> {
    pub(super) buf: &'a mut BytesMut,
    pub(super) len: usize,
}

impl Deref for Chunk<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buf[..self.len]
    }
}

impl Chunk<'_> {
    /// The bytes as their own; many are not copied.
    pub fn into_bytes(mut self) -> Bytes {
        if self.len < LARGE {
            return Bytes::copy_from_slice(&self);
        }
        self.buf.split_to(std::mem::take(&mut self.len)).freeze()
    }
}

#[cfg(test)]
impl<'a> Chunk<'a> {
    /// All that is there, as a link hands it over.
    pub fn all_of(buf: &'a mut BytesMut) -> Self {
        let len = buf.len();
        Self { buf, len }
    }
}

impl Drop for Chunk<'_> {
    fn drop(&mut self) {
        self.buf.advance(self.len);
    }
}

/// Why a request has no reply.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Whether any byte of the request was handed to the kernel: if so it may have been executed.
    pub sent: bool,
    pub cause: ConnectError,
}
