//! Connections to the admin pages.
//!
//! Invariants:
//! - There are at most so many as there is room for: one more takes the place of the one that has asked for nothing for
//!   longest, so silent ones keep no probe waiting.
//! - A client has [`PATIENCE`] to send a request's head, the first and each further one.
//! - Without file descriptors, one that was kept for that is given up, and so is a connection that was idle for [`GRACE`].
//! - A connection whose reply goes on is idle after all others. When its client has taken nothing for [`FORSAKEN`], it ends.

use std::cell::{Cell, OnceCell};
use std::convert::Infallible;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tracing::debug;

use super::answer::{Answer, GoesOn};

/// How long a client may take to send its request, the first and each further one.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a connection is left in peace when there are no file descriptors: a request is answered within that.
const GRACE: Duration = Duration::from_millis(100);

/// By what way a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    Port,
    /// Whoever is here was let in by the rights of the socket's file.
    Socket,
}

/// How long a client may leave untaken a reply that goes on.
const FORSAKEN: Duration = Duration::from_secs(30);

/// Bytes that are kept of what a client has not taken, and of a request's head.
const BUFFER: usize = 16 << 10;

/// A bound port or socket, which does not block.
pub enum Listener {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// The same, in the runtime.
enum Accepting {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Accepting {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        match self {
            Self::Tcp(listener) => listener.poll_accept(cx).map_ok(|(stream, _)| Stream::Tcp(stream)),
            Self::Unix(listener) => listener.poll_accept(cx).map_ok(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

/// A connection.
struct Open {
    /// When it last asked for something, or came.
    asked: Rc<Cell<Instant>>,
    /// Set once it has a reply that goes on.
    goes_on: Rc<OnceCell<GoesOn>>,
    task: JoinHandle<()>,
}

/// See the [module](self).
pub(super) struct Connections {
    listeners: Vec<Accepting>,
    most: usize,
    open: Vec<Open>,
    /// A file descriptor for when there is no other: a probe is answered even then.
    spare: Option<File>,
}

impl Connections {
    pub(super) fn of(listeners: Vec<Listener>, most: usize) -> io::Result<Self> {
        let accepting = listeners.into_iter().map(|listener| match listener {
            Listener::Tcp(listener) => tokio::net::TcpListener::from_std(listener).map(Accepting::Tcp),
            Listener::Unix(listener) => tokio::net::UnixListener::from_std(listener).map(Accepting::Unix),
        });
        let listeners = accepting.collect::<io::Result<_>>()?;
        Ok(Self { listeners, most, open: Vec::new(), spare: File::open("/dev/null").ok() })
    }

    /// Has each request answered, until it is dropped.
    pub(super) async fn serve(
        mut self,
        answer: impl Fn(Arrival, Request<Incoming>) -> Answer + Clone + 'static,
    ) {
        loop {
            let stream = match poll_fn(|cx| self.poll_accept(cx)).await {
                Ok(stream) => stream,
                Err(error) => {
                    debug!(%error, "the admin port cannot accept");
                    self.make_room().await;
                    continue;
                }
            };
            self.spare = self.spare.take().or_else(|| File::open("/dev/null").ok());
            self.open.retain(|open| !open.task.is_finished());
            if self.open.len() >= self.most {
                self.close_idle(Duration::ZERO).await;
            }
            self.open.push(match stream {
                Stream::Tcp(stream) => talk(stream, Arrival::Port, answer.clone()),
                Stream::Unix(stream) => talk(stream, Arrival::Socket, answer.clone()),
            });
        }
    }

    /// Whoever comes, at the listener that was not served last if at several.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let found = self.listeners.iter().enumerate().find_map(|(i, listener)| match listener.poll(cx) {
            Poll::Ready(accepted) => Some((i, accepted)),
            Poll::Pending => None,
        });
        let Some((i, accepted)) = found else { return Poll::Pending };
        self.listeners[i..].rotate_left(1);
        Poll::Ready(accepted)
    }

    /// Without a descriptor Linux says so even if nobody is there to be accepted: whoever was accepted last is answered
    /// first.
    async fn make_room(&mut self) {
        if self.spare.take().is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.spare = File::open("/dev/null").ok();
        if self.spare.is_none() {
            self.close_idle(GRACE).await;
        }
    }

    /// Closes the connection that has asked for nothing for longest, if that is as long as `least`. One whose reply goes on
    /// needs not ask.
    async fn close_idle(&mut self, least: Duration) {
        let idle = self.open.iter().enumerate().filter(|(_, open)| open.asked.get().elapsed() >= least);
        let longest = idle.min_by_key(|(_, open)| (open.goes_on.get().is_some(), open.asked.get()));
        if let Some((i, _)) = longest {
            let Open { task, .. } = self.open.swap_remove(i);
            task.abort();
            let _ = task.await;
        }
    }
}

/// Answers the requests of one connection.
fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    arrival: Arrival,
    answer: impl Fn(Arrival, Request<Incoming>) -> Answer + 'static,
) -> Open {
    let asked = Rc::new(Cell::new(Instant::now()));
    let goes_on = Rc::new(OnceCell::new());
    let (last, lasting, watched) = (asked.clone(), goes_on.clone(), goes_on.clone());
    let pages = service_fn(move |request| {
        last.set(Instant::now());
        let (response, lasting) = (answer(arrival, request), lasting.clone());
        async move {
            let response = response.await;
            let _ = response.extensions().get().map(|goes_on: &GoesOn| lasting.set(goes_on.clone()));
            Ok::<_, Infallible>(response)
        }
    });
    let task = tokio::task::spawn_local(async move {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(BUFFER);
        tokio::select! {
            ended = http.serve_connection(TokioIo::new(stream), pages) => {
                if let Err(error) = ended {
                    debug!(%error, "an admin connection ended");
                }
            }
            () = forsaken(&watched) => debug!("closed: nobody takes what an admin connection is told"),
        }
    });
    Open { asked, goes_on, task }
}

/// Ends when a reply that goes on was not taken for too long.
async fn forsaken(goes_on: &OnceCell<GoesOn>) {
    loop {
        tokio::time::sleep(PATIENCE).await;
        if goes_on.get().is_some_and(|goes_on| goes_on.taken.lock().elapsed() >= FORSAKEN) {
            return;
        }
    }
}
