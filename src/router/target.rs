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
    /// All its keys are this node's.
    Node(Arc<Node>),
    /// Its keys are of several slots, and it can be put together from parts.
    Split,
    /// It concerns all nodes.
    All,
    /// Its keys are of several slots, and it cannot be divided.
    CrossSlot,
}

/// Commands that do to each of their keys what they would do to it alone.
const SPLIT: [&str; 6] = ["mget", "mset", "del", "unlink", "exists", "touch"];

/// Commands without keys that speak of all keys.
const ALL: [&str; 6] = ["flushall", "flushdb", "dbsize", "keys", "scan", "randomkey"];

impl Target {
    /// Of the command of this name with these keys.
    pub fn of<'k>(topology: &Topology, name: &str, keys: impl IntoIterator<Item = &'k [u8]>) -> Self {
        if topology.is_single() {
            return Target::Any;
        }
        let mut keys = keys.into_iter();
        let Some(first) = keys.next() else {
            return if ALL.contains(&name) { Target::All } else { Target::Any };
        };
        let slot = key_slot(first);
        match keys.all(|key| key_slot(key) == slot) {
            true => Target::Node(topology.owner(first).clone()),
            false if SPLIT.contains(&name) => Target::Split,
            false => Target::CrossSlot,
        }
    }
}
