//! The last part to start: doors for clients, who may take over, and who is told that all is ready.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tracing::info;

use super::accept::{Accepting, Door, Listener, Ours};
use super::alarm::Alarm;
use super::error::ServerError;
use super::files::{Room, Spare};
use super::gate::Gate;
use super::notify::Notify;
use super::opening::Opening;
use super::passed::{Offered, Passed};
use super::stop::Stop;
use super::takeover::{Offer, Old};
use super::watchdog::{tell, watchdog};
use crate::process::{Inbox, Process};

/// Who is to know of the server, and whom it hears.
pub(super) struct Around {
    /// Whether this is the program, which another nearside may take over.
    pub(super) is_program: bool,
    pub(super) notify: Rc<Notify>,
    pub(super) stop: watch::Sender<Stop>,
    /// Told if clients cannot be let in.
    pub(super) failed: oneshot::Sender<ServerError>,
}

/// See the [module](self).
pub(super) struct Entrance {
    pub(super) around: Around,
    pub(super) process: Arc<Process>,
    /// As it is told of.
    pub(super) upstream: String,
    pub(super) workers: Vec<Arc<Inbox>>,
    pub(super) room: Room,
    pub(super) keepalive: Option<Duration>,
    pub(super) ours: Ours,
    pub(super) passed: Passed,
    pub(super) old: Option<Old>,
    /// The sockets of the admin pages, and who accepts on them.
    pub(super) pages: (Vec<Offered>, AbortHandle),
}

/// The tasks that accept, and the others.
pub(super) type Tasks = (Vec<JoinHandle<()>>, Vec<JoinHandle<()>>);

impl Entrance {
    pub(super) fn open(self, listeners: Vec<Listener>, alarm: &Alarm) -> std::io::Result<Tasks> {
        let Around { is_program, notify, stop, failed } = self.around;
        let (process, gate) = (self.process, Rc::new(Gate::new()));
        let (mut sockets, pages) = self.pages;
        let mut accepting = Vec::new();
        for listener in &listeners {
            info!("listening on {listener}");
        }
        if self.old.is_none() {
            // Who connects now is accepted by the system; a request waits until it is known where it must go.
            info!(upstream = self.upstream, workers = self.workers.len(), "ready for clients");
        }
        for listener in listeners {
            let (keepalive, spare, plain) = (self.keepalive, Spare::new(), !listener.is_secure());
            let (process, workers, gate) = (process.clone(), self.workers.clone(), gate.clone());
            let door = Door { process, workers, room: self.room, keepalive, plain, spare, gate };
            let Accepting { task, offered } = listener.accept(door, alarm)?;
            accepting.push(task);
            sockets.push(offered);
        }
        let mut tasks = Vec::new();
        if let Some(period) = notify.watchdog() {
            let watch = watchdog(notify.clone(), period, self.workers, stop.subscribe());
            tasks.push(alarm.spawn("the watchdog", watch));
        }
        if notify.is_heard() {
            tasks.push(alarm.spawn("what systemd is told", tell(notify.clone(), process.clone())));
        }
        let offer = is_program.then(|| Offer {
            process: process.clone(),
            gate: gate.clone(),
            notify: notify.clone(),
            ours: self.ours.clone(),
            stop,
            sockets,
            passed: self.passed,
            pages,
        });
        let opening = Opening { process, gate, notify, ours: self.ours, old: self.old, offer, failed };
        tasks.push(alarm.spawn("the opening for clients", opening.run()));
        Ok((accepting, tasks))
    }
}
