//! What the answers of a cluster's nodes prove together.
//!
//! A master that is cut off from the others, perhaps together with this nearside, says that all is well for as long as its
//! `cluster-node-timeout` and half of that again, and another may have its place by then. But that one was elected by most of
//! the masters that have slots, and each of them had found that the old one has failed before it voted. So:
//!
//! - **What a node says is proven up to the time at which most of these masters, itself among them, had last spoken for
//!   themselves and knew it for a master that is well.** Any two majorities have a master in common: nobody was elected before
//!   that one spoke.
//! - Who takes the place without being elected (`CLUSTER FAILOVER FORCE` and `TAKEOVER`) is seen by the others in a moment, and
//!   then they contradict: see [`ownership`](super::ownership).
//! - Of one server, and of a node that alone has slots, its own word is enough.

use super::node::Node;
use super::shared::Process;
use super::topology::Topology;
use crate::cache::Micros;

/// What the node of a cluster said of itself proves it up to `at`, as far as that goes: moves the watermarks on.
pub fn prove(process: &Process, node: &Node, at: Micros) {
    let (topology, coverages) = (process.topology(), process.cache.coverages());
    node.owned.prove(at);
    if topology.is_single() {
        if !node.owned.is_voiding() {
            coverages.advance(&node.feed, at);
        }
        return;
    }
    // What it was told of changes is applied, whatever the others say.
    coverages.hear(&node.feed, at);
    let proofs = Proofs::of(&topology);
    // What one has said may be what another waited for. While keys of one are still to be voided nothing is proven of it; what
    // it has said meanwhile counts with the next word of whichever node.
    for known in topology.nodes().iter().filter(|known| known.is_up() && !known.owned.is_voiding()) {
        coverages.advance(&known.feed, known.owned.proven().min(proofs.by_others(known)));
    }
}

/// Up to when the node is proven that proves itself up to `at`; never 0.
pub fn provable(process: &Process, node: &Node, at: Micros) -> Micros {
    let topology = process.topology();
    node.owned.prove(at);
    match !process.cluster.is() || topology.is_single() {
        true => at,
        false => at.min(Proofs::of(&topology).by_others(node)).max(1),
    }
}

/// When the masters with slots last spoke for themselves.
struct Proofs<'t> {
    topology: &'t Topology,
    /// The newest first.
    times: Vec<Micros>,
}

impl<'t> Proofs<'t> {
    fn of(topology: &'t Topology) -> Self {
        Self { topology, times: newest_first(topology.with_slots().map(|node| node.owned.proven())) }
    }

    /// Up to when so many others have proven that nobody has the node's place, that with it they are most.
    fn by_others(&self, node: &Node) -> Micros {
        let Some(last) = (self.times.len() / 2).checked_sub(1) else { return Micros::MAX };
        let doubters = node.owned.doubters();
        let times = if doubters.is_empty() {
            // As if it was one of the others; if it is among the first, one more is needed.
            let own = node.owned.proven();
            let is_first =
                self.times[last] <= own && self.topology.with_slots().any(|known| known.id == node.id);
            return self.times.get(last + usize::from(is_first)).copied().unwrap_or(0);
        } else {
            let others = self.topology.with_slots().filter(|known| known.id != node.id);
            newest_first(
                others.filter(|known| !doubters.contains(&known.id)).map(|known| known.owned.proven()),
            )
        };
        times.get(last).copied().unwrap_or(0)
    }
}

