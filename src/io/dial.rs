//! Reaching a server by a name that may have several addresses, some of which may be dead.
//!
//! Invariants: an address that swallows what is sent to it holds up the others for [`STAGGER`] only; the one that
//! worked last comes first. So connections lead to one server as long as it is there, whatever order the names come in.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::names::Names;
use super::stream::{Address, Stream};
use super::tls::Connector;

/// After so long another address is tried too, as RFC 8305 has it; or sooner, so that all get their turn in time.
const STAGGER: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried.
const MOST: usize = 16;

/// How long a silent peer is trusted before the kernel probes it, and how long unacknowledged bytes may
/// stay so: a dead host is noticed within a minute even when nothing of ours times out.
const KEEPALIVE: Duration = Duration::from_secs(15);
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// How connections are opened. Clones know the same.
#[derive(Clone, Debug, Default)]
pub struct Dial {
    /// The address that worked last.
    worked: Arc<Mutex<Option<SocketAddr>>>,
    names: Names,
    /// File descriptors from this number on are not for these connections; `None` is all are.
    files: Option<usize>,
    /// How they are secured.
    tls: Option<Arc<Connector>>,
}

impl Dial {
    /// This, with file descriptors below `files` alone, or any.
    pub fn within(self, files: Option<usize>) -> Self {
        Self { files, ..self }
    }

    /// This, with connections by TCP [secured](Self::secure), if they are to be.
    pub fn over(self, tls: Option<Arc<Connector>>) -> Self {
        Self { tls, ..self }
    }

    /// For another address: it knows nothing yet of what worked.
    pub fn another(&self) -> Self {
        Self { worked: Arc::default(), names: self.names.anew(), ..self.clone() }
    }

    /// Whether connections are to be secured.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Makes a connection that was opened to this address secure, if it is to be: the server is the one of that name.
    pub async fn secure(&self, stream: Stream, address: &Address) -> io::Result<Stream> {
        match (&self.tls, stream, address) {
            (Some(tls), Stream::Tcp(stream), Address::Tcp { host, .. }) => {
                Ok(Stream::Tls(Box::new(tls.connect(stream, host).await?)))
            }
            (_, stream, _) => Ok(stream),
        }
    }

