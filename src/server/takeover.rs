//! `--takeover`: another nearside takes the place of this one, on the very same listening sockets.
//!
//! The one that runs listens, for each of its addresses, on a Unix socket in the abstract name space, whose name says user
//! and address: it is there wherever the address is, in no folder, and gone with the process. Invariants:
//! - Nobody but a process of the same user is passed anything, or is believed.
//! - No client is refused at any time. The listening sockets are passed and so never closed; between the moment that the old one
//!   lets nobody in any more and the one that the new one does, who comes waits in their queue.
//! - At any time one of both is responsible. The new one says that it is ready; the old one shuts its gate and says so; the
//!   new one opens its own and says so; then the old one drains. Whichever ends, or falls silent, before that leaves the
//!   sockets to the other: the old one goes on, or the new one begins.
//! - One takeover goes on at a time; and what it waits for has an end.

mod wire;

use std::io;
use std::net::ToSocketAddrs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::geteuid;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::accept::Ours;
use super::error::ServerError;
use super::gate::Gate;
use super::notify::Notify;
use super::passed::{Offered, Passed, PassedSocket, Purpose};
use super::stop::Stop;
use crate::admin;
use crate::config::{Config, Listen};
use crate::metrics::Seldom;
use crate::process::Process;

/// How long the other one may take for a word that needs no thought.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the new one may take to become ready.
const START: Duration = Duration::from_secs(90);

/// How long it rests after a takeover that came to nothing, or before a name is tried again.
const REST: Duration = Duration::from_millis(200);
const AGAIN: Duration = Duration::from_secs(5);

/// The name for who would take over an address.
fn name(place: &str) -> Vec<u8> {
    format!("nearside/{}/{place}", geteuid().as_raw()).into_bytes()
}

/// A path may be longer than a name.
fn place_of_path(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    sha1_smol::Sha1::from(path.as_os_str().as_bytes()).digest().to_string()
}

fn places(config: &Config) -> Vec<String> {
    let of = |listen: &Listen| match listen {
        Listen::Unix(path) => vec![place_of_path(path)],
        Listen::Tcp(at) | Listen::Tls(at) => {
            let all = (at.host.as_str(), at.port).to_socket_addrs().into_iter().flatten();
            all.map(|address| address.to_string()).collect()
        }
    };
    config.listen.iter().flat_map(of).collect()
}

fn place(socket: &Offered) -> Option<String> {
    let socket = socket.socket.as_fd();
    let at = SockRef::from(&socket).local_addr().ok()?;
    at.as_socket().map(|address| address.to_string()).or_else(|| at.as_pathname().map(place_of_path))
}

/// The nearside that is taken over.
pub(super) struct Old {
    stream: std::os::unix::net::UnixStream,
    pid: i32,
    /// Whether it could serve, when it was asked.
    pub(super) is_ready: bool,
}

/// Asks the nearside of this user at one of the addresses for its sockets; `None` if there is none. Errors: they cannot be
/// had.
pub(super) async fn find(config: &Config) -> Result<Option<(Old, Vec<PassedSocket>)>, ServerError> {
    for place in places(config) {
        let failed = |why: &dyn std::fmt::Display| ServerError::Takeover(format!("{why}, at {place}"));
        let address = SocketAddr::from_abstract_name(name(&place)).map_err(|error| failed(&error))?;
        let stream = match std::os::unix::net::UnixStream::connect_addr(&address) {
            Ok(stream) => stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(failed(&error)),
        };
        stream.set_nonblocking(true).map_err(|error| failed(&error))?;
        let stream = UnixStream::from_std(stream).map_err(|error| failed(&error))?;
        let pid = of_same_user(&stream).map_err(|why| failed(&why))?;
        let (is_ready, sockets) = match timeout(PATIENCE, wire::receive(&stream)).await {
            Ok(received) => received.map_err(|error| failed(&format!("process {pid}: {error}")))?,
            Err(_) => return Err(failed(&format!("process {pid} does not answer; is it being taken over?"))),
        };
        let stream = stream.into_std().map_err(|error| failed(&error))?;
        return Ok(Some((Old { stream, pid, is_ready }, sockets)));
    }
    Ok(None)
}

/// The process at the other end, 0 if it is not to be seen from here. Errors: it is another user's.
fn of_same_user(stream: &UnixStream) -> Result<i32, String> {
    let peer = stream.peer_cred().map_err(|error| error.to_string())?;
    let pid = peer.pid().unwrap_or_default();
    match (peer.uid(), geteuid().as_raw()) {
        (theirs, ours) if theirs == ours => Ok(pid),
        (theirs, _) => {
            Err(format!("process {pid} is of another user ({theirs}): a takeover is for the same one"))
        }
    }
}

impl Old {
    /// Says that this process is ready. When this returns the other one lets nobody in any more, or has ended.
    pub(super) async fn make_way(self) -> Result<Leaving, ServerError> {
        let pid = self.pid;
        let failed = |why: &str| ServerError::Takeover(format!("process {pid} {why}"));
        let mut stream = UnixStream::from_std(self.stream).map_err(|error| failed(&error.to_string()))?;
        // If it cannot be told it has ended, which the answer says.
        let _ = stream.write_u8(wire::READY).await;
        let mut answer = timeout(PATIENCE, stream.read_u8()).await;
        if answer.is_err() {
            // Given up now, both might be shut: it may read what was said at any time, and it is shut then.
            warn!(pid, "the process that is to be taken over does not answer: end it, if it never will");
            answer = Ok(stream.read_u8().await);
        }
        match answer {
            Ok(Ok(wire::YOURS) | Err(_)) | Err(_) => Ok(Leaving { stream, pid }),
            Ok(Ok(wire::LATE)) => Err(failed("has waited long enough")),
            Ok(Ok(_)) => Err(failed("speaks otherwise")),
        }
    }
}

