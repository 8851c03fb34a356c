//! Whole replies, as they come on the flusher's connections.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::resp::scanner::{ReplyScanner, Scan};

/// What has come and was not taken yet.
#[derive(Default)]
pub(super) struct Replies {
    scanner: ReplyScanner,
    came: BytesMut,
    /// So much of it was looked at, and belongs to a reply that goes on.
    scanned: usize,
}

impl Replies {
    /// Reads once. Errors: the connection has ended. Nothing is lost if it is dropped before.
    pub(super) async fn read(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        match from.read_buf(&mut self.came).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The next reply, if all of it has come. Errors: it is none.
    pub(super) fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self.scanner.scan(&self.came[self.scanned..]).map_err(io::Error::other)? {
            Scan::Done { used, .. } => {
                let whole = std::mem::take(&mut self.scanned) + used;
                Ok(Some(self.came.split_to(whole).freeze()))
            }
            Scan::More => {
                self.scanned = self.came.len();
                Ok(None)
            }
        }
    }
}
