//! Bytes on their way out, small ones gathered and large ones passed on as they are.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

/// From this size on, bytes are passed on by reference instead of being copied.
pub const LARGE: usize = 16 << 10;

/// Slices in one write.
const MAX_SLICES: usize = 16;

/// A queue of bytes to be written, in order.
#[derive(Default)]
pub struct Outgoing {
    /// Written before `tail`.
    large: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
    /// The stream has taken bytes that it has not passed on.
    unflushed: bool,
}

impl Outgoing {
    /// Bytes not yet written.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether all was written, and passed on by the stream.
    pub fn is_flushed(&self) -> bool {
        self.len == 0 && !self.unflushed
    }

    /// Appends a copy of `bytes`.
    pub fn copy(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Appends `bytes`, without a copy if they are many.
    pub fn append(&mut self, bytes: Bytes) {
        if bytes.len() < LARGE {
            self.copy(&bytes);
            return;
        }
        if !self.tail.is_empty() {
            self.large.push_back(self.tail.split().freeze());
        }
        self.len += bytes.len();
        self.large.push_back(bytes);
    }

    /// Appends what `write` writes.
    pub fn with(&mut self, write: impl FnOnce(&mut BytesMut)) {
        self.with_unless(|tail| {
            write(tail);
            None::<()>
        });
    }

    /// Appends what `write` writes, unless that gives something: then what it wrote is taken back.
    pub fn with_unless<T>(&mut self, write: impl FnOnce(&mut BytesMut) -> Option<T>) -> Option<T> {
        let before = self.tail.len();
        let given = write(&mut self.tail);
        if given.is_some() {
            self.tail.truncate(before);
        }
        self.len += self.tail.len() - before;
        given
    }

    /// Writes as much as the stream takes; says how many bytes that was. `Ready` when all is written and flushed, or
    /// with an error. What a stream has taken counts as written at once, whether or not it has passed it on.
    pub fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        written: &mut u64,
    ) -> Poll<io::Result<()>> {
        while self.len > 0 {
            let n = if self.large.is_empty() {
                std::task::ready!(Pin::new(&mut *stream).poll_write(cx, &self.tail))?
            } else {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let chunks = self.large.iter().map(|chunk| &chunk[..]).chain([&self.tail[..]]);
                let mut count = 0;
                for (slice, chunk) in slices.iter_mut().zip(chunks) {
                    *slice = IoSlice::new(chunk);
                    count += 1;
                }
                std::task::ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &slices[..count]))?
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += n as u64;
            self.advance(n);
        }
        // Nothing for a plain stream.
        let flushed = Pin::new(stream).poll_flush(cx);
        self.unflushed = flushed.is_pending();
        flushed
    }

    /// Writes what `send` takes of the first bytes; says how many that was.
    pub fn write_now(&mut self, send: impl FnOnce(&[u8]) -> io::Result<usize>) -> usize {
        let taken = send(self.large.front().map_or(&self.tail[..], |chunk| &chunk[..])).unwrap_or(0);
        self.advance(taken);
        taken
    }

    /// Keeps a buffer of at most `kept` bytes, if there is nothing to send.
    pub fn trim(&mut self, kept: usize) {
        if self.len == 0 && self.tail.capacity() > kept {
            self.tail = BytesMut::new();
        }
    }

    /// Gives the buffer for small pieces away if it is empty, or takes another's if it has none.
    pub fn swap_empty(&mut self, other: &mut BytesMut) {
        if self.tail.is_empty() && (self.tail.capacity() == 0 || other.capacity() == 0) {
            std::mem::swap(&mut self.tail, other);
        }
    }

    pub fn advance(&mut self, mut n: usize) {
        self.len -= n;
        while let Some(front) = self.large.front_mut() {
            if n < front.len() {
                front.advance(n);
                return;
            }
            n -= front.len();
            self.large.pop_front();
        }
        if n == self.tail.len() {
            // Back to the start of the buffer, so that it does not creep and grow.
            self.tail.clear();
        } else {
            self.tail.advance(n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_comes_out_in_order() {
        let (mut near, mut far) = tokio::io::duplex(1000);
        let mut out = Outgoing::default();
        let mut expected = Vec::new();
        for i in 0..200u32 {
            let part = vec![i as u8; if i % 3 == 0 { LARGE + i as usize } else { i as usize }];
            expected.extend_from_slice(&part);
            match i % 2 {
                0 => out.append(part.into()),
                _ => out.with(|tail| tail.extend_from_slice(&part)),
            }
        }
        assert_eq!(out.len(), expected.len());
        let mut written = 0;
        let total = expected.len();
        let write = async {
            std::future::poll_fn(|cx| out.poll_write(&mut near, cx, &mut written)).await.unwrap();
            assert!(out.is_empty());
            drop(near);
        };
        let mut got = Vec::new();
        let ((), read) = tokio::join!(write, tokio::io::AsyncReadExt::read_to_end(&mut far, &mut got));
        read.unwrap();
        assert!(got == expected);
        assert_eq!(written, total as u64);
    }
}