/// The nearside that was taken over, while it still serves those whom it has let in.
pub(super) struct Leaving {
    stream: UnixStream,
    pub(super) pid: i32,
}

impl Leaving {
    /// This process lets clients in.
    pub(super) async fn tell(&mut self) {
        let _ = self.stream.write_u8(wire::OPEN).await;
    }

    /// Waits until it has ended.
    pub(super) async fn ended(mut self) {
        while self.stream.read_u8().await.is_ok() {}
    }
}

/// What another nearside may take over.
pub(super) struct Offer {
    pub(super) process: Arc<Process>,
    pub(super) gate: Rc<Gate>,
    pub(super) notify: Rc<Notify>,
    pub(super) ours: Ours,
    pub(super) stop: watch::Sender<Stop>,
    pub(super) sockets: Vec<Offered>,
    /// What this process was passed itself.
    pub(super) passed: Passed,
    /// Who accepts for the admin pages.
    pub(super) pages: AbortHandle,
}

impl Offer {
    /// Passes everything to whoever takes over, and stops this process then. Runs until it is dropped, or a stop begins.
    pub(super) async fn run(mut self) {
        let mut stop = self.stop.subscribe();
        let taken = tokio::select! {
            _ = stop.wait_for(|stop| *stop > Stop::Not) => return,
            taken = self.taken() => taken,
        };
        let (_ends_with_this_process, pid) = taken;
        info!(pid, "another process has taken over");
        self.pages.abort();
        self.notify.succeeded_by(pid);
        self.stop.send_if_modified(|stop| {
            let is_first = *stop == Stop::Not;
            *stop = (*stop).max(Stop::Leave);
            is_first
        });
        std::future::pending::<()>().await;
    }

    /// Waits until somebody has.
    async fn taken(&mut self) -> (UnixStream, i32) {
        let mut places: Vec<_> = self.sockets.iter().filter_map(place).collect();
        let mut named = Vec::new();
        let told = Seldom::default();
        loop {
            places.retain(|place| match self.listen(&name(place)) {
                Ok(listener) => {
                    named.push(listener);
                    false
                }
                Err(_) => true,
            });
            let again = async {
                match places.is_empty() {
                    true => std::future::pending().await,
                    false => sleep(AGAIN).await,
                }
            };
            let came = tokio::select! {
                came = next(&named) => came,
                () = again => continue,
            };
            let failure = match came {
                Ok(stream) => match self.pass_to(stream).await {
                    Ok(taken) => return taken,
                    Err(why) => why,
                },
                Err(error) => error.to_string(),
            };
            self.ours.set(true);
            self.gate.open();
            self.process.metrics.takeovers_failed.inc();
            if let Some(untold) = told.now() {
                warn!(untold, "a takeover came to nothing, and this process goes on: {failure}");
            }
            sleep(REST).await;
        }
    }

    /// Listens under a name, which is passed on, too.
    fn listen(&mut self, name: &[u8]) -> io::Result<Rc<UnixListener>> {
        let listener = match self.passed.named(name) {
            Some(socket) => socket.into(),
            None => {
                let listener =
                    std::os::unix::net::UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
                listener.set_nonblocking(true)?;
                listener
            }
        };
        let socket = Rc::new(UnixListener::from_std(listener)?);
        let offered = Offered { socket: socket.clone(), purpose: Purpose::Takeover, is_activated: false };
        self.sockets.push(offered);
        Ok(socket)
    }

    /// Errors: why this process is still the one that is responsible.
    async fn pass_to(&self, mut stream: UnixStream) -> Result<(UnixStream, i32), String> {
        let pid = of_same_user(&stream)?;
        info!(pid, "another process is to take over");
        // Whatever becomes of this process from now on, the new one's sockets keep their files.
        self.ours.set(false);
        let is_ready = admin::readiness(&self.process, false).is_ok();
        let sent = timeout(PATIENCE, wire::send(&stream, is_ready, &self.sockets)).await;
        sent.map_err(|_| format!("process {pid} takes nothing"))?.map_err(|error| error.to_string())?;
        match timeout(START, stream.read_u8()).await {
            Ok(Ok(wire::READY)) => {}
            Ok(Ok(_)) => return Err(format!("process {pid} speaks otherwise")),
            Ok(Err(_)) => return Err(format!("process {pid} has ended before it was ready")),
            Err(_) => {
                let _ = stream.write_u8(wire::LATE).await;
                return Err(format!("process {pid} has not become ready"));
            }
        }
        self.gate.shut();
        let opened = async {
            stream.write_u8(wire::YOURS).await?;
            stream.read_u8().await
        };
        match timeout(PATIENCE, opened).await {
            Ok(Ok(_)) => Ok((stream, pid)),
            Ok(Err(_)) => Err(format!("process {pid} has ended before it let clients in")),
            Err(_) => Err(format!("process {pid} does not let clients in")),
        }
    }
}

/// Whoever comes to one of them.
async fn next(named: &[Rc<UnixListener>]) -> io::Result<UnixStream> {
    std::future::poll_fn(|cx| {
        for listener in named {
            if let std::task::Poll::Ready(came) = listener.poll_accept(cx) {
                return std::task::Poll::Ready(came.map(|(stream, _)| stream));
            }
        }
        std::task::Poll::Pending
    })
    .await
}
