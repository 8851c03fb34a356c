//! What nodes say of hash slots with each heartbeat of their feeds: each of its own, and all of the others'.
//!
//! A `PING` is answered by a node, too, that has lost a hash slot, was demoted, or was cut off from the others. So in front of
//! each stand `CLUSTER INFO` and `CLUSTER NODES`. What that closes:
//!
//! - An absent key is told of by nobody when its slot moves, and while it is on the move the key may be made where it goes
//!   (`ASK`): a slot on the move is not the node's own.
//! - Servers before Redis 7.2 drop what is left of a slot that they lost without a word (redis#11084), 8.4 drops it later.
//! - A failover on order keeps the connections of clients: the node says that it is a replica.
//! - A master that is cut off says for a while that all is well. Those who see its heir contradict it, with a newer epoch.
//!
//! While one master is away all others may say that the cluster takes no requests (`cluster-require-full-coverage`), until its
//! heir is there. Nobody takes their slots from those who hear most of the masters meanwhile, and they take no writes, so what
//! was read there is as good as before. They get nothing new either: one that says so may just have come back, and not know yet
//! what it has lost.
//!
//! The same words again change nothing, and cost next to nothing: they are compared, and not read.

use std::collections::HashMap;
use std::sync::Arc;

use super::node::Node;
use super::node_id::NodeId;
use super::owned::Account;
use super::shared::Process;
use crate::resp::SlotSet;
use crate::upstream::NodeLine;

/// The node's feed heard this reply to `CLUSTER NODES`; `is_ok` is whether the node says that its cluster takes requests.
pub fn hear_of_slots(process: &Process, node: &Arc<Node>, is_ok: bool, nodes: &[u8]) {
    let topology = process.topology();
    if node.owned.is_contradicted() {
        node.owned.forget(|by| !topology.nodes().iter().any(|known| known.id == by));
        process.cluster.refresh_soon();
    }
    if node.owned.has_said(&lasting(is_ok, nodes)) {
        return;
    }
    process.cluster.refresh_soon();
    let lines = NodeLine::all_of(nodes).unwrap_or_default();
    let own = lines.iter().find(|line| line.is_myself);
    // Another than it was taken for: it was reset, or has the address of one that is gone.
    let own = own.filter(|own| node.name.as_ref().is_none_or(|name| **name == *own.id));
    let lost = node.owned.account(match own {
        Some(own) => Account {
            slots: if own.is_master && (is_ok || hears_most(&lines)) {
                settled(own)
            } else {
                SlotSet::default()
            },
            keeps: !is_ok,
            epoch: own.config_epoch,
        },
        None => Account { slots: SlotSet::default(), keeps: false, epoch: 0 },
    });
    process.void_slots(node, lost);
    // One that is no master of this cluster has no say in it.
    contradict(process, node, if own.is_some_and(|own| own.is_master) { &lines } else { &[] });
}

/// The node's feed may not ask, or was answered by what is no answer: nothing is known to be its own.
pub fn hear_nothing_of_slots(process: &Process, node: &Arc<Node>) {
    node.owned.has_said(b"");
    let epoch = node.owned.epoch();
    process.void_slots(node, node.owned.account(Account { slots: SlotSet::default(), keeps: false, epoch }));
}

/// Those that the node has, and that are not on the move.
fn settled(own: &NodeLine) -> SlotSet {
    let mut slots: SlotSet = own.slots.iter().flat_map(|(first, last)| *first..=*last).collect();
    own.moving.iter().for_each(|slot| slots.remove(*slot));
    slots
}

/// Whether it hears most of the masters that have slots, itself among them: as a node decides whether it is in the minority.
fn hears_most(lines: &[NodeLine]) -> bool {
    let masters = || lines.iter().filter(|line| line.is_master && !line.slots.is_empty());
    let heard = masters().filter(|line| !line.has_failed && !line.is_silent).count();
    heard > masters().count() / 2
}

