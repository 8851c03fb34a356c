//! Listeners, and how clients come from them to the least loaded worker.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::alarm::Alarm;
use super::error::ServerError;
use super::files::{Room, Spare, is_out_of_files};
use super::gate::Gate;
use super::passed::{Offered, Passed, PassedSocket, Purpose};
use super::rights::Rights;
use super::tls::Tls;
use crate::admin;
use crate::config::{HostPort, Listen};
use crate::io::Acceptor;
use crate::process::{Inbox, Message, Process, errors};

const BACKLOG: i32 = 1024;

/// How long accepting pauses when there are no file descriptors and none can be freed.
const PAUSE: Duration = Duration::from_millis(100);

/// A bound port or socket.
pub(super) enum Listener {
    Tcp {
        listener: TcpListener,
        /// With TLS, if there is one.
        tls: Option<Arc<Acceptor>>,
        /// It is systemd's.
        is_activated: bool,
    },
    Unix(UnixListener, SocketFile),
}

/// Whether the sockets' files are this process' to remove. Clones say the same.
#[derive(Clone)]
pub(super) struct Ours(Arc<AtomicBool>);

impl Ours {
    pub(super) fn new(are: bool) -> Self {
        Self(Arc::new(are.into()))
    }

    pub(super) fn are(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn set(&self, are: bool) {
        self.0.store(are, Ordering::Release);
    }
}

/// Removes the socket's file when the listener goes, if it is ours.
pub(super) struct SocketFile {
    path: PathBuf,
    /// `None`: it is systemd's.
    ours: Option<Ours>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.ours.as_ref().is_some_and(Ours::are) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What the configuration has at `addresses`, bound, or what is passed in its place; `admin` if the pages are there.
pub(super) fn listeners(
    addresses: &[Listen],
    admin: bool,
    with: (&Rights, &Ours),
    tls: &Tls,
    passed: &mut Passed,
) -> Result<Vec<Listener>, ServerError> {
    let activated = passed.activated(admin);
    if !activated.is_empty() {
        return activated.into_iter().map(|socket| Listener::activated(socket, tls)).collect();
    }
    let bind = |listen| match passed.at(listen, admin) {
        Some(socket) => Listener::of(listen, socket, with, tls),
        None => Listener::bind(listen, with, tls),
    };
    addresses.iter().map(bind).collect()
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listener::Tcp { listener, tls, .. } => match listener.local_addr() {
                Ok(address) if tls.is_some() => write!(f, "tls://{address}"),
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("a TCP port"),
            },
            Listener::Unix(_, file) => write!(f, "unix:{}", file.path.display()),
        }
    }
}

