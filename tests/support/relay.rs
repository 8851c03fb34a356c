//! A TCP relay between nearside and its upstream that can cut, stop and swallow.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What is done to the bytes of all connections.
#[derive(Default)]
struct State {
    /// Bytes from the upstream are read and thrown away.
    swallow_replies: AtomicBool,
    /// Bytes to the upstream are read and thrown away.
    swallow_requests: AtomicBool,
    /// Connections are closed as soon as they are accepted.
    refuse: AtomicBool,
    /// Nothing moves, and nothing is lost.
    hold: AtomicBool,
    /// How long each piece is held back in each direction, in microseconds.
    delay: AtomicUsize,
    accepted: AtomicUsize,
    /// Bytes from the upstream are thrown away on the feed's connection, or on all others.
    swallow_on_feed: AtomicBool,
    swallow_on_others: AtomicBool,
    /// A connection that subscribes is closed.
    refuse_feed: AtomicBool,
    feeds: AtomicUsize,
    /// A connection on which this was not said for so long is closed, and how many were.
    close_without: Mutex<Option<(String, Duration)>>,
    closed: AtomicUsize,
    open: Mutex<Vec<Open>>,
    /// Where new connections lead.
    upstream: Mutex<Option<SocketAddr>>,
}

struct Open {
    client: TcpStream,
    server: TcpStream,
    is_feed: Arc<AtomicBool>,
}

/// See the module.
pub struct Relay {
    pub address: SocketAddr,
    state: Arc<State>,
    ended: Arc<AtomicBool>,
}

impl Relay {
    pub fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (state, ended) = (Arc::new(State::default()), Arc::new(AtomicBool::new(false)));
        *state.upstream.lock().unwrap() = Some(upstream);
        let (theirs, stop) = (state.clone(), ended.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                if theirs.refuse.load(Ordering::Relaxed) {
                    continue;
                }
                let upstream = theirs.upstream.lock().unwrap().unwrap();
                let Ok(server) = TcpStream::connect(upstream) else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                theirs.accepted.fetch_add(1, Ordering::Relaxed);
                let is_feed = Arc::new(AtomicBool::new(false));
                pump(&theirs, &client, &server, &is_feed, true);
                pump(&theirs, &server, &client, &is_feed, false);
                theirs.open.lock().unwrap().push(Open { client, server, is_feed });
            }
        });
        Self { address, state, ended }
    }

    /// From now on new connections lead there; those that are open stay where they are.
    pub fn lead_to(&self, upstream: SocketAddr) {
        *self.state.upstream.lock().unwrap() = Some(upstream);
    }

    /// Cuts every connection that is open now.
    pub fn cut(&self) {
        for Open { client, server, .. } in self.state.open.lock().unwrap().drain(..) {
            let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
        }
    }

    /// Cuts every connection on which what the upstream says is swallowed, and swallows no more: a new one that came in between
    /// would be half-open for ever.
    pub fn cut_swallowed(&self) {
        self.refuse(true);
        self.cut();
        self.swallow_replies(false);
        self.refuse(false);
    }

    /// Cuts the connection that has subscribed.
    pub fn cut_feed(&self) {
        for open in self.state.open.lock().unwrap().iter().filter(|o| o.is_feed.load(Ordering::Relaxed)) {
            let _ = (open.client.shutdown(Shutdown::Both), open.server.shutdown(Shutdown::Both));
        }
    }

    /// Whether a connection is closed as soon as it subscribes.
    pub fn refuse_feed(&self, refuse: bool) {
        self.state.refuse_feed.store(refuse, Ordering::Relaxed);
    }

    /// Whether the feed is half-open.
    pub fn swallow_on_feed(&self, swallow: bool) {
        self.state.swallow_on_feed.store(swallow, Ordering::Relaxed);
    }

    /// Whether every connection but the feed's is half-open.
    pub fn swallow_on_others(&self, swallow: bool) {
        self.state.swallow_on_others.store(swallow, Ordering::Relaxed);
    }

    /// How often a connection has tried to subscribe.
    pub fn feeds(&self) -> usize {
        self.state.feeds.load(Ordering::Relaxed)
    }

    /// Whether new connections are refused.
    pub fn refuse(&self, refuse: bool) {
        self.state.refuse.store(refuse, Ordering::Relaxed);
    }

    /// Whether what the upstream says is swallowed: every connection is half-open then.
    pub fn swallow_replies(&self, swallow: bool) {
        self.state.swallow_replies.store(swallow, Ordering::Relaxed);
    }

    pub fn swallow_requests(&self, swallow: bool) {
        self.state.swallow_requests.store(swallow, Ordering::Relaxed);
    }

    /// Whether everything is held back, until it is not any more.
    pub fn hold(&self, hold: bool) {
        self.state.hold.store(hold, Ordering::Relaxed);
    }

    /// Holds each piece back for so long, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.state.delay.store(delay.as_micros() as usize, Ordering::Relaxed);
    }

    /// From now on a connection is closed on which this word was not said for so long.
    pub fn close_without(&self, word: &str, time: Duration) {
        *self.state.close_without.lock().unwrap() = Some((word.to_owned(), time));
    }

    /// How many were closed for that.
    pub fn closed(&self) -> usize {
        self.state.closed.load(Ordering::Relaxed)
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.hold(false);
        self.ended.store(true, Ordering::Relaxed);
        self.cut();
        let _ = TcpStream::connect(self.address);
    }
}

fn pump(state: &Arc<State>, from: &TcpStream, to: &TcpStream, is_feed: &Arc<AtomicBool>, requests: bool) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let (state, is_feed) = (state.clone(), is_feed.clone());
    let set = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
    std::thread::spawn(move || {
        let mut chunk = [0; 65536];
        let mut said = Instant::now();
        let _ = from.set_read_timeout(requests.then_some(Duration::from_millis(20)));
        loop {
            let read = from.read(&mut chunk);
            let rule = state.close_without.lock().unwrap().clone().filter(|_| requests);
            if let Some((word, time)) = rule {
                let begun = read.as_ref().map_or(&[][..], |n| &chunk[..*n]);
                if begun.windows(word.len()).any(|window| window == word.as_bytes()) {
                    said = Instant::now();
                }
                if said.elapsed() > time {
                    state.closed.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
            let n = match read {
                Ok(0) => break,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(_) => break,
                Ok(n) => n,
            };
            let delay = state.delay.load(Ordering::Relaxed);
            if delay > 0 {
                std::thread::sleep(Duration::from_micros(delay as u64));
            }
            while state.hold.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            if requests && chunk[..n].windows(11).any(|window| window == b"SUBSCRIBE\r\n") {
                is_feed.store(true, Ordering::Relaxed);
                state.feeds.fetch_add(1, Ordering::Relaxed);
                if set(&state.refuse_feed) {
                    break;
                }
            }
            let swallow = match (requests, set(&is_feed)) {
                (true, _) => set(&state.swallow_requests),
                (false, true) => set(&state.swallow_replies) || set(&state.swallow_on_feed),
                (false, false) => set(&state.swallow_replies) || set(&state.swallow_on_others),
            };
            if !swallow && to.write_all(&chunk[..n]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}
