//! Reaching the upstream: the handshake that gives a connection its identity.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ours::{Ours, Own};
use crate::io::{Address, Dial, Stream, begins_tls};
use crate::resp::decode::decode;
use crate::resp::scanner::{Kind, ReplyScanner, Scan};
use crate::resp::{Protocol, encode};

/// What a connection logs in with.
#[derive(Clone, PartialEq, Eq, Hash)]
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

/// How a link is reached and what it waits for.
#[derive(Clone)]
pub struct Settings {
    pub address: Address,
    pub connect_timeout: Duration,
    /// How long a reply may be in coming; zero is for ever.
    pub reply_timeout: Duration,
    /// Where the connections are noted as long as they stand.
    pub ours: Ours,
    pub dial: Dial,
}

impl Settings {
    /// For connections that must be possible even with the last file descriptors.
    pub fn without_limit(&self) -> Self {
        Self { dial: self.dial.clone().within(None), ..self.clone() }
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

/// Opens a connection and gives it its identity, within `connect_timeout`. It is one of `ours` as long as what comes
/// with it stands.
pub(super) async fn connect(settings: &Settings, identity: &Identity) -> Result<(Stream, Own), ConnectError> {
    let timeout = settings.connect_timeout;
    let securing = Cell::new(false);
    let handshake = async {
        let stream = settings.dial.open(&settings.address, timeout).await?;
        securing.set(settings.dial.is_secure());
        let mut stream = settings.dial.secure(stream, &settings.address).await?;
        securing.set(false);
        let mut own = settings.ours.note(stream.local_address());
        let mut out = BytesMut::new();
        let steps = greet(&mut out, identity);
        // If that fails, the connection is closed already, and what is read says why.
        if stream.write_all(&out).await.is_ok() {
            let _ = stream.flush().await;
        }
        let id = read_steps(&mut stream, &steps).await?;
        id.into_iter().for_each(|id| own.is_called(id));
        Ok((stream, own))
    };
    match tokio::time::timeout(timeout, handshake).await {
        Ok(result) => result,
        Err(_) => {
            let waited = humantime::format_duration(timeout);
            let within = match securing.get() {
                // A Redis without TLS takes the beginning of a handshake for one of a line, and waits for the rest.
                true => format!(
                    "TLS handshake within {waited} (connect-timeout); if its port has no TLS, write redis://"
                ),
                false => format!("answer within {waited} (connect-timeout)"),
            };
            Err(ConnectError::Io(format!("no {within}").into()))
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
    let mut said: Option<Vec<u8>> = None;
    for (at, &required) in steps.iter().enumerate() {
        reply.clear();
        let kind = match read_reply(stream, &mut scanner, &mut buf, &mut reply).await {
            Ok(kind) => kind,
            Err(Unread::Closed(closed)) => {
                return Err(match said {
                    Some(said) => ConnectError::turned_away(&said),
                    // A server with TLS does so to who begins without.
                    None if at == 0 && matches!(stream, Stream::Tcp(_)) => ConnectError::Io(
                        format!("{closed}; if its port is one for TLS, write rediss://").into(),
                    ),
                    None => ConnectError::Io(closed),
                });
            }
            Err(Unread::Garbage(garbage)) => return Err(ConnectError::Io(garbage)),
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

/// A server with TLS answers what is no TLS by an alert, or not at all.
const WANTS_TLS: &str = "the upstream speaks TLS on this port: write rediss:// in the place of redis://";

/// Why a reply could not be read.
enum Unread {
    Closed(Rc<str>),
    Garbage(Rc<str>),
}

/// Reads one reply; what came behind it stays in `buf`.
async fn read_reply(
    stream: &mut Stream,
    scanner: &mut ReplyScanner,
    buf: &mut BytesMut,
    reply: &mut Vec<u8>,
) -> Result<Kind, Unread> {
    loop {
        if buf.is_empty() {
            match stream.read_buf(buf).await {
                Ok(0) => {
                    let closed = "the upstream closed the connection during the handshake";
                    return Err(Unread::Closed(closed.into()));
                }
                Ok(_) => {}
                Err(error) => return Err(Unread::Closed(error.to_string().into())),
            }
        }
        match scanner.scan(buf) {
            Ok(Scan::Done { used, kind }) => {
                reply.extend_from_slice(&buf[..used]);
                buf.advance(used);
                return Ok(kind);
            }
            Ok(Scan::More) => {
                reply.extend_from_slice(buf);
                buf.clear();
            }
            Err(_) if begins_tls(buf) => return Err(Unread::Garbage(WANTS_TLS.into())),
            Err(garbage) => return Err(Unread::Garbage(format!("not a Redis server: {garbage}").into())),
        }
    }
}

/// What a connection made now says to `INFO`, raw; an error if it may not be asked.
pub(super) async fn ask_info(settings: &Settings, identity: &Identity) -> Option<Vec<u8>> {
    let (mut stream, _own) = connect(settings, identity).await.ok()?;
    let asked = async {
        stream.write_all(b"*1\r\n$4\r\nINFO\r\n").await.ok()?;
        stream.flush().await.ok()?;
        let (mut buf, mut reply) = (BytesMut::with_capacity(4096), Vec::new());
        let read = read_reply(&mut stream, &mut ReplyScanner::new(), &mut buf, &mut reply).await;
        read.is_ok().then_some(reply)
    };
    tokio::time::timeout(settings.connect_timeout, asked).await.ok()?
}
