//! What is known of the upstream as a cluster, and who asks for it: see [`follow_cluster`].

mod follow;
mod layout;
mod look;

pub use follow::follow_cluster;

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tracing::info;

use super::node::NodeId;
use super::shared::Process;
use crate::io::Address;

/// How long the first clients wait until the upstream has said whether it is a cluster that was not named so.
const UNNAMED: Duration = Duration::from_millis(300);

/// What the configuration says of a cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterSettings {
    /// Nodes that may be asked for the others; the upstream's address, if that is one server's.
    pub seeds: Vec<Address>,
    /// The upstream is a cluster, or nothing.
    pub is_named: bool,
    /// What nodes announce, and where they are reached instead.
    pub mapped: Vec<(Address, Address)>,
    /// Whether commands are divided that do to each of their keys what they would do to it alone.
    pub splits: bool,
    /// Whether clients are told of a cluster, of one node.
    pub is_shown: bool,
}

/// See the [module](self).
pub struct Cluster {
    is: AtomicBool,
    /// It was looked at once, whatever came of it.
    looked: watch::Sender<bool>,
    wanted: Notify,
    /// One topology is made at a time.
    making: Mutex<()>,
    next: AtomicU16,
}

impl Cluster {
    pub(super) fn new(is: bool, nodes: usize) -> Self {
        let next = AtomicU16::new(u16::try_from(nodes).unwrap_or(u16::MAX));
        Self {
            is: AtomicBool::new(is),
            looked: watch::Sender::new(false),
            wanted: Notify::new(),
            making: Mutex::default(),
            next,
        }
    }

    /// Whether the upstream is known to be one.
    #[inline]
    pub fn is(&self) -> bool {
        self.is.load(Ordering::Relaxed)
    }

    /// A server has said that it is a node of one.
    pub fn notice(&self, by: &dyn std::fmt::Display) {
        if !self.is.swap(true, Ordering::SeqCst) {
            info!(upstream = %by, "the upstream is a node of a cluster, and is served as one");
        }
        self.refresh_soon();
    }

    /// The nodes, or whose the slots are, may have changed: somebody is asked soon.
    pub fn refresh_soon(&self) {
        self.wanted.notify_one();
    }

    /// A server has said that it is none of a cluster, or does not say.
    pub fn is_told_of_none(&self) {
        if !self.is() {
            self.looked.send_replace(true);
        }
    }

    /// Waits until it is known whether the upstream is one, and which nodes it has, or that this is not told; but not for
    /// long.
    pub async fn looked(&self, patience: Duration) {
        let mut looked = self.looked.subscribe();
        let _ = timeout(
            if self.is() { patience } else { patience.min(UNNAMED) },
            looked.wait_for(|looked| *looked),
        )
        .await;
    }

    /// A number for another node; `None` once there are none left.
    fn next_node(&self) -> Option<NodeId> {
        let next = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| next.checked_add(1));
        next.ok().map(NodeId)
    }
}

impl Process {
    /// A node has said that this hash slot is another's now. It is asked for there at once if that is known, and else soon.
    pub fn slot_has_moved(&self, slot: u16, to: &Address) {
        let _making = self.cluster.making.lock();
        let to = layout::reached(&self.settings.cluster, to.clone());
        let present = self.topology();
        let moved = present.node_at(&to).and_then(|node| present.moved(slot, node));
        drop(present);
        if let Some(moved) = moved {
            self.set_topology(moved);
        }
        self.cluster.refresh_soon();
    }
}
