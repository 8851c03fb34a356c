//! Reaching the upstream: the handshake that gives a connection its identity.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::credentials::{Credentials, Login, Password, Who};
use super::location::{Location, Moves};
use super::ours::{Ours, Own};
use super::role::{is_replica_by_info, is_replica_by_role};
use super::said::Said;
use super::untold;
use crate::io::{Address, Dial, Stream, begins_tls};
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
    pub address: Location,
    /// Nearside's own login: that of a session that has not changed it. A server that sentinels have named is asked with it
    /// whether it is a master, for clients' users need not have that right.
    pub own: Credentials,
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
    /// Tells when it leads to where the upstream is no more.
    pub(super) moves: Moves,
}

/// Opens a connection and gives it its identity, within `connect_timeout`. Where sentinels say where to connect, what is
/// reached there is a master by its own word.
pub(super) async fn connect(settings: &Settings, identity: &Identity) -> Result<Connected, ConnectError> {
    let timeout = settings.connect_timeout;
    let securing = Cell::new(false);
    let connecting = async {
        let (address, mut moves) =
            settings.address.now().await.map_err(|why| ConnectError::Io(why.into()))?;
        let opened = tokio::select! {
            opened = open_as(&address, settings, identity, &securing) => opened,
            () = moves.next() => Err(ConnectError::Io(moves.cause().into())),
        };
        opened.map(|(stream, own, said)| Connected { stream, own, said, moves })
    };
    let connected = tokio::time::timeout(timeout, connecting).await.unwrap_or_else(|_| {
        let waited = humantime::format_duration(timeout);
        let within = match securing.get() {
            // A Redis without TLS takes the beginning of a handshake for one of a line, and waits for the rest.
            true => {
                format!(
                    "TLS handshake within {waited} (connect-timeout); if its port has no TLS, write redis://"
                )
            }
            false => format!("answer within {waited} (connect-timeout)"),
        };
        Err(ConnectError::Io(format!("no {within}").into()))
    });
    if let (Err(ConnectError::Io(_)), Some(elected)) = (&connected, settings.address.elected()) {
        elected.doubt();
    }
    connected
}