/// What `by` says of the others: whom it knows for masters that are well; and that a hash slot is another's than the topology
/// says, who has it since a newer epoch.
fn contradict(process: &Process, by: &Node, lines: &[NodeLine]) {
    let topology = process.topology();
    let others = || topology.nodes().iter().filter(|node| node.id != by.id);
    let epochs: HashMap<NodeId, u64> = others().map(|node| (node.id, node.owned.epoch())).collect();
    let mut lost: HashMap<NodeId, (SlotSet, u64)> = HashMap::new();
    for line in lines.iter().filter(|line| line.is_master) {
        for slot in line.slots.iter().flat_map(|(first, last)| *first..=*last) {
            let Some(owner) = topology.owner_of(slot) else { continue };
            let is_same = owner.name.as_deref().is_none_or(|name| name == line.id);
            let Some(epoch) = epochs.get(&owner.id).filter(|_| !is_same) else { continue };
            if line.config_epoch > *epoch {
                let (slots, least) = lost.entry(owner.id).or_insert((SlotSet::default(), u64::MAX));
                slots.insert(slot);
                *least = (*least).min(line.config_epoch);
            }
        }
    }
    for node in others() {
        let (slots, epoch) = lost.remove(&node.id).unwrap_or_default();
        process.void_slots(node, node.owned.contradict(by.id, slots, epoch));
        let is_well = |line: &NodeLine| line.is_master && !line.has_failed && !line.slots.is_empty();
        let knows = lines.iter().any(|line| node.name.as_deref() == Some(&*line.id) && is_well(line));
        node.owned.doubt(by.id, !knows);
    }
}

