//! Where a connection leads: whether that is the feed's server, and one that takes writes.

use super::link_handler::LinkHandler;
use super::upcalls::LinkEvent;
use crate::cache::CoverageId;
use crate::process::{FeedUp, is_readonly};
use crate::resp::scanner::Kind;
use crate::upstream::{Said, ServerId};

impl LinkHandler {
    /// An error was answered: the server may have refused a write because it is a replica.
    pub fn note_refusal(&self, error: &[u8]) {
        if !is_readonly(error) {
            return;
        }
        self.place.readonly.set(true);
        if !self.is_of_old() {
            self.node.role.doubt(self.process.now());
        }
    }

    /// Which server the link is on.
    pub fn leads(&self, feed: CoverageId, server: ServerId, reply: &[u8], kind: Kind) {
        let put_off = Said::of(kind, reply) == Said::NotNow;
        self.arming.unsure.set(put_off);
        if put_off {
            self.put_off("INFO", reply);
        } else if ServerId::of(reply).is_some_and(|here| here != server) {
            self.leave_feed(feed);
            // Of the two, the newer one is where new connections lead. Were only the feed to go, it might come back there
            // for ever.
            let is_newer = |up: FeedUp| up.coverage == feed && up.since > self.place.since.get();
            let feed_is_newer = self.node.feed_up.borrow().is_some_and(is_newer);
            if feed_is_newer {
                self.tell(LinkEvent::LeadsAstray);
            }
        } else {
            self.lead_to(Some(feed));
            if !self.process.redirects() {
                self.arming.turns.set(0);
            }
        }
    }
}
