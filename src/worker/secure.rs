//! TLS with a client, before its session begins.
//!
//! Invariants: until it is agreed upon, the client counts as one, has no session, and is waited for no longer than
//! [`LONGEST`]. Whatever it does then, it holds up nobody; see [`handshakes`](super::handshakes).

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::state::Worker;
use crate::io::{Failure, Handshake, Stream};

/// How long a client may take. Two round trips are enough, and its own patience ends after as much.
const LONGEST: Duration = Duration::from_secs(5);

impl Worker {
    /// Agrees on TLS with a client, and lets its session begin.
    pub(super) fn secure(
        self: &Rc<Self>,
        stream: std::net::TcpStream,
        handshake: Handshake,
        gone: &Rc<Notify>,
    ) {
        let waiting = Waiting { worker: self.clone(), gone: gone.clone(), stays: false };
        tokio::task::spawn_local(waiting.agree(stream, handshake));
    }

    fn handshake_failed(&self, peer: io::Result<std::net::SocketAddr>, failure: Failure, words: &str) {
        let metrics = &self.process.metrics;
        metrics.handshakes_failed[failure as usize].inc();
        if let Some(untold) = metrics.handshakes_told[failure as usize].now() {
            let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
            warn!(peer, untold, "closed: a client's TLS handshake came to nothing: {words}");
        }
    }
}

/// A client that is no session yet.
struct Waiting {
    worker: Rc<Worker>,
    gone: Rc<Notify>,
    /// It has become one.
    stays: bool,
}

impl Waiting {
    async fn agree(mut self, stream: std::net::TcpStream, handshake: Handshake) {
        let worker = self.worker.clone();
        let peer = stream.peer_addr();
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => return worker.tell_unusable(&error),
        };
        let place = worker.handshakes.begin();
        let agreed = tokio::time::timeout(LONGEST, place.run(handshake.run(stream))).await;
        drop(place);
        match agreed {
            Ok(Some(Ok(stream))) => {
                worker.process.metrics.handshakes.inc();
                self.stays = true;
                worker.accept(Ok(Stream::Tls(Box::new(stream))), &self.gone);
            }
            // A probe, or a port scan.
            Ok(Some(Err(None))) => debug!("a client left without a word"),
            Ok(Some(Err(Some((failure, words))))) => worker.handshake_failed(peer, failure, &words),
            Ok(None) => worker.handshake_failed(peer, Failure::Slow, "too many others began after it"),
            Err(_) => {
                worker.handshake_failed(peer, Failure::Slow, &format!("it was not done within {LONGEST:?}"))
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.stays {
            self.worker.outbound.inbox.client_left(&self.worker.process.metrics);
            self.gone.notify_one();
        }
    }
}
