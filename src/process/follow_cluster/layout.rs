//! From what a node has said to nodes that are reached.
//!
//! Invariants: a node is told by what the cluster calls it. One that is announced under another address than before is
//! reached where it was, as long as its feed stands there: two names of one node make no second one.

use std::collections::HashMap;
use std::sync::Arc;

use tracing::{debug, warn};

use super::look::Seen;
use crate::io::Address;
use crate::process::node::Node;
use crate::process::settings::ClusterSettings;
use crate::process::shared::Process;
use crate::process::topology::Topology;
use crate::resp::SlotSet;
use crate::upstream::{self, Location, Member, SlotRange};

/// A master as it was seen.
pub(super) struct Master {
    name: String,
    pub(super) address: Address,
}

/// The masters that were seen, each once: those with hash slots as clients are to reach them, then the others.
pub(super) fn masters(seen: &Seen, settings: &ClusterSettings) -> Vec<Master> {
    let asked = |host: Option<&str>| host.map_or_else(|| seen.host().to_owned(), str::to_owned);
    let (mut masters, mut by_name) = (Vec::new(), false);
    for range in &seen.ranges {
        let host = asked(range.host.as_deref());
        by_name |=
            seen.lines.iter().any(|line| line.id == range.id && line.hostname.as_deref() == Some(&*host));
        let address = Address::Tcp { host, port: range.port };
        masters.push(Master { name: name_of(seen, range), address });
    }
    let idle = seen.lines.iter().filter(|line| line.is_master && !line.has_failed && !line.is_unsure);
    for line in idle {
        let hostname = line.hostname.as_deref().filter(|_| by_name);
        let host = asked(hostname.or(line.host.as_deref()));
        masters.push(Master { name: line.id.clone(), address: Address::Tcp { host, port: line.port } });
    }
    let mut known = std::collections::HashSet::new();
    masters.retain(|master| known.insert(master.name.clone()));
    masters.iter_mut().for_each(|master| master.address = settings.reached(master.address.clone()));
    masters
}

/// The hash slots of a master.
pub(super) fn slots_of(seen: &Seen, master: &Master) -> SlotSet {
    let is_its = |range: &&SlotRange| name_of(seen, range) == master.name;
    seen.ranges.iter().filter(is_its).flat_map(|range| range.first..=range.last).collect()
}

/// What the node of these hash slots is called; before Redis 4 there are no names.
fn name_of(seen: &Seen, range: &SlotRange) -> String {
    match range.id.is_empty() {
        true => {
            let host = range.host.clone().unwrap_or_else(|| seen.host().to_owned());
            Address::Tcp { host, port: range.port }.to_string()
        }
        false => range.id.clone(),
    }
}

/// The topology that was seen. Nodes that stay are those of the present one. `None` if there is no room for more nodes.
pub(super) fn topology(process: &Process, seen: &Seen) -> Option<Topology> {
    let present = process.topology();
    let (mut nodes, mut places) = (Vec::<Arc<Node>>::new(), HashMap::new());
    let masters = masters(seen, &process.settings.cluster);
    // In the order in which they are known, so that what concerns no key goes where it went.
    let of_present = |master: &Master| present.nodes().iter().position(|node| is(node, master));
    let (mut stay, mut new): (Vec<_>, Vec<_>) =
        masters.iter().partition(|master| of_present(master).is_some());
    stay.sort_by_key(|master| of_present(master));
    stay.append(&mut new);
    for master in stay {
        let node = match of_present(master) {
            Some(place) => present.nodes()[place].clone(),
            None => Arc::new(node_of(process, master)?),
        };
        if let Some(twin) = nodes.iter().find(|known| known.address().is_some_and(|at| *at == master.address))
        {
            twice(process, master, twin);
        }
        places.insert(&*master.name, u16::try_from(nodes.len()).ok()?);
        nodes.push(node);
    }
    let mut owners = vec![None; crate::resp::SLOTS];
    for range in &seen.ranges {
        let place = places.get(&*name_of(seen, range));
        owners[usize::from(range.first)..=usize::from(range.last)].fill(place.copied());
    }
    Topology::sharded(nodes, |slot| owners[usize::from(slot)])
}

/// Whether that node is this one as it was seen.
fn is(node: &Node, master: &Master) -> bool {
    match &node.name {
        Some(name) => {
            **name == *master.name && (node.is_up() || node.address().is_some_and(|at| *at == master.address))
        }
        None => false,
    }
}

fn node_of(process: &Process, master: &Master) -> Option<Node> {
    let like = &process.settings.upstream;
    let upstream = upstream::Settings {
        address: Location::Member(Member::new(master.address.clone())),
        dial: like.dial.another(),
        ..like.clone()
    };
    let node = process.cluster.next_node().and_then(|id| Node::new(id, upstream, &process.cache));
    if node.is_none() {
        warn!(node = %master.name, address = %master.address, "there is no room for another node of the cluster; restart nearside");
    }
    debug!(node = %master.name, address = %master.address, "a node of the cluster");
    node.map(|node| node.named(&master.name))
}

fn twice(process: &Process, master: &Master, twin: &Node) {
    if let Some(untold) = process.metrics.topology_told.now() {
        warn!(
            address = %master.address, untold,
            "two nodes of the cluster, {} and {}, announce one address: see cluster-announce-ip and \
             cluster-address-map", master.name, twin.name.as_deref().unwrap_or("?")
        );
    }
}
