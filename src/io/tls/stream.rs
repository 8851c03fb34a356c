//! A secure stream.
//!
//! Invariants:
//! - What was written may wait here as ciphertext until it is flushed, so whoever writes flushes before it waits for anything
//!   else. Whatever the system was given counts as written, also if the rest fails then: what does not may be sent again on
//!   another connection.
//! - What was read from the socket may wait here as plaintext, so whether there is something to read is asked of
//!   [`poll_read_ready`](Secure::poll_read_ready), not of the socket.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls::ConnectionCommon;
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

    /// Whether the other side is known to have closed it, and all that it had said before was read. Takes what the system has,
    /// whether or not that was told: a goodbye stands before the end of the socket. If there is something to read now, `cx`
    /// is woken, for the socket may never show it again. Errors: the connection is of no use.
    pub fn has_ended(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let taken = match &mut self.stream {
            TlsStream::Client(stream) => {
                let (socket, session) = stream.get_mut();
                take(socket, session)
            }
            TlsStream::Server(stream) => {
                let (socket, session) = stream.get_mut();
                take(socket, session)
            }
        };
        match taken {
            Ok(Taken::Nothing) => Ok(false),
            Ok(Taken::Plaintext) => {
                cx.waker().wake_by_ref();
                Ok(false)
            }
            Ok(Taken::End) => Ok(true),
            Err(error) => self.ended(error).map(|()| true),
        }
    }

    /// Takes what `write` writes, as far as there is room, when all that was taken before is passed on; nothing of it goes to
    /// the system yet. So an error is one of what was taken before: were both done at once, the system could have some of
    /// what is then said to have failed as a whole.
    fn poll_take(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        write: impl FnOnce(&mut dyn Write) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        Poll::Ready(match &mut self.stream {
            TlsStream::Client(stream) => write(&mut stream.get_mut().1.writer()),
            TlsStream::Server(stream) => write(&mut stream.get_mut().1.writer()),
        })
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

/// What the system had.
enum Taken {
    Nothing,
    Plaintext,
    End,
}

/// Takes what the system has of a session's, until there is plaintext.
fn take<T>(socket: &TcpStream, session: &mut ConnectionCommon<T>) -> io::Result<Taken> {
    loop {
        let state = session
            .process_new_packets()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        match state {
            state if state.plaintext_bytes_to_read() > 0 => return Ok(Taken::Plaintext),
            state if state.peer_has_closed() => return Ok(Taken::End),
            _ if !session.wants_read() => return Ok(Taken::Nothing),
            _ => {}
        }
        match session.read_tls(&mut &*SockRef::from(socket)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => return Ok(Taken::Nothing),
                _ => return Err(error),
            },
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
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_take(cx, |writer| writer.write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_take(cx, |writer| writer.write_vectored(bufs))
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use bytes::Bytes;
    use socket2::{Domain, Socket, Type};
    use tokio::io::AsyncReadExt;
    use tokio::time::timeout;

    use super::super::{Acceptor, Connector, Inward, Outward};
    use super::*;
    use crate::io::Outgoing;

    /// Both ends of a connection whose sockets hold little: a server's, and the client's.
    async fn pair() -> (Secure, Secure) {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let path = |name: &str| Path::new(folder.path()).join(name);
        std::fs::write(path("crt"), made.cert.pem()).unwrap();
        std::fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
        let inward = Inward { cert: path("crt"), key: path("key"), client_ca: None };
        let (acceptor, _) = Acceptor::new(inward).unwrap();
        let (connector, _) = Connector::new(Outward { ca: Some(path("crt")), ..Outward::default() }).unwrap();
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.set_send_buffer_size(4096).unwrap();
        listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.set_recv_buffer_size(4096).unwrap();
        client.connect(&address).unwrap();
        let (server, _) = listener.accept().unwrap();
        let tokio = |socket: Socket| {
            socket.set_nonblocking(true).unwrap();
            TcpStream::from_std(socket.into()).unwrap()
        };
        let (server, client) = tokio::join!(
            acceptor.handshake().run(tokio(server)),
            connector.connect(tokio(client), "127.0.0.1")
        );
        (server.unwrap_or_else(|_| panic!("a handshake")), client.unwrap())
    }

    #[tokio::test]
    async fn what_was_written_arrives_though_nothing_more_is_written_or_read() {
        let (mut server, mut client) = pair().await;
        for size in (1..120).map(|i| i * 1777) {
            let (mut out, mut written) = (Outgoing::default(), 0);
            match size % 2 {
                0 => out.append(Bytes::from(vec![7; size])),
                _ => out.copy(&vec![7; size]),
            }
            let mut came = vec![0; size];
            let read = async {
                // What fills the socket first.
                tokio::time::sleep(Duration::from_millis(1)).await;
                timeout(Duration::from_secs(5), client.read_exact(&mut came))
                    .await
                    .expect("all comes")
                    .unwrap();
            };
            let write = poll_fn(|cx| out.poll_write(&mut server, cx, &mut written));
            let (sent, ()) = tokio::join!(write, read);
            sent.unwrap();
            assert!(came.iter().all(|byte| *byte == 7) && out.is_flushed() && written == size as u64);
        }
    }

    /// What is lost with a connection may be sent on another only if the system has taken nothing of it on this one.
    #[tokio::test]
    async fn what_the_system_has_taken_counts_as_written_though_the_rest_fails() {
        let (server, mut client) = pair().await;
        // The system takes the first piece, and learns by it that nobody is there.
        drop(server);
        let (mut out, mut written) = (Outgoing::default(), 0);
        out.copy(&vec![7; 1 << 20]);
        let write = poll_fn(|cx| out.poll_write(&mut client, cx, &mut written));
        timeout(Duration::from_secs(5), write).await.expect("at once").unwrap_err();
        assert!(written > 0 && written + out.len() as u64 == 1 << 20, "{written}");
    }

    #[tokio::test]
    async fn plaintext_that_waits_is_something_to_read_though_the_socket_is_empty() {
        let (mut server, mut client) = pair().await;
        let (mut out, mut written) = (Outgoing::default(), 0);
        out.copy(&[7; 1000]);
        poll_fn(|cx| out.poll_write(&mut server, cx, &mut written)).await.unwrap();
        let mut part = [0; 400];
        client.read_exact(&mut part).await.unwrap();
        // The system has no more of it: a poll of the socket alone would wait for ever.
        let ready = poll_fn(|cx| client.poll_read_ready(cx));
        timeout(Duration::from_secs(5), ready).await.expect("there is plaintext").unwrap();
        let mut rest = [0; 600];
        client.read_exact(&mut rest).await.unwrap();
        let nothing = poll_fn(|cx| Pin::new(&mut client).poll_read(cx, &mut ReadBuf::new(&mut part)));
        assert!(timeout(Duration::from_millis(20), nothing).await.is_err());
    }

    #[tokio::test]
    async fn a_goodbye_is_an_end_before_the_runtime_has_told_and_behind_what_was_said() {
        let (mut server, mut client) = pair().await;
        let woken = std::sync::Arc::new(Woken::default());
        let waker = std::task::Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let (mut out, mut written) = (Outgoing::default(), 0);
        assert!(!client.has_ended(&mut cx).unwrap() && !woken.0.load(Ordering::Relaxed));
        out.copy(b"x");
        poll_fn(|cx| out.poll_write(&mut server, cx, &mut written)).await.unwrap();
        poll_fn(|cx| Pin::new(&mut server).poll_shutdown(cx)).await.unwrap();
        let taken = async {
            while !woken.0.load(Ordering::Relaxed) {
                assert!(!client.has_ended(&mut cx).unwrap(), "there is something to read");
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(5), taken).await.expect("the socket does not show it any more");
        let mut one = [0];
        timeout(Duration::from_secs(5), client.read_exact(&mut one)).await.expect("at once").unwrap();
        assert_eq!(&one, b"x");
        assert!(ends(&mut client).await);
        // Nobody reads: whoever looks at the socket alone sees the goodbye, and not the end behind it.
        let (mut server, mut client) = pair().await;
        poll_fn(|cx| Pin::new(&mut server).poll_shutdown(cx)).await.unwrap();
        assert!(ends(&mut client).await);
        let (server, mut client) = pair().await;
        SockRef::from(server.socket()).shutdown(std::net::Shutdown::Write).unwrap();
        assert!(ends(&mut client).await, "an end without a goodbye is one, too");
    }

    /// Whether its end is seen soon.
    async fn ends(stream: &mut Secure) -> bool {
        let ended = async {
            while !stream.has_ended(&mut Context::from_waker(std::task::Waker::noop())).unwrap() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(5), ended).await.is_ok()
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn one_that_takes_nothing_is_not_waited_for_and_what_it_takes_shows() {
        let (mut server, client) = pair().await;
        let (mut out, mut written) = (Outgoing::default(), 0);
        out.copy(&vec![7; 1 << 20]);
        let write = poll_fn(|cx| out.poll_write(&mut server, cx, &mut written));
        assert!(timeout(Duration::from_millis(50), write).await.is_err());
        // It may be only that the socket was not known to be free again.
        while server.push_now() {}
        assert!(!server.push_now());
        // Below TLS, for the sockets hold less than a record.
        let take = async {
            while !server.push_now() {
                client.socket().readable().await.unwrap();
                let _ = client.socket().try_read(&mut [0; 4096]);
            }
        };
        timeout(Duration::from_secs(5), take).await.expect("something was taken");
        let goodbye = poll_fn(|cx| Pin::new(&mut server).poll_shutdown(cx));
        timeout(Duration::from_secs(5), goodbye).await.expect("at once").unwrap();
    }
}
