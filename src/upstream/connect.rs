//! Reaching the upstream: the handshake that gives a connection its identity.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::credentials::{Login, Password, Who};
use super::ours::{Ours, Own};
use crate::io::Dial;
use crate::io::{Address, Stream};
use crate::resp::decode::decode;
use crate::resp::scanner::{Kind, ReplyScanner, Scan};
use crate::resp::{Protocol, encode};

/// For whom a connection speaks.
#[derive(Clone)]
pub struct Identity {
    pub who: Who,
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

/// A connection that has its identity.
pub(super) struct Connected {
    pub(super) stream: Stream,
    /// It is one of `ours` as long as this stands.
    pub(super) own: Own,
    /// The number of the password that it has said, if it speaks for nearside itself.
    pub(super) said: u64,
}

/// Opens a connection and gives it its identity, within `connect_timeout`.
pub(super) async fn connect(settings: &Settings, identity: &Identity) -> Result<Connected, ConnectError> {
    let timeout = settings.connect_timeout;
    let handshake = async {
        match &identity.who {
            Who::Client(login) => open(settings, identity, Some(login), 0).await,
            Who::Own(own) => {
                let newest = own.first().await.map_err(|why| {
                    ConnectError::Io(format!("nearside has no password to log in with: {why}").into())
                })?;
                let Some(newest) = newest else { return open(settings, identity, None, 0).await };
                let say = async |password: &Password| {
                    let (login, number) = (own.login(password), password.number);
                    open(settings, identity, Some(&login), number).await
                };
                match say(&newest).await {
                    Err(ConnectError::Refused(said)) if is_about_password(&said) => {
                        own.doubt();
                        // It may have been told to nearside before it was to the server.
                        let Some(before) = newest.before() else { return Err(ConnectError::Refused(said)) };
                        say(&before).await.map_err(|_| ConnectError::Refused(said))
                    }
                    opened => opened.inspect(|_| own.taken(newest.number)),
                }
            }
        }
    };
    match tokio::time::timeout(timeout, handshake).await {
        Ok(result) => result,
        Err(_) => {
            let waited = humantime::format_duration(timeout);
            Err(ConnectError::Io(format!("no answer within {waited} (connect-timeout)").into()))
        }
    }
}

/// Opens a connection that logs in so, if at all, with the password of this number.
async fn open(
    settings: &Settings,
    identity: &Identity,
    login: Option<&Login>,
    said: u64,
) -> Result<Connected, ConnectError> {
    let mut stream = settings.dial.open(&settings.address, settings.connect_timeout).await?;
    let mut own = settings.ours.note(stream.local_address());
    let mut out = BytesMut::new();
    let steps = greet(&mut out, identity, login);
    // It may have closed the connection already, and have said why.
    let written = stream.write_all(&out).await;
    let id = match (written, read_steps(&mut stream, &steps).await) {
        (Err(error), Err(ConnectError::Io(_))) => return Err(error.into()),
        (_, read) => read?,
    };
    id.into_iter().for_each(|id| own.is_called(id));
    Ok(Connected { stream, own, said })
}

/// Whether a refusal says that the password is wrong. Before Redis 6 it had no code of its own.
fn is_about_password(said: &[u8]) -> bool {
    said.starts_with(b"-WRONGPASS") || said.starts_with(b"-ERR invalid password")
}

/// Writes the request that logs in.
pub(super) fn encode_login(out: &mut BytesMut, login: &Login) {
    match &login.user {
        Some(user) => encode::command(out, &[b"AUTH", user, &login.password]),
        None => encode::command(out, &[b"AUTH", &login.password]),
    }
}

/// Writes the handshake; for each step, whether the connection is useless without it.
fn greet(out: &mut BytesMut, identity: &Identity, login: Option<&Login>) -> Vec<bool> {
    let mut steps = Vec::new();
    if let Some(login) = login {
        encode_login(out, login);
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
        let kind = match read_reply(stream, &mut scanner, &mut buf, &mut reply).await {
            Ok(kind) => kind,
            Err(Unread::Closed(closed)) => {
                return Err(
                    said.map_or(ConnectError::Io(closed), |said: Vec<u8>| ConnectError::turned_away(&said))
                );
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

/// Why a reply could not be read.
pub(super) enum Unread {
    Closed(Rc<str>),
    Garbage(Rc<str>),
}

/// Reads one reply; what came behind it stays in `buf`.
pub(super) async fn read_reply(
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
            Err(garbage) => return Err(Unread::Garbage(format!("not a Redis server: {garbage}").into())),
        }
    }
}