    /// Opens a connection, without a handshake; `patience` is how long the caller waits.
    pub async fn open(&self, address: &Address, patience: Duration) -> io::Result<Stream> {
        match address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await?;
                self.check(&stream)?;
                Ok(Stream::Unix(stream))
            }
            Address::Tcp { host, port } => {
                let mut found = self.names.resolve(host, *port).await?;
                found.truncate(MOST);
                let stream = self.first_of(found, patience).await?;
                self.check(&stream)?;
                stream.set_nodelay(true)?;
                let socket = SockRef::from(&stream);
                socket.set_tcp_keepalive(
                    &TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3),
                )?;
                #[cfg(target_os = "linux")]
                socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
                Ok(Stream::Tcp(stream))
            }
        }
    }

    /// Whether the address is a name that leads no more to where the last connection was made. Errors: it does not resolve.
    pub async fn has_moved(&self, address: &Address) -> io::Result<bool> {
        let (Address::Tcp { host, port }, Some(worked)) = (address, *self.worked.lock()) else {
            return Ok(false);
        };
        Ok(!self.names.resolve(host, *port).await?.contains(&worked))
    }

    /// The system gives the lowest free number: one so high says how many are in use.
    fn check(&self, stream: &impl AsRawFd) -> io::Result<()> {
        match self.files.is_some_and(|most| stream.as_raw_fd() as usize >= most) {
            true => Err(io::Error::other("too few file descriptors (ulimit -n)")),
            false => Ok(()),
        }
    }

    /// The first connection that stands, to any of these addresses.
    async fn first_of(&self, mut addresses: Vec<SocketAddr>, patience: Duration) -> io::Result<TcpStream> {
        let worked = *self.worked.lock();
        // A stable sort: the system's order else.
        addresses.sort_by_key(|address| Some(*address) != worked);
        let stagger = STAGGER.min(patience / (addresses.len() as u32 + 1));
        let mut attempts = JoinSet::new();
        let mut left = addresses.into_iter();
        let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
        loop {
            if let Some(address) = left.next() {
                attempts.spawn(async move { (address, TcpStream::connect(address).await) });
            } else if attempts.is_empty() {
                return Err(last);
            }
            let next = match left.len() {
                0 => attempts.join_next().await,
                _ => timeout(stagger, attempts.join_next()).await.ok().flatten(),
            };
            match next {
                Some(Ok((address, Ok(stream)))) => {
                    *self.worked.lock() = Some(address);
                    return Ok(stream);
                }
                Some(Ok((_, Err(error)))) => last = error,
                Some(Err(_)) | None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// An address whose queue is full: it swallows whatever knocks.
    struct Swallows {
        address: SocketAddr,
        _queue: Vec<Socket>,
    }

    fn swallows() -> Swallows {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queue = vec![listener];
        for _ in 0..8 {
            let knock = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            knock.set_nonblocking(true).unwrap();
            let _ = knock.connect(&address.into());
            queue.push(knock);
        }
        Swallows { address, _queue: queue }
    }

    #[tokio::test]
    async fn an_address_that_swallows_everything_does_not_keep_the_next_from_its_turn() {
        let (dead, listener) = (swallows(), TcpListener::bind("127.0.0.1:0").unwrap());
        let alive = listener.local_addr().unwrap();
        let alone = timeout(Duration::from_millis(300), TcpStream::connect(dead.address)).await;
        assert!(alone.is_err(), "it was to swallow: {alone:?}");
        let (dial, patience) = (Dial::default(), Duration::from_secs(2));
        let stream = timeout(patience, dial.first_of(vec![dead.address, dead.address, alive], patience));
        assert_eq!(stream.await.expect("in time").unwrap().peer_addr().unwrap(), alive);
        // The next time it comes first.
        let began = Instant::now();
        let stream = dial.clone().first_of(vec![dead.address, alive], Duration::from_secs(60)).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive);
        assert!(began.elapsed() < STAGGER, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn an_address_that_refuses_costs_no_time_and_one_that_is_lost_is_left() {
        let [gone, second] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let (dial, patience) = (Dial::default(), Duration::from_secs(60));
        let (first, alive) = (gone.local_addr().unwrap(), second.local_addr().unwrap());
        assert_eq!(dial.first_of(vec![first, alive], patience).await.unwrap().peer_addr().unwrap(), first);
        drop(gone);
        let began = Instant::now();
        assert_eq!(dial.first_of(vec![first, alive], patience).await.unwrap().peer_addr().unwrap(), alive);
        assert!(began.elapsed() < STAGGER, "{:?}", began.elapsed());
        drop(second);
        let error = dial.first_of(vec![first, alive], patience).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(dial.first_of(Vec::new(), patience).await.unwrap_err().to_string().contains("no address"));
    }

    #[tokio::test]
    async fn a_name_that_leads_elsewhere_is_noticed_and_followed_by_the_next_connection() {
        static LEADS_TO: Mutex<Vec<SocketAddr>> = Mutex::new(Vec::new());
        let [first, second] =
            [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
        let listeners = [first, second].map(|at| TcpListener::bind(at).unwrap());
        let dial = Dial { names: Names::by(|_, _| Ok(LEADS_TO.lock().clone())), ..Dial::default() };
        let (address, patience) = (Address::Tcp { host: "h".into(), port: 1 }, Duration::from_secs(60));
        assert!(!dial.has_moved(&address).await.unwrap(), "nothing was connected yet");
        let reached = async || match dial.open(&address, patience).await.unwrap() {
            Stream::Tcp(stream) => stream.peer_addr().unwrap(),
            Stream::Unix(_) | Stream::Tls(_) => unreachable!(),
        };
        *LEADS_TO.lock() = vec![first];
        assert_eq!(reached().await, first);
        *LEADS_TO.lock() = vec![second, first];
        assert!(!dial.has_moved(&address).await.unwrap());
        assert_eq!(reached().await, first, "as long as it is there");
        *LEADS_TO.lock() = vec![second];
        assert!(dial.has_moved(&address).await.unwrap());
        assert_eq!(reached().await, second);
        assert!(!dial.has_moved(&address).await.unwrap());
        drop(listeners);
    }

    #[tokio::test]
    async fn beyond_its_file_descriptors_there_is_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        let dial = |files| Dial { files, ..Dial::default() };
        assert!(dial(None).open(&address, STAGGER).await.is_ok());
        assert!(dial(Some(1 << 20)).open(&address, STAGGER).await.is_ok());
        assert!(dial(Some(3)).open(&address, STAGGER).await.is_err_and(|e| e.to_string().contains("ulimit")));
    }
}
