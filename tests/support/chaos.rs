//! A TCP relay that hurts connections one by one: delay, reset, half-close, swallow, cut after some bytes.
//!
//! What is swallowed is never followed by what came later: TCP has no holes, so such a connection stays
//! half-open until it is reset.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;

/// What nearside uses a connection for, as its requests show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    Unknown,
    Feed,
    /// Tracked: cached reads are filled over it.
    Data,
}

/// How often a pump looks whether its connection is to be dropped.
const LOOK: Duration = Duration::from_millis(20);

/// One connection, both ways.
pub struct Pair {
    client: TcpStream,
    server: TcpStream,
    /// Where it leads.
    pub target: SocketAddr,
    role: AtomicU8,
    swallow: [AtomicBool; 2],
    /// The longest that a piece is held back, in microseconds.
    delay: [AtomicU64; 2],
    /// Bytes that may still pass.
    left: AtomicI64,
    dropped: AtomicBool,
}

/// To the upstream, or from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Way {
    Up,
    Down,
}

pub const BOTH: [Way; 2] = [Way::Up, Way::Down];

impl Pair {
    pub fn role(&self) -> Role {
        match self.role.load(Relaxed) {
            1 => Role::Feed,
            2 => Role::Data,
            _ => Role::Unknown,
        }
    }

    /// Resets both sides.
    pub fn reset(&self) {
        for stream in [&self.client, &self.server] {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        self.dropped.store(true, Relaxed);
    }

    /// Closes one way as if its sender had: what is on the way still arrives.
    pub fn half_close(&self, way: Way) {
        let to = if way == Way::Up { &self.server } else { &self.client };
        let _ = to.shutdown(Shutdown::Write);
    }

    /// From now on nothing passes this way, and nobody is told.
    pub fn swallow(&self, way: Way) {
        self.swallow[way as usize].store(true, Relaxed);
    }

    pub fn delay(&self, way: Way, longest: Duration) {
        self.delay[way as usize].store(longest.as_micros() as u64, Relaxed);
    }

    /// Resets it when so many more bytes have passed.
    pub fn cut_after(&self, bytes: usize) {
        self.left.store(bytes as i64, Relaxed);
    }

    fn see(&self, requests: &[u8]) {
        let has = |word: &[u8]| requests.windows(word.len()).any(|window| window == word);
        if has(b"COMMAND\r\n") || has(b"SUBSCRIBE\r\n") {
            self.role.store(Role::Feed as u8, Relaxed);
        } else if self.role() == Role::Unknown && has(b"TRACKING\r\n") {
            self.role.store(Role::Data as u8, Relaxed);
        }
    }

    fn pump(&self, way: Way) {
        let (mut from, mut to) = match way {
            Way::Up => (&self.client, &self.server),
            Way::Down => (&self.server, &self.client),
        };
        let mut chunk = [0; 16384];
        // Hardly random, and enough.
        let mut turn: u64 = 0;
        while !self.dropped.load(Relaxed) {
            let n = match from.read(&mut chunk) {
                Ok(0) => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(n) => n,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(_) => return self.reset(),
            };
            if way == Way::Up && self.role() != Role::Feed {
                self.see(&chunk[..n]);
            }
            let delay = self.delay[way as usize].load(Relaxed);
            if delay > 0 {
                turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(n as u64 | 1);
                std::thread::sleep(Duration::from_micros((turn >> 33) % delay));
            }
            if self.swallow[way as usize].load(Relaxed) {
                continue;
            }
            let left = self.left.fetch_sub(n as i64, Relaxed);
            let passing = n.min(left.max(0) as usize);
            if self.write(&mut to, &chunk[..passing]).is_err() || passing < n {
                return self.reset();
            }
        }
    }

    /// A peer that does not read must not keep the connection from being dropped.
    fn write(&self, to: &mut &TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            match to.write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if self.dropped.load(Relaxed) {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

struct State {
    target: Mutex<SocketAddr>,
    refuse: AtomicBool,
    ended: AtomicBool,
    /// What new connections begin with.
    delay: AtomicU64,
    accepted: AtomicU64,
    open: Mutex<Vec<Arc<Pair>>>,
}

/// See the module.
pub struct Chaos {
    pub address: SocketAddr,
    state: Arc<State>,
}

impl Chaos {
    pub fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            target: Mutex::new(upstream),
            refuse: AtomicBool::default(),
            ended: AtomicBool::default(),
            delay: AtomicU64::default(),
            accepted: AtomicU64::default(),
            open: Mutex::default(),
        });
        let theirs = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if theirs.ended.load(Relaxed) {
                    return;
                }
                theirs.accepted.fetch_add(1, Relaxed);
                if !theirs.refuse.load(Relaxed) {
                    theirs.connect(client);
                }
            }
        });
        Self { address, state }
    }

    /// Where new connections go. Those that are open stay where they are.
    pub fn target(&self, upstream: SocketAddr) {
        *self.state.target.lock().unwrap() = upstream;
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refuse: bool) {
        self.state.refuse.store(refuse, Relaxed);
    }

    /// Holds pieces of all connections back for up to so long, those to come included.
    pub fn delay(&self, longest: Duration) {
        self.state.delay.store(longest.as_micros() as u64, Relaxed);
        for pair in self.pairs() {
            BOTH.into_iter().for_each(|way| pair.delay(way, longest));
        }
    }

    /// How many connections there have been, refused ones included.
    pub fn accepted(&self) -> u64 {
        self.state.accepted.load(Relaxed)
    }

    /// The connections that are open now.
    pub fn pairs(&self) -> Vec<Arc<Pair>> {
        let mut open = self.state.open.lock().unwrap();
        open.retain(|pair| !pair.dropped.load(Relaxed));
        open.clone()
    }

    pub fn of(&self, role: Role) -> Vec<Arc<Pair>> {
        self.pairs().into_iter().filter(|pair| pair.role() == role).collect()
    }

    pub fn reset_all(&self) {
        self.pairs().iter().for_each(|pair| pair.reset());
    }
}

impl State {
    fn connect(self: &Arc<Self>, client: TcpStream) {
        let target = *self.target.lock().unwrap();
        let Ok(server) = TcpStream::connect(target) else { return };
        for stream in [&client, &server] {
            let _ = stream.set_nodelay(true);
            let _ = stream.set_read_timeout(Some(LOOK));
            let _ = stream.set_write_timeout(Some(LOOK));
        }
        let delay = self.delay.load(Relaxed);
        let pair = Arc::new(Pair {
            client,
            server,
            target,
            role: AtomicU8::default(),
            swallow: Default::default(),
            delay: [delay.into(), delay.into()],
            left: i64::MAX.into(),
            dropped: AtomicBool::default(),
        });
        self.open.lock().unwrap().push(pair.clone());
        for way in BOTH {
            let (state, pair) = (self.clone(), pair.clone());
            std::thread::spawn(move || {
                pair.pump(way);
                // Both ways closed in order.
                if Arc::strong_count(&pair) <= 2 {
                    pair.dropped.store(true, Relaxed);
                }
                // The sockets are closed with the last who holds them.
                state.open.lock().unwrap().retain(|pair| !pair.dropped.load(Relaxed));
            });
        }
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.state.ended.store(true, Relaxed);
        self.reset_all();
        let _ = TcpStream::connect(self.address);
    }
}
