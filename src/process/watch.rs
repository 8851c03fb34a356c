//! Asks where new connections to a node lead, while it is in doubt whether it is still the server that it was.
//!
//! Invariants: see [`Role`](super::Role).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;

use super::node::Node;
use super::role::DOUBTED;
use super::shared::Process;
use crate::resp::Protocol;
use crate::upstream::{Identity, Reached, Who, backoff};

/// Between two questions where new connections lead.
const ASKED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Asks where new connections lead while that is in doubt. Runs until it is dropped.
pub async fn watch_role(process: Arc<Process>, node: Arc<Node>) {
    let who = Who::Own(process.settings.upstream.own.clone());
    let identity = Identity { who, db: 0, protocol: Protocol::Resp2 };
    let settings = node.upstream.without_limit();
    let role = &node.role;
    let mut turns = 0;
    loop {
        while !role.is_doubted(process.now()) {
            if timeout(DOUBTED, role.doubted()).await.is_err() {
                turns = 0;
                role.doubted().await;
            }
        }
        let reached = Reached::now(&settings, &identity).await;
        if let Some(reached) = reached {
            role.leads_to(reached.is_replica == Some(false));
            if is_better(&node, reached) {
                leave(
                    &process,
                    &node,
                    "the server takes no writes any more and new connections lead to another",
                );
            }
        }
        tokio::time::sleep(backoff(ASKED, turns)).await;
        turns += 1;
    }
}

/// Whether it is worth while to leave what the links are on for this. Where it does not say, it may be.
pub(super) fn is_better(node: &Node, reached: Reached) -> bool {
    let present = node.feed_up.borrow().and_then(|up| up.server);
    let same = present.is_some() && present == reached.server;
    !same && reached.is_replica != Some(true)
}

/// All links and the feed leave where they are, for `why`: new connections lead elsewhere already.
pub(super) fn leave(process: &Process, node: &Node, why: &str) {
    // First no link fills any more that is not of the new era, then what was filled is void, and what is under way with it.
    node.role.leave();
    process.cache.coverages().end(&node.feed, process.now());
    process.metrics.servers_left.inc();
    if let Some(untold) = process.metrics.servers_left_told.now() {
        warn!(upstream = %node.upstream.address, untold, "{why}: all links and the feed go there by themselves");
    }
}
