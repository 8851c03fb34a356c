//! What is said to a worker from outside its thread, and where it is left.
//!
//! Invariants: a worker's inbox holds at most as many messages as it has open requests and clients. Whoever leaves one never
//! waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::cache::{Lease, LinkId, Waiter, Wanted};
use crate::io::Handshake;
use crate::metrics::Metrics;
use crate::writeback;

/// What is said to a worker from outside its thread.
pub enum Message {
    /// A client has connected.
    Client(std::net::TcpStream),
    /// Likewise, with whom TLS is to be agreed upon first.
    SecureClient(std::net::TcpStream, Handshake),
    UnixClient(std::os::unix::net::UnixStream),
    /// Nearside itself is the client: it brings upstream what was acknowledged here.
    Own(std::os::unix::net::UnixStream),
    /// A flight came in for a waiting session.
    Served {
        session: u64,
        slot: u64,
        reply: Bytes,
    },
    /// A flight came to nothing.
    Released {
        session: u64,
        slot: u64,
    },
    /// There is something for the session to look at.
    Wake {
        session: u64,
    },
    /// Fetch a reply anew.
    Refresh {
        key: Box<[u8]>,
        wanted: Wanted,
    },
    /// Keys are registered with the feed: what is to be read of them may be read now.
    Registered(Registration),
    /// Say that it is read.
    Answer(tokio::sync::oneshot::Sender<()>),
    /// Another nearside has this one's place: let the clients go there when they rest.
    Leave,
    /// Take no more requests.
    Drain,
}

/// Where a worker's messages are left. Each holds at most as many as there are open requests and clients.
#[derive(Default)]
pub struct Inbox {
    messages: Mutex<Vec<Message>>,
    arrived: Notify,
    /// Clients that the worker has, or will have when it has read its messages.
    clients: AtomicUsize,
}

impl Inbox {
    pub fn send(&self, message: Message) {
        self.messages.lock().push(message);
        self.arrived.notify_one();
    }

    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Hands a client over.
    pub fn send_client(&self, message: Message) {
        self.count_client();
        self.send(message);
    }

    /// A client is the worker's, or will be.
    pub fn count_client(&self) {
        self.clients.fetch_add(1, Ordering::Relaxed);
    }

    /// Nearside's own client has gone.
    pub fn own_left(&self) {
        self.clients.fetch_sub(1, Ordering::Relaxed);
    }

    /// A client that was handed over has gone.
    pub fn client_left(&self, metrics: &Metrics) {
        self.own_left();
        metrics.clients.dec();
    }

    /// All that was left, as soon as there is anything.
    pub async fn take(&self) -> Vec<Message> {
        loop {
            let messages = std::mem::take(&mut *self.messages.lock());
            if !messages.is_empty() {
                return messages;
            }
            self.arrived.notified().await;
        }
    }
}

/// A session's place in another's flight.
pub struct Ticket {
    pub inbox: Arc<Inbox>,
    pub session: u64,
    pub slot: u64,
}

impl Waiter for Ticket {
    fn served(self, reply: Bytes) {
        self.inbox.send(Message::Served { session: self.session, slot: self.slot, reply });
    }

    fn released(self) {
        self.inbox.send(Message::Released { session: self.session, slot: self.slot });
    }
}

impl writeback::Waiter for Ticket {
    fn reply(self, reply: Bytes) {
        self.served(reply);
    }

    fn wake(self) {
        self.inbox.send(Message::Wake { session: self.session });
    }
}

/// What is read into the cache with one request, once its keys are registered.
pub struct Registration {
    /// Each of another key, all asked for by the same command and identity.
    pub leases: Vec<Lease<Ticket>>,
    /// The link on which they are read, and where its worker is told.
    pub link: LinkId,
    pub inbox: Arc<Inbox>,
}

impl Registration {
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.leases.iter().map(|lease| lease.name().key)
    }

    /// The same, key by key.
    pub fn split(self) -> impl Iterator<Item = Self> {
        let Self { leases, link, inbox } = self;
        leases.into_iter().map(move |lease| Self { leases: vec![lease], link, inbox: inbox.clone() })
    }

    /// The same, a part for each of what `of` gives for its keys.
    pub fn divide(self, of: impl Fn(&[u8]) -> u16) -> Vec<(u16, Self)> {
        let Self { leases, link, inbox } = self;
        let mut parts: Vec<(u16, Self)> = Vec::new();
        for lease in leases {
            let part = of(lease.name().key);
            match parts.iter_mut().find(|(known, _)| *known == part) {
                Some((_, known)) => known.leases.push(lease),
                None => parts.push((part, Self { leases: vec![lease], link, inbox: inbox.clone() })),
            }
        }
        parts
    }

    /// The upstream tells of the next change of its keys: the worker is told.
    pub fn confirm(mut self) {
        self.leases.iter_mut().for_each(Lease::note_registered);
        let inbox = self.inbox.clone();
        inbox.send(Message::Registered(self));
    }
}