fn newest_first(times: impl Iterator<Item = Micros>) -> Vec<Micros> {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable_by(|one, other| other.cmp(one));
    times
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::fixture;
    use super::*;
    use crate::process::FeedUp;

    /// In front of so many masters, whose feeds are armed at 1.
    fn process(masters: usize) -> (Arc<Process>, Vec<Arc<Node>>) {
        let process = fixture::process(1);
        process.cluster.notice(&"a test");
        let node = |i: usize| {
            let id = process.cluster.next_node().unwrap();
            let node = Node::new(id, fixture::nowhere(), &process.cache).unwrap().named(&i.to_string());
            let coverage = process.cache.coverages().arm(&node.feed, None, 1).unwrap();
            node.feed_up.send_replace(Some(FeedUp { coverage, client_id: None, server: None, since: 1 }));
            Arc::new(node)
        };
        let nodes: Vec<_> = (0..masters).map(node).collect();
        let owner = |slot: u16| Some(slot % masters as u16);
        process.set_topology(Topology::sharded(nodes.clone(), owner).unwrap());
        (process, nodes)
    }

    fn watermarks(process: &Process, nodes: &[Arc<Node>]) -> Vec<Micros> {
        let coverages = process.cache.coverages();
        nodes.iter().map(|node| coverages.watermark(coverages.current(&node.feed).unwrap())).collect()
    }

    #[test]
    fn a_node_s_word_counts_as_far_as_most_have_spoken() {
        let (process, nodes) = process(3);
        prove(&process, &nodes[0], 100);
        assert_eq!(watermarks(&process, &nodes), [1, 1, 1], "it is alone");
        prove(&process, &nodes[1], 70);
        assert_eq!(watermarks(&process, &nodes), [70, 70, 1]);
        // The third may be away.
        prove(&process, &nodes[1], 130);
        assert_eq!(watermarks(&process, &nodes), [100, 100, 1]);
        prove(&process, &nodes[2], 90);
        assert_eq!(watermarks(&process, &nodes), [100, 100, 90]);
        assert_eq!(provable(&process, &nodes[2], 200), 130);
        assert_eq!(provable(&process, &nodes[2], 120), 120);
    }

    #[test]
    fn who_takes_it_for_failed_has_no_say_for_it() {
        let (process, nodes) = process(3);
        nodes[0].owned.doubt(nodes[1].id, true);
        prove(&process, &nodes[1], 50);
        prove(&process, &nodes[0], 60);
        assert_eq!(watermarks(&process, &nodes), [1, 50, 1]);
        prove(&process, &nodes[2], 40);
        assert_eq!(watermarks(&process, &nodes), [40, 50, 40]);
        nodes[0].owned.doubt(nodes[1].id, false);
        prove(&process, &nodes[2], 41);
        assert_eq!(watermarks(&process, &nodes), [50, 50, 41]);
    }

    #[test]
    fn of_five_two_more_are_needed_and_of_one_nobody() {
        let (process, nodes) = process(5);
        for (i, at) in [(0, 100), (1, 90), (2, 80), (3, 70)] {
            prove(&process, &nodes[i], at);
        }
        assert_eq!(watermarks(&process, &nodes), [80, 80, 80, 70, 1]);
        let (process, nodes) = self::process(1);
        prove(&process, &nodes[0], 100);
        assert_eq!(watermarks(&process, &nodes), [100]);
        assert_eq!(provable(&process, &nodes[0], 200), 200);
    }

    #[test]
    fn nothing_is_proven_of_one_of_which_keys_are_still_to_be_voided() {
        let (process, nodes) = process(3);
        prove(&process, &nodes[0], 50);
        nodes[0].owned.account(super::super::owned::Account {
            slots: [1, 2].into_iter().collect(),
            keeps: false,
            epoch: 1,
        });
        assert!(nodes[0].owned.lose(&[1].into_iter().collect()).is_some());
        prove(&process, &nodes[1], 60);
        assert_eq!(watermarks(&process, &nodes), [1, 50, 1]);
        prove(&process, &nodes[0], 70);
        assert_eq!(watermarks(&process, &nodes), [1, 60, 1]);
        nodes[0].owned.voided();
        prove(&process, &nodes[1], 80);
        assert_eq!(watermarks(&process, &nodes), [70, 70, 1], "what it said by then counts");
    }
}
