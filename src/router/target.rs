//! To which node a request goes.
//!
//! Invariants: where there is but one node, all goes there, and nobody looks at keys.

use std::sync::Arc;

use crate::process::{Node, Topology};
use crate::resp::key_slot;

/// See the [module](self).
pub enum Target {
    /// It has no keys, and any node can answer it.
    Any,
    /// All its keys are of one hash slot, which is this node's.
    Node(Arc<Node>),
    /// Its keys are of several hash slots, and it can be put together from parts.
    Split,
    /// It concerns all nodes.
    All,
    /// It concerns all nodes, one after the other.
    Scan,
    /// Its keys are of several hash slots, and it cannot be divided.
    CrossSlot,
}

/// The keys of a request, as far as they decide where it goes.
pub struct Keys<'t> {
    topology: &'t Topology,
    splits: bool,
    first: Option<u16>,
    crosses: bool,
}

impl<'t> Keys<'t> {
    /// Of one that `splits`, or that does not.
    pub fn new(topology: &'t Topology, splits: bool) -> Self {
        Self { topology, splits, first: None, crosses: false }
    }

    pub fn add(&mut self, key: &[u8]) {
        let slot = key_slot(key);
        self.crosses |= *self.first.get_or_insert(slot) != slot;
    }

    /// `None` if it has none.
    pub fn target(&self) -> Option<Target> {
        let slot = self.first?;
        Some(match (self.crosses, self.splits) {
            (true, true) => Target::Split,
            (true, false) => Target::CrossSlot,
            // Whoever is asked for a slot that nobody has says so.
            (false, _) => {
                Target::Node(self.topology.owner_of(slot).unwrap_or(&self.topology.nodes()[0]).clone())
            }
        })
    }
}
