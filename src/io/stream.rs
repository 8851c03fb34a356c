//! Addresses, and the stream to one of them.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::tls::Secure;

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

/// A stream to the upstream or to a client.
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<Secure>),
}

/// Between which two ends a client's stream is, as Redis would write it.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    pub peer: String,
    pub local: String,
    pub unix: bool,
    pub fd: i32,
}

macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
            Stream::Tls($stream) => {
                let $stream = &mut **$stream;
                $call
            }
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

impl Stream {
    /// Whether there may be something to read; if not, `cx` is woken when there may be.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(stream) => stream.poll_read_ready(cx),
            Stream::Unix(stream) => stream.poll_read_ready(cx),
            Stream::Tls(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Both ends of a stream that was accepted.
    pub fn ends(&self) -> Ends {
        match self {
            Stream::Tcp(stream) => of_tcp(stream),
            Stream::Tls(stream) => of_tcp(stream.socket()),
            Stream::Unix(stream) => {
                let address = stream.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                let both = format!("{}:0", path.unwrap_or(Path::new("")).display());
                Ends { peer: both.clone(), local: both, unix: true, fd: stream.as_raw_fd() }
            }
        }
    }

    /// Sends what the system takes at once, whether or not it has said that it would.
    pub fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => SockRef::from(stream).send(bytes),
            Stream::Unix(stream) => SockRef::from(stream).send(bytes),
            // Only as records, and these wait behind others: see `push_now`.
            Stream::Tls(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Sends what the system takes at once of what was written before and waits in the stream, as it may with TLS; says
    /// whether it took anything.
    pub fn push_now(&mut self) -> bool {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => false,
            Stream::Tls(stream) => stream.push_now(),
        }
    }

    /// Whether the other side is known to have closed it, and all that it had said before was read: by the system, which
    /// may know more than it has told yet. If there is something to read that the system will not tell of, `cx` is woken.
    /// Errors: TLS has failed.
    pub fn has_ended(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = match self {
            Stream::Tcp(stream) => SockRef::from(&*stream).peek(&mut byte),
            Stream::Unix(stream) => SockRef::from(&*stream).peek(&mut byte),
            Stream::Tls(stream) => return stream.has_ended(cx),
        };
        Ok(match peeked {
            Ok(n) => n == 0,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        })
    }

    /// The near end's address, of a TCP connection.
    pub fn local_address(&self) -> Option<String> {
        match self {
            Stream::Tcp(stream) => stream.local_addr().ok().map(|address| address.to_string()),
            Stream::Tls(stream) => stream.socket().local_addr().ok().map(|address| address.to_string()),
            Stream::Unix(_) => None,
        }
    }
}

fn of_tcp(stream: &TcpStream) -> Ends {
    let text = |address: io::Result<SocketAddr>| address.map(|a| a.to_string()).unwrap_or_default();
    let (peer, local) = (text(stream.peer_addr()), text(stream.local_addr()));
    Ends { peer, local, unix: false, fd: stream.as_raw_fd() }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    fn ended(stream: &mut Stream) -> bool {
        stream.has_ended(&mut Context::from_waker(std::task::Waker::noop())).unwrap()
    }

    #[tokio::test]
    async fn the_end_is_known_before_the_runtime_has_told_and_behind_what_was_said() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut near = Stream::Unix(near);
        assert!(!ended(&mut near));
        far.write_all(b"x").await.unwrap();
        drop(far);
        assert!(!ended(&mut near), "there is something to read");
        assert_eq!(near.read_u8().await.unwrap(), b'x');
        assert!(ended(&mut near));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut near = Stream::Tcp(near);
        let far = listener.accept().unwrap().0;
        assert!(!ended(&mut near));
        SockRef::from(&far).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(far);
        assert!(ended(&mut near), "a reset is an end");
    }
}
