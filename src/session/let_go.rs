//! Commands that wait at the server: for how long, and how they are let go before.
//!
//! Invariants: nobody waits for a client that has gone, nor for a process that is to stop. Where the server can
//! be asked to (`CLIENT UNBLOCK`) it ends the wait itself, so what a pop has taken in the last moment is still handed
//! over, and nothing is taken afterwards.

use std::time::Duration;

use bytes::BytesMut;

use super::dedicated::Dedicated;
use super::phase::Phase;
use crate::pending::{Link, Pending, Write, send};
use crate::reply::ReplyQueue;
use crate::request::{Context, Outbound};
use crate::resp::encode;

/// How long the server is asked before the connection is closed instead, when the process stops.
const PATIENCE: Duration = Duration::from_millis(500);

/// Between two attempts: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));

impl Dedicated {
    /// Whether what is open here may never be answered.
    pub fn may_never_end(&self, queue: &ReplyQueue) -> bool {
        self.phase() == Phase::Monitor || self.waits.may_never_end(queue)
    }

    /// Lets what waits at the server go: as if its time was over, or with an error if the process stops.
    pub fn let_go(&mut self, cx: &Context, stops: bool) {
        let Some(slot) = self.waits.take(&cx.queue, stops) else { return };
        if let Some(errand) = &mut self.errand {
            errand.is_let_go = true;
            if let Some((held, _)) = errand.waiting.take() {
                return held.slots.iter().for_each(|slot| slot.whole(&held.refusal.line));
            }
        }
        let (outbound, queue, link) = (cx.outbound.clone(), cx.queue.clone(), self.link.clone());
        let how: &[u8] = if stops { b"ERROR" } else { b"TIMEOUT" };
        tokio::task::spawn_local(async move {
            let unblocking = unblock(&outbound, &link, &queue, slot, how);
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
async fn unblock(outbound: &Outbound, link: &Link, queue: &ReplyQueue, slot: u64, how: &[u8]) {
    let mut pause = PAUSE.0;
    while queue.is_awaited(slot) {
        // Known once the connection stands.
        if let Some(id) = link.client().upstream_id() {
            let id = id.to_string();
            let mut command = BytesMut::new();
            encode::command(&mut command, &[b"CLIENT", b"UNBLOCK", id.as_bytes(), how]);
            let pending = Pending::Write(Box::new(Write::unwanted()));
            let _ = send(
                &outbound.router.own_link_to(&link.client().node),
                outbound.process.now(),
                |out| out.copy(&command),
                pending,
            );
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}
