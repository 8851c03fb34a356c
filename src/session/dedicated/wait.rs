//! Commands that wait at the server: for how long, and how they are let go before.
//!
//! Invariants: nobody waits for a client that has gone, nor for a process that is to stop. Where the server can
//! be asked to (`CLIENT UNBLOCK`) it ends the wait itself, so what a pop has taken in the last moment is still handed
//! over, and nothing is taken afterwards.

use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;

use super::super::core::{Core, send_on};
use super::super::expect::{Pending, Write};
use super::super::peer::LinkHandler;
use super::super::queue::ReplyQueue;
use super::super::worker::Worker;
use super::Dedicated;
use crate::command::Row;
use crate::resp::encode;
use crate::resp::request::Request;
use crate::upstream::Link;

/// How long the server is asked before the connection is closed instead, when the process stops.
const PATIENCE: Duration = Duration::from_millis(500);

/// Between two attempts: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));

/// For how long a request may wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wait {
    No,
    Bounded,
    ForEver,
}

impl Wait {
    pub(super) fn of(row: Option<&Row>, request: &Request<'_>) -> Self {
        let Some(row) = row else { return Wait::No };
        let last = request.len() - 1;
        let block = || (1..last).find(|i| request.arg(*i).eq_ignore_ascii_case(b"block")).map(|i| i + 1);
        let timeout = match &*row.name {
            "blpop" | "brpop" | "brpoplpush" | "blmove" | "bzpopmin" | "bzpopmax" | "wait" | "waitaof" => {
                Some(last)
            }
            "blmpop" | "bzmpop" => Some(1),
            "xread" | "xreadgroup" => block(),
            // A module's: it says so, and nothing more is known.
            name if name.contains('.') => return Wait::Bounded,
            _ => None,
        };
        let Some(timeout) = timeout.and_then(|i| request.get(i)) else { return Wait::No };
        match std::str::from_utf8(timeout).ok().and_then(|text| text.parse::<f64>().ok()) {
            Some(0.0) => Wait::ForEver,
            Some(_) => Wait::Bounded,
            None => Wait::No,
        }
    }
}

impl Dedicated {
    /// Notes for how long the request waits that is about to open this slot.
    pub(super) fn note_wait(&mut self, row: Option<&Row>, request: &Request<'_>, slot: u64) {
        match Wait::of(row, request) {
            Wait::No => return,
            Wait::Bounded => {}
            Wait::ForEver => self.for_ever = Some(slot),
        }
        self.waiting = Some(slot);
    }

    /// Whether what is open here may never be answered.
    pub(in crate::session) fn may_never_end(&self, queue: &ReplyQueue) -> bool {
        self.pushes().is_raw() || self.for_ever.is_some_and(|slot| queue.is_awaited(slot))
    }

    /// Lets what waits at the server go: as if its time was over, or with an error if the process stops.
    pub(in crate::session) fn let_go(&mut self, core: &Core, stops: bool) {
        let Some(slot) = self.waiting.filter(|slot| core.queue.is_awaited(*slot)) else { return };
        if self.let_go.replace((slot, stops)) == Some((slot, stops)) {
            return;
        }
        let (worker, queue, link) = (core.worker.clone(), core.queue.clone(), self.link.clone());
        let how: &[u8] = if stops { b"ERROR" } else { b"TIMEOUT" };
        tokio::task::spawn_local(async move {
            let unblocking = unblock(&worker, &link, &queue, slot, how);
            if !stops {
                return unblocking.await;
            }
            if tokio::time::timeout(PATIENCE, unblocking).await.is_err() {
                link.close("nearside is stopping");
            }
        });
    }
}

/// Asks until the slot is answered: what is to wait may not have reached the server yet, and another may stand behind.
async fn unblock(
    worker: &Rc<Worker>,
    link: &Link<LinkHandler>,
    queue: &Rc<ReplyQueue>,
    slot: u64,
    how: &[u8],
) {
    let mut pause = PAUSE.0;
    while queue.is_awaited(slot) {
        // Known once the connection stands.
        if let Some(id) = link.client().id() {
            let id = id.to_string();
            let mut command = BytesMut::new();
            encode::command(&mut command, &[b"CLIENT", b"UNBLOCK", id.as_bytes(), how]);
            let pending = Pending::Write(Box::new(Write::unwanted()));
            let _ = send_on(&worker.own_link(), worker.shared.now(), |out| out.copy(&command), pending);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}
