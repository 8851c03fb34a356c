//! Listeners, and how clients come from them to the least loaded worker.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::ServerError;
use crate::config::{HostPort, Listen};
use crate::session::{Inbox, MAX_CLIENTS, Message, Shared, error_line};

const BACKLOG: i32 = 1024;

/// How long accepting pauses when the process is out of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// File descriptors beyond the clients': upstream links, listeners, log.
const SPARE_FILES: u64 = 256;

/// Asks the system for as many file descriptors as the clients may need; says if there are fewer.
pub(super) fn raise_file_limit(max_clients: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = max_clients as u64 + SPARE_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|now| now >= wanted) {
        return;
    }
    let granted = limit.maximum.map_or(wanted, |most| most.min(wanted));
    let raised = Rlimit { current: Some(granted), maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_err() || granted < wanted {
        let have = getrlimit(Resource::Nofile).current.unwrap_or(granted);
        warn!(have, wanted, "fewer file descriptors than max-clients needs: raise the limit (ulimit -n)");
    }
}

/// A bound port or socket.
pub(super) enum Listener {
    Tcp(TcpListener),
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
            Listener::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("a TCP port"),
            },
            Listener::Unix(_, file) => write!(f, "unix:{}", file.0.display()),
        }
    }
}

/// Binds the first of the host's addresses that can be bound.
pub(super) fn bind_tcp(at: &HostPort) -> io::Result<TcpListener> {
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
    pub(super) fn bind(listen: &Listen) -> Result<Self, ServerError> {
        let refused = |cause| ServerError::Listen { at: listen.to_string(), cause };
        match listen {
            Listen::Tcp(at) => bind_tcp(at).map(Listener::Tcp).map_err(refused),
            Listen::Unix(path) => {
                // A socket that nobody answers on was left by a process that was killed. Any other file is
                // not ours, and it refuses a connection as well.
                let is_socket = path.metadata().is_ok_and(|metadata| metadata.file_type().is_socket());
                let is_left =
                    || UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
                if is_socket && is_left() {
                    std::fs::remove_file(path).map_err(refused)?;
                }
                let listener = UnixListener::bind(path).map_err(refused)?;
                listener.set_nonblocking(true).map_err(refused)?;
                Ok(Listener::Unix(listener, SocketFile(path.clone())))
            }
        }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }

    pub(super) fn path(&self) -> Option<PathBuf> {
        match self {
            Listener::Tcp(_) => None,
            Listener::Unix(_, file) => Some(file.0.clone()),
        }
    }

    /// Accepts until the task is aborted.
    pub(super) fn accept(
        self,
        shared: Arc<Shared>,
        workers: Vec<Arc<Inbox>>,
        max_clients: usize,
    ) -> io::Result<JoinHandle<()>> {
        let door = Door { shared, workers, max_clients };
        Ok(match self {
            Listener::Tcp(listener) => {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tokio::task::spawn_local(async move {
                    loop {
                        let accepted = listener.accept().await;
                        let stream = accepted.and_then(|(stream, _)| {
                            stream.set_nodelay(true)?;
                            stream.into_std()
                        });
                        door.admit(stream, Message::Client).await;
                    }
                })
            }
            Listener::Unix(listener, file) => {
                let listener = tokio::net::UnixListener::from_std(listener)?;
                tokio::task::spawn_local(async move {
                    let _file = file;
                    loop {
                        let stream = listener.accept().await.and_then(|(stream, _)| stream.into_std());
                        door.admit(stream, Message::UnixClient).await;
                    }
                })
            }
        })
    }
}

struct Door {
    shared: Arc<Shared>,
    workers: Vec<Arc<Inbox>>,
    max_clients: usize,
}

impl Door {
    async fn admit<S: io::Write>(&self, stream: io::Result<S>, message: impl FnOnce(S) -> Message) {
        let metrics = &self.shared.metrics;
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(error) if matches!(error.raw_os_error(), Some(23 | 24)) => {
                warn!(%error, "cannot accept a client: raise the limit of file descriptors (ulimit -n)");
                return tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return debug!(%error, "a client left before it was accepted"),
        };
        if metrics.clients.get() as usize >= self.max_clients {
            metrics.clients_refused.inc();
            debug!(max = self.max_clients, "a client was refused: max-clients");
            // As Redis does: one attempt, and whether it arrives is the client's affair.
            let _ = stream.write(&error_line(MAX_CLIENTS));
            return;
        }
        metrics.clients.inc();
        metrics.clients_accepted.inc();
        if let Some(worker) = self.workers.iter().min_by_key(|worker| worker.clients()) {
            worker.send_client(message(stream));
        }
    }
}
