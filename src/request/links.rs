//! The links to a cluster's nodes, as one request of many parts finds them.

use smallvec::SmallVec;

use super::context::Context;
use crate::pending::Link;
use crate::process::{Node, NodeId};
use crate::router::Target;

/// See the [module](self).
pub struct Links<'c> {
    cx: &'c Context,
    known: SmallVec<[(NodeId, Link); 4]>,
}

impl<'c> Links<'c> {
    pub fn new(cx: &'c Context) -> Self {
        Self { cx, known: SmallVec::new() }
    }

    /// The link to this node: the session's own, if it leads there.
    pub fn to(&mut self, node: &std::sync::Arc<Node>) -> Link {
        if let Some((_, link)) = self.known.iter().find(|(known, _)| *known == node.id) {
            return link.clone();
        }
        let other = self.cx.link_to(Target::Node(node.clone())).ok().flatten();
        let link = other.unwrap_or_else(|| self.cx.link.clone());
        self.known.push((node.id, link.clone()));
        link
    }

    /// The link to the node of this key.
    pub fn of(&mut self, key: &[u8]) -> Link {
        match self.cx.topology.is_single() {
            true => self.cx.link.clone(),
            false => self.to(self.cx.topology.owner(key)),
        }
    }
}