/// Opens a connection there that speaks for this identity, with the newest password if it is nearside's own; gives the
/// number of that. `securing` is true while TLS is being agreed upon.
async fn open_as(
    address: &Address,
    settings: &Settings,
    identity: &Identity,
    securing: &Cell<bool>,
) -> Result<(Stream, Own, u64), ConnectError> {
    let open = async |login: Option<&Login>, number| {
        let stream = settings.dial.open(address, settings.connect_timeout).await?;
        securing.set(settings.dial.is_secure());
        let stream = settings.dial.secure(stream, address).await?;
        securing.set(false);
        let (stream, own) = shake_hands(stream, settings, identity, login).await?;
        Ok((stream, own, number))
    };
    let own = match &identity.who {
        Who::Client(login) => return open(Some(login), 0).await,
        Who::Own(own) => own,
    };
    let newest = own
        .first()
        .await
        .map_err(|why| ConnectError::Io(format!("nearside has no password to log in with: {why}").into()))?;
    let Some(newest) = newest else { return open(None, 0).await };
    let say = async |password: &Password| open(Some(&own.login(password)), password.number).await;
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

/// Gives a connection its identity; it logs in so, if at all.
async fn shake_hands(
    mut stream: Stream,
    settings: &Settings,
    identity: &Identity,
    login: Option<&Login>,
) -> Result<(Stream, Own), ConnectError> {
    let mut own = settings.ours.note(stream.local_address());
    let mut out = BytesMut::new();
    let steps = greet(&mut out, settings, identity, login);
    // If that fails, the connection is closed already, and what is read says why.
    if stream.write_all(&out).await.is_ok() {
        let _ = stream.flush().await;
    }
    let id = read_steps(&mut stream, &steps).await?;
    id.into_iter().for_each(|id| own.is_called(id));
    Ok((stream, own))
}

/// Whether a refusal says that the password is wrong. Before Redis 6 it had no code of its own.
fn is_about_password(said: &[u8]) -> bool {
    said.starts_with(b"-WRONGPASS") || said.starts_with(b"-ERR invalid password")
}

/// What the answer to a step of the handshake is for.
#[derive(Clone, Copy)]
enum Step {
    /// Without it the connection is useless.
    Needed,
    Wanted,
    /// Whether it is a master: by `ROLE`, and by `INFO` behind it.
    Role,
    Replication,
    /// See [`untold`](super::untold).
    LoginEnd,
}

/// Writes the handshake.
fn greet(out: &mut BytesMut, settings: &Settings, identity: &Identity, login: Option<&Login>) -> Vec<Step> {
    let mut steps = Vec::new();
    let asks = settings.address.elected().is_some();
    let is_own = matches!(identity.who, Who::Own(_));
    if asks && !is_own {
        // What it must be is asked with the rights of nearside's own login, and then it becomes another's.
        let own = settings.own.newest().map(|newest| settings.own.login(&newest));
        own.iter().for_each(|own| log_in(out, own, &mut steps, Step::Wanted));
        ask_role(out, &mut steps);
    }
    if let Some(login) = login {
        log_in(out, login, &mut steps, Step::Needed);
        // What comes first on a connection is answered.
        if steps.len() > 1 {
            untold::encode_end(out);
            steps.push(Step::LoginEnd);
        }
    }
    if asks && is_own {
        ask_role(out, &mut steps);
    }
    if identity.protocol == Protocol::Resp3 {
        encode::command(out, &[b"HELLO", b"3"]);
        steps.push(Step::Needed);
    }
    if identity.db != 0 {
        encode::command(out, &[b"SELECT", identity.db.to_string().as_bytes()]);
        steps.push(Step::Needed);
    }
    // So that `CLIENT LIST` upstream tells whose connection it is; a server or an ACL may not allow it.
    encode::command(out, &[b"CLIENT", b"SETNAME", b"nearside"]);
    steps.push(Step::Wanted);
    encode::command(out, &[b"CLIENT", b"ID"]);
    steps.push(Step::Wanted);
    steps
}

/// Writes the request that logs in.
pub(super) fn encode_login(out: &mut BytesMut, login: &Login) {
    match &login.user {
        Some(user) => encode::command(out, &[b"AUTH", user, &login.password]),
        None => encode::command(out, &[b"AUTH", &login.password]),
    }
}

fn log_in(out: &mut BytesMut, login: &Login, steps: &mut Vec<Step>, step: Step) {
    encode_login(out, login);
    steps.push(step);
}

fn ask_role(out: &mut BytesMut, steps: &mut Vec<Step>) {
    encode::command(out, &[b"ROLE"]);
    encode::command(out, &[b"INFO", b"replication"]);
    steps.extend([Step::Role, Step::Replication]);
}

/// What a server says to whoever comes, before it closes the connection.
const TURNED_AWAY: [&[u8]; 2] = [b"-ERR max number of clients", b"-DENIED"];

/// Gives the connection's id, which the last step asks for, if the upstream told it.
async fn read_steps(stream: &mut Stream, steps: &[Step]) -> Result<Option<i64>, ConnectError> {
    let mut scanner = ReplyScanner::new();
    let mut buf = BytesMut::with_capacity(4096);
    let mut reply = Vec::new();
    // The last error that was let pass.
    let mut said: Option<Vec<u8>> = None;
    let mut is_replica = None;
    for (at, &step) in steps.iter().enumerate() {
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
            if matches!(step, Step::Needed) {
                let untold = matches!(steps.get(at + 1), Some(Step::LoginEnd)) && untold::is_end(&reply);
                let why = if untold { untold::REFUSED } else { &reply };
                return Err(ConnectError::Refused(why.into()));
            }
            if !matches!(step, Step::LoginEnd) {
                said = Some(reply.clone());
            }
        }
        match step {
            Step::Role => is_replica = is_replica_by_role(&reply),
            Step::Replication => {
                is_replica = is_replica.or_else(|| is_replica_by_info(&reply));
                check_role(is_replica, kind, &reply)?;
            }
            Step::Needed | Step::Wanted | Step::LoginEnd => {}
        }
    }
    Ok(decode(&reply, 0).ok().and_then(|id| id.as_int()))
}

/// Whether the server is one that was looked for. `kind` and `reply` are what it has said last. While a script holds it up
/// it does not say; then it answers nothing else either, but what ends the script.
fn check_role(is_replica: Option<bool>, kind: Kind, reply: &[u8]) -> Result<(), ConnectError> {
    match is_replica {
        Some(false) => Ok(()),
        Some(true) => Err(ConnectError::Io("it is a replica now; asking the sentinels".into())),
        None if Said::of(kind, reply) == Said::NotNow => Ok(()),
        None => {
            let said = words(reply);
            let text = format!(
                "it does not say whether it is a master ({said}); let the user of the upstream URL say ROLE or INFO"
            );
            Err(ConnectError::Io(text.into()))
        }
    }
}

/// A server with TLS answers what is no TLS by an alert, or not at all.
const WANTS_TLS: &str = "the upstream speaks TLS on this port: write rediss:// in the place of redis://";

/// Why a reply could not be read.
pub(super) enum Unread {
    Closed(Rc<str>),
    Garbage(Rc<str>),
}

/// Reads one reply; what came behind it stays in `buf`. One that is not waited for to its end goes on where it was.
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
            Err(_) if begins_tls(buf) => return Err(Unread::Garbage(WANTS_TLS.into())),
            Err(garbage) => return Err(Unread::Garbage(format!("not a Redis server: {garbage}").into())),
        }
    }
}