/// Of these words those that last from one heartbeat to the next: not when the nodes last heard of one another.
fn lasting(is_ok: bool, nodes: &[u8]) -> Vec<u8> {
    /// When it was last asked, and has last answered; whether the connection to it stands.
    const PASSING: [usize; 3] = [4, 5, 7];
    let mut lasting = Vec::with_capacity(nodes.len());
    lasting.push(u8::from(is_ok));
    for line in nodes.split(|byte| *byte == b'\n') {
        let words = line.split(|byte| *byte == b' ').enumerate();
        for (_, word) in words.filter(|(i, _)| !PASSING.contains(i)) {
            lasting.extend_from_slice(word);
            lasting.push(b' ');
        }
        lasting.push(b'\n');
    }
    lasting
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::fixture;
    use super::super::topology::Topology;
    use super::*;
    use crate::resp::SLOTS;

    const IDS: [&str; 3] = ["aaaa", "bbbb", "cccc"];

    /// In front of masters that share the slots, each known to the topology as in [`IDS`].
    fn process(masters: usize) -> Arc<Process> {
        let process = fixture::process(1);
        let node = |i: usize| {
            let id = process.cluster.next_node().unwrap();
            Arc::new(Node::new(id, fixture::nowhere(), &process.cache).unwrap().named(IDS[i]))
        };
        let nodes = (0..masters).map(node).collect();
        let share = SLOTS / masters + 1;
        let owner = |slot: u16| Some((usize::from(slot) / share) as u16);
        process.set_topology(Topology::sharded(nodes, owner).unwrap());
        process
    }

    /// Lines of `CLUSTER NODES`: id, flags, epoch and slots.
    fn nodes(lines: &[(&str, &str, u64, &str)]) -> Vec<u8> {
        let line = |(id, flags, epoch, slots): &(&str, &str, u64, &str)| {
            format!("{id} 127.0.0.1:1@2 {flags} - 0 1 {epoch} connected {slots}\n")
        };
        let text: String = lines.iter().map(line).collect();
        format!("${}\r\n{text}\r\n", text.len()).into_bytes()
    }

    fn until_void(process: &Process) {
        let begun = Instant::now();
        while process.topology().nodes().iter().any(|node| node.owned.is_voiding()) {
            assert!(begun.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_node_has_what_it_says_but_for_what_is_on_the_move() {
        let process = process(1);
        let node = &process.topology().nodes()[0].clone();
        let says = |is_ok, flags: &str, slots: &str| {
            hear_of_slots(&process, node, is_ok, &nodes(&[("aaaa", flags, 1, slots)]));
            until_void(&process);
            node.owned.len()
        };
        assert_eq!(node.owned.len(), 0, "it has not spoken yet");
        assert_eq!(says(true, "myself,master", "0-16383"), SLOTS);
        assert_eq!(says(true, "myself,master", "0-16383 [7->-bbbb]"), SLOTS - 1);
        assert!(!node.owned.has(7) && node.owned.has(8));
        assert_eq!(says(true, "myself,master", "0-6 8-16383"), SLOTS - 1);
        assert_eq!(says(true, "myself,master", "0-6 8-16383 [7-<-bbbb]"), SLOTS - 1);
        assert_eq!(says(true, "myself,master", "0-16383"), SLOTS);
        assert_eq!(says(true, "myself,slave", ""), 0);
        assert_eq!(says(true, "myself,master", "0-16383"), SLOTS);
        assert_eq!(says(true, "master", "0-16383"), 0, "who is it?");
        hear_of_slots(&process, node, true, &nodes(&[("zzzz", "myself,master", 1, "0-16383")]));
        assert_eq!(node.owned.len(), 0, "another has its address");
        assert_eq!(says(true, "myself,master", "0-16383"), SLOTS);
        hear_nothing_of_slots(&process, node);
        assert_eq!(node.owned.len(), 0);
        assert_eq!(says(true, "myself,master", "0-16383"), SLOTS, "it is asked again");
        hear_of_slots(&process, node, true, b"-ERR This instance has cluster support disabled\r\n");
        assert_eq!(node.owned.len(), 0);
    }

    #[test]
    fn who_was_cut_off_is_contradicted_by_those_who_see_its_heir() {
        let process = process(3);
        let present = process.topology().nodes().to_vec();
        let [a, b, _] = &present[..] else { panic!() };
        let (cut, heir) = ("aaaa", "dddd");
        let of_a = |flags| (cut, flags, 1, "0-5461");
        hear_of_slots(&process, a, true, &nodes(&[of_a("myself,master")]));
        assert_eq!(a.owned.len(), 5462);
        // One that is behind says nothing against it.
        hear_of_slots(
            &process,
            b,
            true,
            &nodes(&[(heir, "master", 1, "0-5461"), ("bbbb", "myself,master", 2, "")]),
        );
        assert_eq!(a.owned.len(), 5462);
        let heirs = nodes(&[
            (cut, "master,fail", 1, ""),
            (heir, "master", 4, "0-5461"),
            ("bbbb", "myself,master", 2, ""),
        ]);
        hear_of_slots(&process, b, true, &heirs);
        until_void(&process);
        assert_eq!(a.owned.len(), 0);
        hear_of_slots(&process, a, true, &nodes(&[of_a("myself,master")]));
        assert_eq!(a.owned.len(), 0, "it does not know yet");
        hear_of_slots(&process, b, true, &nodes(&[of_a("master"), ("bbbb", "myself,master", 2, "")]));
        hear_of_slots(&process, a, true, &nodes(&[of_a("myself,master")]));
        assert_eq!(a.owned.len(), 5462, "nobody contradicts it any more");
    }

    #[test]
    fn while_the_cluster_takes_no_requests_who_hears_most_masters_keeps_what_it_had() {
        let process = process(1);
        let node = &process.topology().nodes()[0].clone();
        let says = |is_ok, others: [&str; 2], slots: &str| {
            let [b, c] = others;
            let own = ("aaaa", "myself,master", 1, slots);
            hear_of_slots(
                &process,
                node,
                is_ok,
                &nodes(&[own, ("b", b, 2, "100-199"), ("c", c, 3, "200-299")]),
            );
            until_void(&process);
            node.owned.len()
        };
        assert_eq!(says(false, ["master"; 2], "0-99"), 0, "it had nothing");
        assert_eq!(says(true, ["master"; 2], "0-99"), 100);
        assert_eq!(says(false, ["master", "master,fail"], "0-99"), 100);
        assert_eq!(says(false, ["master", "master,fail"], "0-98 300"), 99);
        assert_eq!(says(false, ["master,fail?", "master,fail"], "0-98"), 0, "it is in the minority");
        assert_eq!(says(false, ["master"; 2], "0-98"), 0, "it has just come back");
        assert_eq!(says(true, ["master"; 2], "0-98"), 99);
    }

    #[test]
    fn when_they_last_heard_of_one_another_is_no_news() {
        let line = |times: &str, link: &str, slots: &str| {
            format!("a 127.0.0.1:1@2 myself,master - {times} 3 {link} {slots}\n").into_bytes()
        };
        let first = lasting(true, &line("0 1", "connected", "1-5"));
        assert_eq!(first, lasting(true, &line("17 18", "disconnected", "1-5")));
        for other in [
            lasting(false, &line("0 1", "connected", "1-5")),
            lasting(true, &line("0 1", "connected", "1-6")),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn a_topology_in_which_a_slot_is_another_s_takes_it_from_who_had_it() {
        let process = process(2);
        let present = process.topology().nodes().to_vec();
        let says = |node: &Arc<Node>, line| hear_of_slots(&process, node, true, &nodes(&[line]));
        let line = ("aaaa", "myself,master", 1, "0-8192");
        says(&present[0], line);
        assert!(present[0].owned.has(5));
        let moved = process.topology().moved(5, &present[1]).unwrap();
        process.set_topology(moved);
        until_void(&process);
        assert!(!present[0].owned.has(5) && present[0].owned.has(6));
        says(&present[0], line);
        assert!(present[0].owned.has(5), "it says so, and who routes knows better");
    }
}
