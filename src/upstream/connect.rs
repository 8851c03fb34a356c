//! Reaching the upstream: addresses, the stream, and the handshake that gives a connection its identity.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::ours::{Ours, Own};
use crate::resp::decode::decode;
use crate::resp::scanner::{Kind, ReplyScanner, Scan};
use crate::resp::{Protocol, encode};

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What a connection logs in with.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// `None` is the upstream's default user.
    pub user: Option<Vec<u8>>,
    pub password: Vec<u8>,
}

/// For whom a connection speaks.
#[derive(Clone)]
pub struct Identity {
    pub login: Option<Login>,
    pub db: u32,
    pub protocol: Protocol,
}

/// A stream to the upstream or to a client.
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// How long a silent peer is trusted before the kernel probes it, and how long unacknowledged bytes may
/// stay so: a dead host is noticed within a minute even when nothing of ours times out.
const KEEPALIVE: Duration = Duration::from_secs(15);
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

impl Stream {
    /// Whether there may be something to read; if not, `cx` is woken when there may be.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(stream) => stream.poll_read_ready(cx),
            Stream::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// The near end's address, of a TCP connection.
    fn local_address(&self) -> Option<String> {
        match self {
            Stream::Tcp(stream) => stream.local_addr().ok().map(|address| address.to_string()),
            Stream::Unix(_) => None,
        }
    }

    /// Opens a connection, without a handshake.
    pub async fn open(address: &Address) -> io::Result<Stream> {
        match address {
            Address::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                let socket = SockRef::from(&stream);
                socket.set_tcp_keepalive(
                    &TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3),
                )?;
                #[cfg(target_os = "linux")]
                socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{0}")]
    Io(Rc<str>),
    /// The upstream's own words, raw, as the answer to a step of the handshake.
    #[error("the upstream refused: {}", words(.0))]
    Refused(Rc<[u8]>),
    /// It has said this and closed the connection, whoever it was that came.
    #[error("the upstream turned the connection away: {}", words(.0))]
    TurnedAway(Rc<[u8]>),
}

/// An error reply on one line, of a length that can be shown.
fn words(raw: &[u8]) -> String {
    const SHOWN: usize = 256;
    let text = String::from_utf8_lossy(&raw[..raw.len().min(SHOWN)]);
    text.trim_start_matches('-').lines().next().unwrap_or_default().trim_end().to_string()
}

impl ConnectError {
    pub(super) fn turned_away(words: &[u8]) -> Self {
        ConnectError::TurnedAway(words.into())
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        ConnectError::Io(error.to_string().into())
    }
}

/// Opens a connection and gives it its identity, within `timeout`. It is one of `ours` as long as what comes with
/// it stands.
pub(super) async fn connect(
    address: &Address,
    identity: &Identity,
    timeout: Duration,
    ours: &Ours,
) -> Result<(Stream, Own), ConnectError> {
    let handshake = async {
        let mut stream = Stream::open(address).await?;
        let mut own = ours.note(stream.local_address());
        let mut out = BytesMut::new();
        let steps = greet(&mut out, identity);
        // It may have closed the connection already, and have said why.
        let written = stream.write_all(&out).await;
        let id = match (written, read_steps(&mut stream, &steps).await) {
            (Err(error), Err(ConnectError::Io(_))) => return Err(error.into()),
            (_, read) => read?,
        };
        id.into_iter().for_each(|id| own.is_called(id));
        Ok((stream, own))
    };
    match tokio::time::timeout(timeout, handshake).await {
        Ok(result) => result,
        Err(_) => {
            let waited = humantime::format_duration(timeout);
            Err(ConnectError::Io(format!("no answer within {waited} (connect-timeout)").into()))
        }
    }
}

/// Writes the handshake; for each step, whether the connection is useless without it.
fn greet(out: &mut BytesMut, identity: &Identity) -> Vec<bool> {
    let mut steps = Vec::new();
    if let Some(login) = &identity.login {
        match &login.user {
            Some(user) => encode::command(out, &[b"AUTH", user, &login.password]),
            None => encode::command(out, &[b"AUTH", &login.password]),
        }
        steps.push(true);
    }
    if identity.protocol == Protocol::Resp3 {
        encode::command(out, &[b"HELLO", b"3"]);
        steps.push(true);
    }
    if identity.db != 0 {
        encode::command(out, &[b"SELECT", identity.db.to_string().as_bytes()]);
        steps.push(true);
    }
    // So that `CLIENT LIST` upstream tells whose connection it is; a server or an ACL may not allow it.
    encode::command(out, &[b"CLIENT", b"SETNAME", b"nearside"]);
    steps.push(false);
    encode::command(out, &[b"CLIENT", b"ID"]);
    steps.push(false);
    steps
}

/// What a server says to whoever comes, before it closes the connection.
const TURNED_AWAY: [&[u8]; 2] = [b"-ERR max number of clients", b"-DENIED"];

/// Gives the connection's id, which the last step asks for, if the upstream told it.
async fn read_steps(stream: &mut Stream, steps: &[bool]) -> Result<Option<i64>, ConnectError> {
    let mut scanner = ReplyScanner::new();
    let mut buf = BytesMut::with_capacity(4096);
    let mut reply = Vec::new();
    // The last error that was let pass.
    let mut said = None;
    for &required in steps {
        reply.clear();
        let kind = loop {
            if buf.is_empty() {
                let closed = match stream.read_buf(&mut buf).await {
                    Ok(0) => "the upstream closed the connection during the handshake".into(),
                    Ok(_) => continue,
                    Err(error) => error.to_string().into(),
                };
                return Err(
                    said.map_or(ConnectError::Io(closed), |said: Vec<u8>| ConnectError::turned_away(&said))
                );
            }
            match scanner.scan(&buf) {
                Ok(Scan::Done { used, kind }) => {
                    reply.extend_from_slice(&buf[..used]);
                    buf.advance(used);
                    break kind;
                }
                Ok(Scan::More) => {
                    reply.extend_from_slice(&buf);
                    buf.clear();
                }
                Err(garbage) => {
                    return Err(ConnectError::Io(format!("not a Redis server: {garbage}").into()));
                }
            }
        };
        if kind == Kind::Error {
            if TURNED_AWAY.iter().any(|words| reply.starts_with(words)) {
                return Err(ConnectError::turned_away(&reply));
            }
            if required {
                return Err(ConnectError::Refused(reply.as_slice().into()));
            }
            said = Some(reply.clone());
        }
    }
    Ok(decode(&reply, 0).ok().and_then(|id| id.as_int()))
}
