//! Listeners, and how clients come from them to the least loaded worker.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::alarm::Alarm;
use super::error::ServerError;
use super::files::{Room, Spare, is_out_of_files};
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
    /// With TLS, if there is an acceptor.
    Tcp(TcpListener, Option<Arc<Acceptor>>),
    Unix(UnixListener, SocketFile),
}

/// Removes the socket's file when the listener goes.
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listener::Tcp(listener, tls) => match listener.local_addr() {
                Ok(address) if tls.is_some() => write!(f, "tls://{address}"),
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("a TCP port"),
            },
            Listener::Unix(_, file) => write!(f, "unix:{}", file.0.display()),
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
    pub(super) fn bind(listen: &Listen, rights: &Rights, tls: &Tls) -> Result<Self, ServerError> {
        let refused = |cause| ServerError::Listen { at: listen.to_string(), cause };
        match listen {
            Listen::Tcp(at) => bind_tcp(at).map(|listener| Listener::Tcp(listener, None)).map_err(refused),
            Listen::Tls(at) => {
                let Some(tls) = &tls.inward else {
                    return Err(ServerError::Tls(format!("{listen} needs tls-cert and tls-key")));
                };
                bind_tcp(at).map(|listener| Listener::Tcp(listener, Some(tls.clone()))).map_err(refused)
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
                let file = SocketFile(path.clone());
                rights.give(path).map_err(refused)?;
                listener.set_nonblocking(true).map_err(refused)?;
                Ok(Listener::Unix(listener, file))
            }
        }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener, _) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }

    pub(super) fn path(&self) -> Option<PathBuf> {
        match self {
            Listener::Tcp(..) => None,
            Listener::Unix(_, file) => Some(file.0.clone()),
        }
    }

    /// The same for the admin pages, which have no TLS, and the socket's file.
    pub(super) fn into_admin(self) -> (admin::Listener, Option<SocketFile>) {
        match self {
            Listener::Tcp(listener, _) => (admin::Listener::Tcp(listener), None),
            Listener::Unix(listener, file) => (admin::Listener::Unix(listener), Some(file)),
        }
    }

    /// Whether TLS comes before all else.
    pub(super) fn is_secure(&self) -> bool {
        matches!(self, Listener::Tcp(_, Some(_)))
    }

    /// Accepts until the task is aborted.
    pub(super) fn accept(self, door: Door, alarm: &Alarm) -> io::Result<JoinHandle<()>> {
        Ok(match self {
            Listener::Tcp(listener, tls) => {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let keepalive = door.keepalive.map(|idle| {
                    // As Redis does: three probes, and the client is gone.
                    TcpKeepalive::new().with_time(idle).with_interval(idle / 3).with_retries(3)
                });
                alarm.spawn("a listener", async move {
                    door.opens().await;
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
                })
            }
            Listener::Unix(listener, file) => {
                let listener = tokio::net::UnixListener::from_std(listener)?;
                alarm.spawn("a listener", async move {
                    let _file = file;
                    door.opens().await;
                    loop {
                        let accept = async || listener.accept().await?.0.into_std();
                        door.admit(accept, Message::UnixClient).await;
                    }
                })
            }
        })
    }
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
}

impl Door {
    /// Waits until it is known to which nodes the first requests are to go.
    async fn opens(&self) {
        self.process.cluster.looked(self.process.settings.upstream.connect_timeout).await;
    }

    /// Accepts one client, and hands it over or refuses it.
    async fn admit<S: io::Read + io::Write + AsRawFd>(
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
        if let Some(worker) = self.workers.iter().min_by_key(|worker| worker.clients()) {
            worker.send_client(message(stream));
        }
    }

    /// As Redis does: one attempt, and whether it arrives is the client's affair.
    fn refuse(&self, mut stream: impl io::Read + io::Write) {
        let metrics = &self.process.metrics;
        metrics.clients_refused.inc();
        if let Some(untold) = metrics.refused_told.now() {
            warn!(clients = metrics.clients.get(), untold, "a client was refused: max-clients, or ulimit -n");
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
