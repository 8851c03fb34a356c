//! A connection on which no requests and replies are told apart any more: bytes both ways, as they come.
//!
//! Invariants: neither side is read faster than the other takes, so nothing is gathered but a piece each way;
//! and the end of either side is the end of both.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};

use super::connect::{ConnectError, Connected, Identity, Settings, connect};
use super::location::Moves;
use super::ours::Own;
use crate::io::Stream;
use crate::resp::scanner::{ReplyScanner, Scan};

/// One read.
const PIECE: usize = 64 << 10;

/// What a client may send ahead before the tunnel stands, in bytes.
const AHEAD: usize = 64 << 10;

/// How long the first words are waited for when the client has closed its side.
const LAST: Duration = Duration::from_secs(1);

/// See the [module](self).
pub struct Tunnel {
    stream: Stream,
    own: Own,
    moves: Moves,
}

impl Tunnel {
    /// Opens a connection with this identity.
    pub async fn open(settings: &Settings, identity: &Identity) -> Result<Self, ConnectError> {
        let Connected { stream, own, moves, .. } = connect(settings, identity).await?;
        Ok(Self { stream, own, moves })
    }

    /// What the upstream calls the connection, if it told.
    pub fn id(&self) -> Option<i64> {
        self.own.id()
    }

    /// Says again what was said before on another connection; what the upstream answers was told then.
    pub async fn replay(&mut self, commands: &[u8], replies: usize) -> io::Result<()> {
        self.stream.write_all(commands).await?;
        self.stream.flush().await?;
        let (mut scanner, mut buf) = (ReplyScanner::new(), BytesMut::new());
        for _ in 0..replies {
            loop {
                if buf.is_empty() && self.stream.read_buf(&mut buf).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let scan = scanner.scan(&buf).map_err(io::Error::other)?;
                let (used, done) = match scan {
                    Scan::Done { used, .. } => (used, true),
                    Scan::More => (buf.len(), false),
                };
                let _ = buf.split_to(used);
                if done {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Sends the request that makes it a tunnel; gives the first bytes that the upstream says. What the client sends
    /// meanwhile is put into `ahead`. `None` if the client goes and nothing is said for a while.
    pub async fn ask(
        &mut self,
        request: &[u8],
        client: &mut Stream,
        ahead: &mut BytesMut,
    ) -> io::Result<Option<Bytes>> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        let mut first = BytesMut::with_capacity(PIECE);
        let mut gone = false;
        loop {
            let room = ahead.len() < AHEAD && !gone;
            tokio::select! {
                biased;
                read = self.stream.read_buf(&mut first) => {
                    if read? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    return Ok(Some(first.freeze()));
                }
                read = client.read_buf(ahead), if room => {
                    gone = read? == 0;
                }
                () = tokio::time::sleep(LAST), if gone => return Ok(None),
            }
        }
    }

    /// Passes on what both sides say until one of them ends, or the upstream moves.
    pub async fn join(self, client: &mut Stream, first: &[u8], ahead: &[u8]) -> io::Result<()> {
        let Self { mut stream, own: _own, mut moves } = self;
        stream.write_all(ahead).await?;
        stream.flush().await?;
        client.write_all(first).await?;
        client.flush().await?;
        let (mut from_client, mut to_client) = split(client);
        let (mut from_server, mut to_server) = split(stream);
        tokio::select! {
            copied = copy(&mut from_client, &mut to_server) => copied.map(drop),
            copied = copy(&mut from_server, &mut to_client) => copied.map(drop),
            () = moves.next() => Err(io::Error::other(moves.cause())),
        }
    }
}
