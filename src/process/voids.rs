//! Voids the keys of hash slots that were lost, beside whoever noticed: with a million entries that takes a fifth of a second,
//! in which no worker and no feed is to stand still.
//!
//! Invariants: one pass over the cache is under way at a time, and what is lost meanwhile goes with the next, together.

use std::sync::Arc;

use parking_lot::Mutex;

use super::inbox::Ticket;
use super::node::Node;
use crate::cache::{Cache, Micros, Reason};
use crate::resp::{SlotSet, key_slot};

/// See the [module](self).
#[derive(Default)]
pub(super) struct Voids(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    slots: SlotSet,
    /// Who is to be told when all is void: of each loss.
    nodes: Vec<Arc<Node>>,
    is_running: bool,
}

impl Voids {
    /// The keys of these hash slots are void soon; the node is told.
    pub(super) fn void(
        self: &Arc<Self>,
        cache: &Arc<Cache<Ticket>>,
        node: &Arc<Node>,
        lost: &SlotSet,
        now: Micros,
    ) {
        let mut waiting = self.0.lock();
        waiting.slots.add(lost);
        waiting.nodes.push(node.clone());
        if std::mem::replace(&mut waiting.is_running, true) {
            return;
        }
        drop(waiting);
        let (voids, theirs) = (self.clone(), cache.clone());
        let started =
            std::thread::Builder::new().name("void".to_owned()).spawn(move || voids.run(&theirs, now));
        if started.is_err() {
            // There are no threads to be had: better to stand still.
            self.run(cache, now);
        }
    }

    fn run(&self, cache: &Cache<Ticket>, now: Micros) {
        loop {
            let mut waiting = self.0.lock();
            if waiting.nodes.is_empty() {
                waiting.is_running = false;
                return;
            }
            let (slots, nodes) = (std::mem::take(&mut waiting.slots), std::mem::take(&mut waiting.nodes));
            drop(waiting);
            cache.void_keys(Reason::SlotMoved, now, &|key| slots.contains(key_slot(key)));
            nodes.iter().for_each(|node| node.owned.voided());
        }
    }
}
