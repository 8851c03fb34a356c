//! A session's place in its worker: given up when its task ends, whichever way that happens.

use std::rc::Rc;

use tokio::sync::Notify;

use super::Worker;
use crate::session::queue::ReplyQueue;

/// See the [module](self).
pub(super) struct Seat {
    pub(super) worker: Rc<Worker>,
    pub(super) id: u64,
    pub(super) queue: Rc<ReplyQueue>,
    /// Told when it is given up.
    pub(super) gone: Rc<Notify>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(client = self.id, "closed: a fault in nearside has ended this client's session");
        }
        self.queue.close();
        self.worker.sessions.borrow_mut().remove(&self.id);
        self.worker.inbox.client_left(&self.worker.shared);
        self.gone.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::cache::Cache;
    use crate::namespace::{Namespaces, Tracking};
    use crate::resp::framer::Limits;
    use crate::session::{Inbox, Message, Settings, Shared};
    use crate::upstream::{self, Address, Ends};

    fn shared() -> Arc<Shared> {
        let second = Duration::from_secs(1);
        let address = Address::Unix("/nowhere".into());
        let settings = Settings {
            upstream: upstream::Settings {
                address,
                connect_timeout: second,
                reply_timeout: second,
                ours: Default::default(),
                dial: Default::default(),
            },
            login: None,
            db: 0,
            password: None,
            limits: Limits::default(),
            output_limit: 1 << 20,
            max_links: 16,
            stall_timeout: second,
            max_staleness: second,
            max_age: second,
            stale_if_error: false,
            tracking: Tracking::Off,
            cache_commands: None,
            described: Vec::new(),
        };
        Arc::new(Shared::new(settings, Cache::new(1 << 20, 1 << 20, 0), Namespaces::new(Vec::new())).unwrap())
    }

    #[test]
    fn a_session_that_panics_leaves_nothing_behind_and_the_drain_ends() {
        let options = tokio::runtime::LocalOptions::default();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(options).unwrap();
        runtime.block_on(async {
            let (shared, inbox) = (shared(), Arc::new(Inbox::default()));
            let worker = Worker::new(shared.clone(), inbox.clone());
            let gone = Rc::new(Notify::new());
            let sit = |id| {
                shared.metrics.clients.inc();
                inbox.clients.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let session = shared.clients.enter(Ends::default(), Arc::default(), 1);
                let queue = Rc::new(ReplyQueue::new(1000, session));
                worker.sessions.borrow_mut().insert(id, queue.clone());
                Seat { worker: worker.clone(), id, queue, gone: gone.clone() }
            };
            let (faulty, other) = (sit(1), sit(2));
            let ended = tokio::task::spawn_local(async move {
                let _faulty = faulty;
                panic!("as the test wants it");
            });
            assert!(ended.await.is_err_and(|error| error.is_panic()));
            assert_eq!((shared.metrics.clients.get(), inbox.clients()), (1, 1), "the other is still there");
            assert!(!worker.sessions.borrow().contains_key(&1));
            gone.notified().await;

            let drained = tokio::task::spawn_local(worker.clone().run(None));
            inbox.send(Message::Drain);
            drop(other);
            inbox.send(Message::Drain);
            tokio::time::timeout(Duration::from_secs(10), drained).await.expect("the drain ends").unwrap();
            assert_eq!(shared.metrics.clients.get(), 0);
        });
    }
}
