//! A secure stream.
//!
//! Invariants: what was written may wait here as ciphertext until it is flushed, so whoever writes flushes before it waits
//! for anything else; and what was read from the socket may wait here as plaintext, so whether there is something to read
//! is asked of [`poll_read_ready`](Secure::poll_read_ready), not of the socket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsStream, client, server};

use super::words;

/// See the [module](self).
pub struct Secure {
    stream: TlsStream<TcpStream>,
    upstream: Option<Upstream>,
}

/// What is known of the other side if it is the upstream.
struct Upstream {
    name: String,
    /// It has asked for a certificate of ours, got none, and has said nothing since.
    wants_certificate: bool,
}

impl Secure {
    pub(super) fn of_upstream(
        stream: client::TlsStream<TcpStream>,
        name: String,
        wants_certificate: bool,
    ) -> Self {
        Self { stream: stream.into(), upstream: Some(Upstream { name, wants_certificate }) }
    }

    pub(super) fn of_client(stream: server::TlsStream<TcpStream>) -> Self {
        Self { stream: stream.into(), upstream: None }
    }

    /// The connection below.
    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref().0
    }

    /// Whether there may be something to read; if not, `cx` is woken when there may be.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (socket, session) = self.stream.get_ref();
        match session.wants_read() {
            true => socket.poll_read_ready(cx),
            // There is plaintext, or the end.
            false => Poll::Ready(Ok(())),
        }
    }

    /// Gives the system what it takes at once of what waits here, whether or not it has said that it would. Says whether
    /// that was anything.
    pub fn push_now(&mut self) -> bool {
        let written = match &mut self.stream {
            TlsStream::Client(stream) => {
                let (socket, session) = stream.get_mut();
                session.write_tls(&mut &*SockRef::from(&*socket))
            }
            TlsStream::Server(stream) => {
                let (socket, session) = stream.get_mut();
                session.write_tls(&mut &*SockRef::from(&*socket))
            }
        };
        written.is_ok_and(|n| n > 0)
    }

    /// An end without a goodbye is an end: what came before it was whole, and a request that was cut is not carried out.
    #[cold]
    fn ended(&self, error: io::Error) -> io::Result<()> {
        let silent = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        );
        match &self.upstream {
            Some(Upstream { wants_certificate: true, .. }) if silent => {
                Err(io::Error::new(error.kind(), words::asked_for_certificate()))
            }
            _ if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Some(Upstream { name, .. }) => Err(words::of_upstream(error, name)),
            None => Err(error),
        }
    }
}

impl AsyncRead for Secure {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf)) {
            Ok(()) => {
                if let Some(upstream) = &mut self.upstream {
                    upstream.wants_certificate &= buf.filled().len() == before;
                }
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(self.ended(error)),
        }
    }
}

impl AsyncWrite for Secure {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Says goodbye and closes our side. Like a plain one it waits for nobody: what the system does not take at once, the
    /// goodbye included, is not said to one who takes nothing.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Pending => match &mut self.stream {
                TlsStream::Client(stream) => Pin::new(stream.get_mut().0).poll_shutdown(cx),
                TlsStream::Server(stream) => Pin::new(stream.get_mut().0).poll_shutdown(cx),
            },
            ready => ready,
        }
    }
}
