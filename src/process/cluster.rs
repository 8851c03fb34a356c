//! Whether the upstream is a cluster, and who wants to know more of it.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tracing::info;

use super::node_id::NodeId;

/// How long the first clients wait until the upstream has said whether it is a cluster that was not named so.
const UNNAMED: Duration = Duration::from_millis(300);

/// See the [module](self).
pub struct Cluster {
    is: AtomicBool,
    /// It was looked at once, whatever came of it.
    pub(super) looked: watch::Sender<bool>,
    pub(super) wanted: Notify,
    /// One topology is made at a time.
    pub(super) making: Mutex<()>,
    next: AtomicU16,
    /// What the one node is called that clients are told of, if they are told of a cluster.
    shown_as: String,
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
            shown_as: (0..5).map(|i| format!("{:08x}", RandomState::new().hash_one(i) as u32)).collect(),
        }
    }

    pub fn shown_as(&self) -> &str {
        &self.shown_as
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
    pub(super) fn next_node(&self) -> Option<NodeId> {
        let next = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| next.checked_add(1));
        next.ok().map(NodeId)
    }

    /// Waits until somebody says that it is one.
    pub(super) async fn noticed(&self) {
        while !self.is() {
            self.wanted.notified().await;
        }
    }
}
