//! Which nodes there are, and which keys are whose.
//!
//! Invariants: a [`Topology`] never changes; another takes its place. Its nodes are shared, so those that stay keep what they
//! know.

use std::sync::Arc;

use super::node::Node;
use crate::io::Address;
use crate::resp::{SLOTS, SlotSet, key_slot};

/// The place of a hash slot's node when there is none.
const NOBODY: u16 = u16::MAX;

/// See the [module](self).
pub struct Topology {
    /// Grows with each topology that takes another's place.
    pub epoch: u64,
    nodes: Box<[Arc<Node>]>,
    /// For each hash slot, the place of its node among `nodes`; none of a single node, which has all keys.
    slots: Option<Box<[u16]>>,
    /// For each node whether it has hash slots.
    have_slots: Box<[bool]>,
}

fn have_slots(nodes: &[Arc<Node>], slots: &[u16]) -> Box<[bool]> {
    let mut have = vec![false; nodes.len()];
    slots.iter().for_each(|place| {
        if let Some(have) = have.get_mut(usize::from(*place)) {
            *have = true;
        }
    });
    have.into()
}

impl Topology {
    /// One server, which has all keys.
    pub fn single(node: Arc<Node>) -> Self {
        Self { epoch: 0, nodes: Box::new([node]), slots: None, have_slots: Box::new([true]) }
    }

    /// Several: `owner` tells for each hash slot the place of its node among `nodes`, or none of one that nobody has. `None` if
    /// there are no nodes, or that is no place.
    pub fn sharded(nodes: Vec<Arc<Node>>, owner: impl Fn(u16) -> Option<u16>) -> Option<Self> {
        let slots: Box<[u16]> = (0..SLOTS as u16).map(|slot| owner(slot).unwrap_or(NOBODY)).collect();
        let known = |place: &u16| usize::from(*place) < nodes.len() || *place == NOBODY;
        let valid = !nodes.is_empty() && slots.iter().all(known);
        valid.then(|| {
            let have_slots = have_slots(&nodes, &slots);
            Self { epoch: 0, nodes: nodes.into(), slots: Some(slots), have_slots }
        })
    }

    /// This, with one hash slot given to another of its nodes. `None` if it is no such node, or has the slot already.
    pub fn moved(&self, slot: u16, to: &Node) -> Option<Self> {
        let place = self.nodes.iter().position(|node| node.id == to.id)?;
        let (mut slots, place) = (self.slots.clone()?, u16::try_from(place).ok()?);
        let before = slots.get_mut(usize::from(slot)).filter(|before| **before != place)?;
        *before = place;
        let have_slots = have_slots(&self.nodes, &slots);
        Some(Self { epoch: self.epoch, nodes: self.nodes.clone(), slots: Some(slots), have_slots })
    }

    /// This, in the place of that one.
    pub(super) fn behind(self, before: &Self) -> Self {
        Self { epoch: before.epoch + 1, ..self }
    }

    /// All nodes, those without hash slots too.
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// Those that have hash slots.
    pub fn with_slots(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.iter().zip(&self.have_slots).filter(|(_, have)| **have).map(|(node, _)| node)
    }

    /// Whether there is but one, which has all keys.
    #[inline]
    pub fn is_single(&self) -> bool {
        self.slots.is_none()
    }

    /// Who is to be asked for the key: whose it is, or anybody if nobody has it, for that will say so.
    pub fn owner(&self, key: &[u8]) -> &Arc<Node> {
        if self.is_single() {
            return &self.nodes[0];
        }
        self.to_ask(key_slot(key))
    }

    /// Likewise for the keys of a hash slot.
    pub fn to_ask(&self, slot: u16) -> &Arc<Node> {
        self.owner_of(slot).unwrap_or(&self.nodes[0])
    }

    /// Whose the hash slot is, if it is anybody's.
    pub fn owner_of(&self, slot: u16) -> Option<&Arc<Node>> {
        match &self.slots {
            Some(slots) => self.nodes.get(usize::from(*slots.get(usize::from(slot))?)),
            None => self.nodes.first(),
        }
    }

    /// Which of these hash slots are the node's.
    pub(super) fn of(&self, node: &Node, slots: &SlotSet) -> SlotSet {
        let theirs = |slot: &u16| self.owner_of(*slot).is_some_and(|owner| owner.id == node.id);
        (0..SLOTS as u16).filter(|slot| slots.contains(*slot)).filter(theirs).collect()
    }

    /// Whether this very node is among them.
    pub fn has(&self, node: &Node) -> bool {
        self.nodes.iter().any(|known| known.id == node.id)
    }

    /// The node there.
    pub fn node_at(&self, address: &Address) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|node| node.address().is_some_and(|at| *at == *address))
    }

    /// Whether both say the same, their epochs aside.
    pub fn is_as(&self, other: &Self) -> bool {
        let nodes = self.nodes.iter().zip(&other.nodes).all(|(one, other)| one.id == other.id);
        nodes && self.nodes.len() == other.nodes.len() && self.slots == other.slots
    }

    /// The hash slots that are another's here than there, or another's here than anybody's.
    pub fn changed_since(&self, before: &Self) -> SlotSet {
        let of = |topology: &Self, slot| topology.owner_of(slot).map(|node| node.id);
        (0..SLOTS as u16).filter(|slot| of(self, *slot) != of(before, *slot)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::nowhere;
    use super::super::node_id::NodeId;
    use super::*;
    use crate::cache::Cache;
    use crate::process::Ticket;

    #[test]
    fn a_slot_is_its_node_s_or_nobody_s_and_what_changes_is_known() {
        let cache = Cache::<Ticket>::new(1 << 20, 1000, 0);
        let node = |id| Arc::new(Node::new(NodeId(id), nowhere(), &cache).unwrap());
        let nodes: Vec<_> = (0..2).map(node).collect();
        assert!(Topology::sharded(vec![], |_| None).is_none());
        assert!(Topology::sharded(nodes.clone(), |_| Some(2)).is_none());
        let owner = |slot| (slot != 7).then_some(u16::from(slot >= 8192));
        let before = Topology::sharded(nodes.clone(), owner).unwrap();
        let key = (0..).map(|i| i.to_string()).find(|key| key_slot(key.as_bytes()) == 7).unwrap();
        assert!(before.owner_of(7).is_none() && before.owner(key.as_bytes()).id == NodeId(0));
        assert_eq!(before.owner_of(8192).map(|node| node.id), Some(NodeId(1)));
        let after = before.moved(7, &nodes[1]).unwrap();
        assert_eq!(after.owner(key.as_bytes()).id, NodeId(1));
        assert_eq!(after.changed_since(&before), [7].into_iter().collect());
        assert_eq!(after.with_slots().count(), 2);
        let of_one = Topology::sharded(nodes.clone(), |_| Some(1)).unwrap();
        assert!(of_one.with_slots().map(|node| node.id).eq([NodeId(1)]));
        assert!(!after.is_as(&before) && after.moved(7, &nodes[1]).is_none());
        assert!(after.moved(7, &node(9)).is_none() && !after.has(&node(9)) && after.has(&nodes[0]));
        let single = Topology::single(nodes[0].clone());
        assert_eq!(before.changed_since(&single).len(), SLOTS / 2 + 1);
    }
}
