//! The moment from which on clients are let in, and who may take over from then on.
//!
//! Invariants: it is known, as far as it can be, to which nodes the first requests go. Who takes over lets nobody in before it
//! could serve as well as the nearside before it, which lets nobody in any more then; if it cannot, it ends, and nothing
//! has changed.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tracing::info;

use super::accept::Ours;
use super::error::ServerError;
use super::gate::Gate;
use super::notify::Notify;
use super::takeover::{Leaving, Offer, Old};
use super::watchdog::status;
use crate::admin;
use crate::process::Process;

/// How often it is asked whether the upstream is there.
const LOOK: Duration = Duration::from_millis(5);

/// The upstream is given so many times `connect-timeout` by who takes over, but not longer than that.
const ATTEMPTS: u32 = 5;
const MOST: Duration = Duration::from_secs(60);

/// See the [module](self).
pub(super) struct Opening {
    pub(super) process: Arc<Process>,
    pub(super) gate: Rc<Gate>,
    pub(super) notify: Rc<Notify>,
    pub(super) ours: Ours,
    /// Who is taken over.
    pub(super) old: Option<Old>,
    /// To whoever takes over later.
    pub(super) offer: Option<Offer>,
    /// Told if it comes to nothing.
    pub(super) failed: oneshot::Sender<ServerError>,
}

impl Opening {
    /// Opens the gate, and offers a takeover until it is dropped.
    pub(super) async fn run(self) {
        let Self { process, gate, notify, ours, old, offer, failed } = self;
        process.cluster.looked(process.settings.upstream.connect_timeout).await;
        let leaving = match old {
            None => None,
            Some(old) => match take(&process, old).await {
                Ok(leaving) => Some(leaving),
                Err(error) => return drop(failed.send(error)),
            },
        };
        ours.set(true);
        if let Some(leaving) = &leaving {
            gate.overlap(&process, true);
            process.metrics.takeovers.inc();
            info!(from = leaving.pid, "taken over: ready for clients");
        }
        gate.open();
        notify.status(&status(&process));
        notify.ready();
        let watched = async {
            let Some(mut leaving) = leaving else { return };
            leaving.tell().await;
            let pid = leaving.pid;
            leaving.ended().await;
            gate.overlap(&process, false);
            info!(pid, "the process that was taken over has ended");
        };
        let offered = async {
            if let Some(offer) = offer {
                offer.run().await;
            }
        };
        tokio::join!(watched, offered);
    }
}

async fn take(process: &Process, old: Old) -> Result<Leaving, ServerError> {
    let patience = (process.settings.upstream.connect_timeout * ATTEMPTS).min(MOST);
    let deadline = Instant::now() + patience;
    while let Err(why) = admin::readiness(process, false) {
        if !old.is_ready {
            // It is no worse off with this process.
            break;
        }
        if Instant::now() >= deadline {
            return Err(ServerError::Takeover(format!(
                "this process has not become ready within {patience:?}, and the other one is: {why}"
            )));
        }
        sleep(LOOK).await;
    }
    old.make_way().await
}