/// Binds the first of the host's addresses that can be bound.
fn bind_tcp(at: &HostPort) -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in (at.host.as_str(), at.port).to_socket_addrs()? {
        match bind_address(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind_address(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // So that a restart does not wait for old connections to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Listener {
    fn tcp(listener: TcpListener, tls: Option<Arc<Acceptor>>) -> Self {
        Listener::Tcp { listener, tls, is_activated: false }
    }

    /// One of systemd's.
    fn activated(passed: PassedSocket, tls: &Tls) -> Result<Self, ServerError> {
        let address = passed.socket.local_addr()?;
        if let Some(path) = address.as_pathname() {
            let file = SocketFile { path: path.to_owned(), ours: None };
            return Ok(Listener::Unix(passed.socket.into(), file));
        }
        if passed.is_unix() {
            let why = "a socket that systemd passes has no path: ListenStream= must not begin with @";
            return Err(ServerError::Sockets(why.to_owned()));
        }
        let secure = || {
            let why = "systemd passes a socket for TLS: name it in listen = \"tls://HOST:PORT\", with tls-cert and tls-key";
            tls.inward.clone().ok_or_else(|| ServerError::Sockets(why.to_owned()))
        };
        let tls = if passed.purpose == Purpose::Secure { Some(secure()?) } else { None };
        Ok(Listener::Tcp { listener: passed.socket.into(), tls, is_activated: true })
    }

    /// One that another nearside has bound.
    fn of(
        listen: &Listen,
        socket: Socket,
        (rights, ours): (&Rights, &Ours),
        tls: &Tls,
    ) -> Result<Self, ServerError> {
        match listen {
            Listen::Tcp(_) => Ok(Listener::tcp(socket.into(), None)),
            Listen::Tls(_) => Ok(Listener::tcp(socket.into(), Some(acceptor(listen, tls)?))),
            Listen::Unix(path) => {
                let refused = |cause| ServerError::Listen { at: listen.to_string(), cause };
                rights.give(path).map_err(refused)?;
                let file = SocketFile { path: path.clone(), ours: Some(ours.clone()) };
                Ok(Listener::Unix(socket.into(), file))
            }
        }
    }

    fn bind(listen: &Listen, (rights, ours): (&Rights, &Ours), tls: &Tls) -> Result<Self, ServerError> {
        let refused = |cause| ServerError::Listen { at: listen.to_string(), cause };
        match listen {
            Listen::Tcp(at) => bind_tcp(at).map(|listener| Listener::tcp(listener, None)).map_err(refused),
            Listen::Tls(at) => {
                let tls = acceptor(listen, tls)?;
                bind_tcp(at).map(|listener| Listener::tcp(listener, Some(tls))).map_err(refused)
            }
            Listen::Unix(path) => {
                // A socket that nobody answers on was left by a process that was killed. Any other file is
                // not ours, and it refuses a connection as well.
                let is_socket = path.metadata().is_ok_and(|metadata| metadata.file_type().is_socket());
                let is_left =
                    || UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
                if is_socket && is_left() {
                    std::fs::remove_file(path).map_err(refused)?;
                }
                let listener = rights.bind(path).map_err(refused)?;
                let file = SocketFile { path: path.clone(), ours: Some(ours.clone()) };
                rights.give(path).map_err(refused)?;
                listener.set_nonblocking(true).map_err(refused)?;
                Ok(Listener::Unix(listener, file))
            }
        }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp { listener, .. } => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }

    pub(super) fn path(&self) -> Option<PathBuf> {
        match self {
            Listener::Tcp { .. } => None,
            Listener::Unix(_, file) => Some(file.path.clone()),
        }
    }

    /// The same for the admin pages, which have no TLS, and the socket's file.
    pub(super) fn into_admin(self) -> (admin::Listener, Option<SocketFile>) {
        match self {
            Listener::Tcp { listener, .. } => (admin::Listener::Tcp(listener), None),
            Listener::Unix(listener, file) => (admin::Listener::Unix(listener), Some(file)),
        }
    }

    /// The socket of admin pages, for whoever takes over.
    pub(super) fn offered(&self) -> io::Result<Offered> {
        let (socket, is_activated): (Rc<dyn AsFd>, bool) = match self {
            Listener::Tcp { listener, is_activated, .. } => (Rc::new(listener.try_clone()?), *is_activated),
            Listener::Unix(listener, file) => (Rc::new(listener.try_clone()?), file.ours.is_none()),
        };
        Ok(Offered { socket, purpose: Purpose::Admin, is_activated })
    }

    /// Whether TLS comes before all else.
    pub(super) fn is_secure(&self) -> bool {
        matches!(self, Listener::Tcp { tls: Some(_), .. })
    }

    /// Accepts, while the gate is open, until the task is aborted.
    pub(super) fn accept(self, door: Door, alarm: &Alarm) -> io::Result<Accepting> {
        Ok(match self {
            Listener::Tcp { listener, tls, is_activated } => {
                let listener = Rc::new(tokio::net::TcpListener::from_std(listener)?);
                let purpose = if tls.is_some() { Purpose::Secure } else { Purpose::Clients };
                let offered = Offered { socket: listener.clone(), purpose, is_activated };
                let keepalive = door.keepalive.map(|idle| {
                    // As Redis does: three probes, and the client is gone.
                    TcpKeepalive::new().with_time(idle).with_interval(idle / 3).with_retries(3)
                });
                let task = alarm.spawn("a listener", async move {
                    loop {
                        let accept = async || {
                            let (stream, _) = listener.accept().await?;
                            stream.set_nodelay(true)?;
                            if let Some(keepalive) = &keepalive {
                                SockRef::from(&stream).set_tcp_keepalive(keepalive)?;
                            }
                            stream.into_std()
                        };
                        match &tls {
                            None => door.admit(accept, Message::Client).await,
                            Some(tls) => {
                                let secured = |stream| Message::SecureClient(stream, tls.handshake());
                                door.admit(accept, secured).await;
                            }
                        }
                    }
                });
                Accepting { task, offered }
            }
            Listener::Unix(listener, file) => {
                let listener = Rc::new(tokio::net::UnixListener::from_std(listener)?);
                let is_activated = file.ours.is_none();
                let offered = Offered { socket: listener.clone(), purpose: Purpose::Clients, is_activated };
                let task = alarm.spawn("a listener", async move {
                    let _file = file;
                    loop {
                        let accept = async || listener.accept().await?.0.into_std();
                        door.admit(accept, Message::UnixClient).await;
                    }
                });
                Accepting { task, offered }
            }
        })
    }
}

/// A listener whose clients are let in, and what it is to whoever takes over.
pub(super) struct Accepting {
    pub(super) task: JoinHandle<()>,
    pub(super) offered: Offered,
}

fn acceptor(listen: &Listen, tls: &Tls) -> Result<Arc<Acceptor>, ServerError> {
    tls.inward.clone().ok_or_else(|| ServerError::Tls(format!("{listen} needs tls-cert and tls-key")))
}

/// Who lets clients in.
pub(super) struct Door {
    pub(super) process: Arc<Process>,
    pub(super) workers: Vec<Arc<Inbox>>,
    pub(super) room: Room,
    /// After how long without a word a client is asked whether it is still there.
    pub(super) keepalive: Option<Duration>,
    /// Whether its clients can be told a word before TLS is agreed upon.
    pub(super) plain: bool,
    /// Given up for a moment when there is no other file descriptor, so that even then a client hears why.
    pub(super) spare: Spare,
    pub(super) gate: Rc<Gate>,
}

impl Door {
    /// Accepts one client, and hands it over or refuses it; or comes back without one when the gate is shut.
    async fn admit<S: io::Read + io::Write + AsRawFd>(
        &self,
        accept: impl AsyncFn() -> io::Result<S>,
        message: impl FnOnce(S) -> Message,
    ) {
        self.gate.is(true).await;
        tokio::select! {
            biased;
            () = self.gate.is(false) => {}
            // Between an accept and the hand-over nothing is waited for, so nobody is lost here.
            () = self.admit_one(accept, message) => {}
        }
    }

    async fn admit_one<S: io::Read + io::Write + AsRawFd>(
        &self,
        accept: impl AsyncFn() -> io::Result<S>,
        message: impl FnOnce(S) -> Message,
    ) {
        let metrics = &self.process.metrics;
        let stream = match accept().await {
            Ok(stream) => stream,
            Err(error) if is_out_of_files(&error) => return self.refuse_without_files(accept).await,
            Err(error) => return debug!(%error, "a client left before it was accepted"),
        };
        // The system gives the lowest free number: one so high says how many are in use.
        let full = stream.as_raw_fd() as usize >= self.room.files;
        if full || metrics.clients.get() as usize >= self.process.settings.max_clients.get() {
            return self.refuse(stream);
        }
        metrics.clients.inc();
        metrics.clients_accepted.inc();
        self.gate.pass(&self.process);
        if let Some(worker) = self.workers.iter().min_by_key(|worker| worker.clients()) {
            worker.send_client(message(stream));
        }
    }

    /// As Redis does: one attempt, and whether it arrives is the client's affair.
    fn refuse(&self, mut stream: impl io::Read + io::Write) {
        let metrics = &self.process.metrics;
        metrics.clients_refused.inc();
        if let Some(untold) = metrics.refused_told.now() {
            warn!(
                clients = metrics.clients.get(),
                untold,
                "a client was refused: raise max-clients, or the limit of file descriptors (ulimit -n)"
            );
        }
        if self.plain {
            let _ = stream.write(&errors::line(errors::MAX_CLIENTS));
        }
        // What is left unread would make of the close a reset.
        let _ = stream.read(&mut [0; 4096]);
    }

    async fn refuse_without_files<S: io::Read + io::Write + AsRawFd>(
        &self,
        accept: impl AsyncFn() -> io::Result<S>,
    ) {
        let free = self.spare.free();
        if let Ok(Ok(stream)) = tokio::time::timeout(PAUSE, accept()).await {
            self.refuse(stream);
        }
        drop(free);
        if !self.spare.is_there() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
