//! What a shared link's coverage hangs on: its tracking, the feed, and whether it answers.

use std::sync::atomic::Ordering;

use tracing::{debug, warn};

use super::Peer;
use crate::cache::{CoverageId, LinkId, Micros};
use crate::namespace::{Namespace, Tracking};
use crate::resp::scanner::Kind;

impl Peer {
    /// The coverage under which a read on this link would be filled now, and the link's number.
    pub(in crate::session) fn cover(&self, namespace: Option<&Namespace>) -> Option<(CoverageId, LinkId)> {
        let feed = || self.shared.cache.coverages().current(&self.shared.feed);
        let id = match self.shared.tracking(namespace) {
            Tracking::Keys => self.tracked()?,
            Tracking::Prefix => feed()?,
            Tracking::Off => namespace.and_then(|_| feed())?,
        };
        Some((id, self.number))
    }

    /// The coverage by the upstream's tracking.
    pub(in crate::session) fn tracked(&self) -> Option<CoverageId> {
        self.coverage.as_ref().and_then(|slot| self.shared.cache.coverages().current(slot))
    }

    /// No answer came in time: what was read on the link is void.
    pub(in crate::session) fn fall_silent(&self) {
        if !self.silent.replace(true) {
            warn!(
                link = self.number.0,
                "a link gave no answer within max-staleness: what was read on it is void"
            );
            self.disarm();
        }
    }

    pub(in crate::session) fn is_silent(&self) -> bool {
        self.silent.get()
    }

    pub(in crate::session) fn be_replaced(&self) {
        self.replaced.set(true);
    }

    pub(in crate::session) fn is_replaced(&self) -> bool {
        self.replaced.get()
    }

    /// A `PING` of the heartbeat was answered.
    pub(super) fn answered(&self) {
        self.pings.answered();
        if let Some(worker) = self.worker.upgrade().filter(|_| self.silent.replace(false)) {
            worker.link_up(self.number);
        }
    }

    /// A reply came to a request that was sent after `since`.
    pub(super) fn proven(&self, since: Micros) {
        if let Some(slot) = &self.coverage {
            self.shared.cache.coverages().advance(slot, since);
        }
    }

    pub(super) fn disarm(&self) {
        if let Some(slot) = &self.coverage {
            self.shared.cache.coverages().end(slot, self.shared.now());
        }
    }

    /// The feed has just gone, or it is on another server than this link: a name or a proxy that leads
    /// elsewhere since. Either way it is of no more use, and connects anew.
    pub(super) fn leave_feed(&self, feed: CoverageId) {
        self.shared.cache.coverages().end_period(&self.shared.feed, feed, self.shared.now());
    }

    pub(super) fn armed(&self, feed: CoverageId, since: Micros, chunk: &[u8], kind: Kind) {
        let Some(slot) = &self.coverage else { return };
        if kind == Kind::Error {
            let said = String::from_utf8_lossy(chunk);
            if said.contains("does not exist") {
                self.leave_feed(feed);
                return;
            }
            if !self.shared.tracking_refused.swap(true, Ordering::Relaxed) {
                warn!(
                    reply = said.trim_end(),
                    "the upstream does not allow CLIENT TRACKING: only keys in namespaces are cached"
                );
            }
            return;
        }
        if self.shared.cache.coverages().arm(slot, Some(feed), since).is_none() {
            debug!("the feed went before tracking was in place");
        }
    }
}
