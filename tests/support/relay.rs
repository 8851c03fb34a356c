//! A TCP relay between nearside and its upstream that can cut, stop and swallow.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is done to the bytes of all connections.
#[derive(Default)]
struct State {
    /// Bytes from the upstream are read and thrown away.
    swallow_replies: AtomicBool,
    /// Bytes to the upstream are read and thrown away.
    swallow_requests: AtomicBool,
    /// Connections are closed as soon as they are accepted.
    refuse: AtomicBool,
    /// How long each piece is held back in each direction, in microseconds.
    delay: AtomicUsize,
    accepted: AtomicUsize,
    open: Mutex<Vec<(TcpStream, TcpStream)>>,
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
        let (theirs, stop) = (state.clone(), ended.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                if theirs.refuse.load(Ordering::Relaxed) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(upstream) else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                theirs.accepted.fetch_add(1, Ordering::Relaxed);
                pump(&theirs, &client, &server, |state| &state.swallow_requests);
                pump(&theirs, &server, &client, |state| &state.swallow_replies);
                theirs.open.lock().unwrap().push((client, server));
            }
        });
        Self { address, state, ended }
    }

    /// Cuts every connection that is open now.
    pub fn cut(&self) {
        for (client, server) in self.state.open.lock().unwrap().drain(..) {
            let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
        }
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

    /// Holds each piece back for so long, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.state.delay.store(delay.as_micros() as usize, Ordering::Relaxed);
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.cut();
        let _ = TcpStream::connect(self.address);
    }
}

fn pump(state: &Arc<State>, from: &TcpStream, to: &TcpStream, swallow: fn(&State) -> &AtomicBool) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let state = state.clone();
    std::thread::spawn(move || {
        let mut chunk = [0; 65536];
        loop {
            let n = match from.read(&mut chunk) {
                Ok(0) | Err(_) => break,
                Ok(n) => n,
            };
            let delay = state.delay.load(Ordering::Relaxed);
            if delay > 0 {
                std::thread::sleep(Duration::from_micros(delay as u64));
            }
            if !swallow(&state).load(Ordering::Relaxed) && to.write_all(&chunk[..n]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}
