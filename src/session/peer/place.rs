//! Where a connection leads: whether that is the feed's server, and one that takes writes.

use std::cell::Cell;

use super::super::role;
use super::super::shared::FeedUp;
use super::LinkHandler;
use crate::cache::{CoverageId, Micros};
use crate::namespace::Tracking;
use crate::resp::scanner::Kind;
use crate::upstream::{Said, ServerId};

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// When the connection was made.
    since: Cell<Micros>,
    /// The era in which that was begun: see [`role`](super::super::role).
    era: Cell<u64>,
    /// It has said that its server takes no writes.
    readonly: Cell<bool>,
}

impl Place {
    /// A connection is about to be made.
    pub(super) fn attempt(&self, era: u64) {
        self.era.set(era);
        self.readonly.set(false);
    }

    /// It stands.
    pub(super) fn reach(&self, now: Micros) {
        self.since.set(now);
    }

    /// Another session has it now: what it hears is not yet said.
    pub(super) fn change_hands(&self) {
        self.readonly.set(false);
    }
}

impl LinkHandler {
    /// Its server was left since the connection was begun.
    pub(in crate::session) fn is_of_old(&self) -> bool {
        self.place.era.get() != self.shared.role.era()
    }

    /// An error was answered: the server may have refused a write because it is a replica.
    pub(super) fn note_refusal(&self, error: &[u8]) {
        if !role::is_readonly(error) {
            return;
        }
        self.place.readonly.set(true);
        if !self.is_of_old() {
            self.shared.role.doubt(self.shared.now());
        }
    }

    pub(in crate::session) fn is_readonly(&self) -> bool {
        self.place.readonly.get()
    }

    /// Which server the link is on.
    pub(super) fn leads(&self, feed: CoverageId, server: ServerId, reply: &[u8], kind: Kind) {
        let put_off = Said::of(kind, reply) == Said::NotNow;
        self.arming.unsure.set(put_off);
        if put_off {
            self.put_off("INFO", reply);
        } else if ServerId::of(reply).is_some_and(|here| here != server) {
            self.leave_feed(feed);
            // Of the two, the newer one is where new connections lead. Were only the feed to go, it might come back there
            // for ever.
            let is_newer = |up: FeedUp| up.coverage == feed && up.since > self.place.since.get();
            let feed_is_newer = self.shared.feed_up.borrow().is_some_and(is_newer);
            if let Some(worker) = self.worker.upgrade().filter(|_| feed_is_newer) {
                worker.leave_link(self.number);
            }
        } else if !self.shared.wants(Tracking::Keys) {
            self.arming.turns.set(0);
        }
    }
}
