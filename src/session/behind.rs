//! The topology by which a session routes, and when it takes another.
//!
//! Invariants: see [`again`](super::again). A session that is about to be somebody else stays with the topology that it has;
//! connections of its own go by the newest in any case (see [`errands`](super::errands)).

use std::sync::Arc;

use super::state::Session;
use crate::process::Topology;
use crate::router::LinkKey;

impl Session {
    /// Whether the session has to do something before it may go on.
    #[inline]
    pub(super) fn is_behind(&self) -> bool {
        let is_old = self.cx.process.epoch() != self.cx.topology.epoch;
        // What has connections of its own, or has gone on a link that was left, might come behind what is said after it.
        let has_left = self.cx.gathers.has_own() || self.cx.outbound.router.links_left() != self.links_left;
        is_old || self.resending.asks || self.cx.queue.has_back() || has_left
    }

    /// Goes by the newest topology from now on, if it may; false if nothing is to be sent before.
    pub(super) fn keep_up(&mut self) -> bool {
        if self.changing.is_some() || self.cx.process.is_single() || !self.is_behind() {
            return true;
        }
        if self.cx.queue.has_back() || self.cx.queue.has_sent() {
            return false;
        }
        self.resending.asks = false;
        self.links_left = self.cx.outbound.router.links_left();
        self.adopt();
        true
    }

    /// Gives the topology by which the session went before, if that was another. Precondition: nothing that it has sent is
    /// unanswered.
    pub(super) fn adopt(&mut self) -> Option<Arc<Topology>> {
        let newest = self.cx.process.present_topology();
        let before = std::mem::replace(&mut self.cx.topology, newest);
        self.choose_node();
        (before.epoch != self.cx.topology.epoch).then_some(before)
    }

    /// What has no keys goes to a node that is there.
    fn choose_node(&mut self) {
        let (own, first) = (&self.cx.key.node, self.cx.process.first_node());
        // If that is not up, none is.
        if self.cx.topology.has(own) && (own.is_up() || !first.is_up()) {
            return;
        }
        self.cx.key = LinkKey { node: first, ..self.cx.key.clone() };
        self.cx.link = self.cx.outbound.router.link(&self.cx.key);
    }
}
