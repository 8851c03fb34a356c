//! The worker's loop: it takes what is left in its inbox, and gives each client a task.
//!
//! Invariants: sessions and links of a worker live on its thread and share nothing with other
//! workers but the cache; whatever comes from elsewhere comes through the inbox.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::interval;

use super::seat::Seat;
use super::sitting::Sitting;
use super::state::Worker;
use super::{audit, connection};
use crate::io::Stream;
use crate::process::{Client, Message, NodeId, Present};
use crate::reply::ReplyQueue;
use crate::request::{refresh, registered};

/// How long a client has asked for nothing that may be sent to another nearside: between the requests of one that is at work
/// goes less.
const QUIET: Duration = Duration::from_millis(250);

/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(50);

impl Worker {
    /// Serves until it is told to drain or to leave, and then until the last session is gone. Runs in a `LocalRuntime`.
    ///
    /// `audits` is how often it compares a cached reply with the upstream's; one worker does.
    pub async fn run(self: Rc<Self>, audits: Option<Duration>) {
        let mut tasks = JoinSet::new();
        let router = self.outbound.router.clone();
        tasks.spawn_local(async move { router.heartbeat().await });
        let (mut epochs, mut nodes) = (self.process.epochs(), HashMap::new());
        self.follow(&mut nodes, &mut tasks);
        if let Some(pause) = audits {
            tasks.spawn_local(audit::run(self.outbound.clone(), pause));
        }
        let gone = Rc::new(Notify::new());
        let mut looks = interval(LOOK);
        loop {
            tokio::select! {
                messages = self.outbound.inbox.take() => {
                    messages.into_iter().for_each(|message| self.handle(message, &gone));
                }
                () = gone.notified() => {}
                _ = looks.tick(), if self.leaving.get() => self.let_go_of_the_quiet(),
                Ok(()) = epochs.changed() => self.follow(&mut nodes, &mut tasks),
                // Without one of them the worker would serve on and notice nothing: it ends, and with it the process.
                Some(Err(fault)) = tasks.join_next() => {
                    if let Ok(panic) = fault.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
            }
            let is_left = self.leaving.get() && self.outbound.inbox.clients() == 0;
            if is_left || self.draining.get() && self.sessions.borrow().is_empty() {
                break;
            }
        }
        drop(tasks);
        self.outbound.router.clear();
    }

    /// Begins to follow the nodes that have come, and leaves those that are gone.
    fn follow(&self, known: &mut HashMap<NodeId, [AbortHandle; 2]>, tasks: &mut JoinSet<()>) {
        let (topology, router) = (self.process.present_topology(), &self.outbound.router);
        let is_gone = |id: &NodeId| !topology.nodes().iter().any(|node| node.id == *id);
        for (id, tasks) in known.extract_if(|id, _| is_gone(id)) {
            tasks.iter().for_each(AbortHandle::abort);
            router.leave_node(id);
        }
        for node in topology.nodes() {
            known.entry(node.id).or_insert_with(|| {
                // The link that nearly everybody will use: connected, and tracked, before the first client comes.
                router.own_link_to(node).reconnect();
                let (feeds, of_feed) = (router.clone(), node.clone());
                let (roles, of_role) = (router.clone(), node.clone());
                [
                    tasks.spawn_local(async move { feeds.follow_feed(of_feed).await }),
                    tasks.spawn_local(async move { roles.follow_role(of_role).await }),
                ]
            });
        }
    }

    fn handle(self: &Rc<Self>, message: Message, gone: &Rc<Notify>) {
        match message {
            Message::Client(stream) => {
                let stream = tokio::net::TcpStream::from_std(stream).map(Stream::Tcp);
                self.accept(stream, gone);
            }
            Message::SecureClient(stream, handshake) => self.secure(stream, handshake, gone),
            Message::UnixClient(stream) => {
                let stream = tokio::net::UnixStream::from_std(stream).map(Stream::Unix);
                self.accept(stream, gone);
            }
            Message::Own(stream) => match tokio::net::UnixStream::from_std(stream) {
                Ok(stream) => {
                    let client = self.process.clients.own(self.outbound.inbox.clone(), self.process.now());
                    self.sit(client, Stream::Unix(stream), gone);
                }
                Err(error) => {
                    self.tell_unusable(&error);
                    self.outbound.inbox.own_left();
                }
            },
            Message::Served { session, slot, reply } => {
                if let Some(Sitting { queue, .. }) = self.sessions.borrow().get(&session) {
                    queue.served(slot, reply);
                }
            }
            Message::Released { session, slot } => {
                if let Some(Sitting { queue, .. }) = self.sessions.borrow().get(&session) {
                    queue.release(slot);
                }
            }
            Message::Wake { session } => {
                if let Some(Sitting { queue, .. }) = self.sessions.borrow().get(&session) {
                    queue.wake();
                }
            }
            Message::Refresh { key, wanted } => {
                refresh(&self.outbound.inbox, &self.outbound.router, &key, &wanted);
            }
            Message::Registered(registration) => {
                registered(&self.outbound.inbox, &self.outbound.router, registration);
            }
            Message::Answer(question) => drop(question.send(())),
            Message::Leave => self.leaving.set(true),
            Message::Drain => {
                self.draining.set(true);
                self.sessions.borrow().values().for_each(Sitting::drain);
            }
        }
    }

    /// Ends the sessions of clients that have asked for nothing for a while: another nearside has this one's place.
    fn let_go_of_the_quiet(&self) {
        let now = self.process.now();
        self.sessions.borrow().values().filter(|one| one.client.idle(now) >= QUIET).for_each(Sitting::drain);
    }

    pub(super) fn accept(self: &Rc<Self>, stream: std::io::Result<Stream>, gone: &Rc<Notify>) {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                self.tell_unusable(&error);
                self.outbound.inbox.client_left(&self.process.metrics);
                return;
            }
        };
        let inbox = self.outbound.inbox.clone();
        let client = self.process.clients.enter(stream.ends(), inbox, self.process.now());
        self.sit(client, stream, gone);
    }

    /// Serves a client by a session.
    fn sit(self: &Rc<Self>, client: Arc<Client>, stream: Stream, gone: &Rc<Notify>) {
        let (id, present) = (client.id, Present::new(self.process.clone(), client.clone()));
        let queue = Rc::new(ReplyQueue::new(self.process.settings.output_limit.get()));
        let (is_own, draining) = (client.is_own, Rc::new(Cell::new(self.draining.get() && !client.is_own)));
        let sitting = Sitting { client, queue: queue.clone(), draining };
        self.sessions.borrow_mut().insert(id, sitting.clone());
        let seat = Seat { worker: self.clone(), id, queue, is_own, gone: gone.clone() };
        tokio::task::spawn_local(async move {
            connection::serve(seat.worker.clone(), present, sitting, stream).await;
            drop(seat);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::Notify;

    use super::*;
    use crate::io::Ends;
    use crate::process::{Inbox, Message, fixture};

    #[test]
    fn a_session_that_panics_leaves_nothing_behind_and_the_drain_ends() {
        let options = tokio::runtime::LocalOptions::default();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(options).unwrap();
        runtime.block_on(async {
            let (process, inbox) = (fixture::process(16), Arc::new(Inbox::default()));
            let worker = Worker::new(process.clone(), inbox.clone());
            let gone = Rc::new(Notify::new());
            let sit = |id| {
                process.metrics.clients.inc();
                inbox.count_client();
                let queue = Rc::new(ReplyQueue::new(1000));
                let client = process.clients.enter(Ends::default(), inbox.clone(), process.now());
                let sitting = Sitting { client, queue: queue.clone(), draining: Rc::default() };
                worker.sessions.borrow_mut().insert(id, sitting);
                Seat { worker: worker.clone(), id, queue, is_own: false, gone: gone.clone() }
            };
            let (faulty, other) = (sit(1), sit(2));
            let ended = tokio::task::spawn_local(async move {
                let _faulty = faulty;
                panic!("as the test wants it");
            });
            assert!(ended.await.is_err_and(|error| error.is_panic()));
            assert_eq!((process.metrics.clients.get(), inbox.clients()), (1, 1), "the other is still there");
            assert!(!worker.sessions.borrow().contains_key(&1));
            gone.notified().await;

            let drained = tokio::task::spawn_local(worker.clone().run(None));
            inbox.send(Message::Drain);
            drop(other);
            inbox.send(Message::Drain);
            tokio::time::timeout(Duration::from_secs(10), drained).await.expect("the drain ends").unwrap();
            assert_eq!(process.metrics.clients.get(), 0);
        });
    }
}
