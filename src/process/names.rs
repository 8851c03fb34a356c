//! Looks from time to time whether a node's name still leads to where its connections are.
//!
//! Invariants:
//! - Without it a name is resolved anew for each new connection, which is enough where the old server goes, or says that it is
//!   a replica. It is for those that live on and are not the ones that are meant any more.
//! - Nothing is left before another server, which does not say that it is a replica, is reached by what the name says now. A
//!   name that does not resolve, or leads to the same server by another address, changes nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::warn;

use super::node::Node;
use super::shared::Process;
use super::watch::{is_better, leave};
use crate::resp::Protocol;
use crate::upstream::{Identity, Location, Reached, Settings, Who, backoff};

/// Looks `every` so often at most, and half as often at least. Runs until it is dropped.
pub async fn refresh_name(process: Arc<Process>, node: Arc<Node>, every: Duration) {
    let address = match &node.upstream.address {
        Location::Fixed(address) => address,
        Location::Member(member) => member.address(),
        Location::Elected(_) => return std::future::pending().await,
    };
    let identity =
        Identity { who: Who::Own(process.settings.upstream.own.clone()), db: 0, protocol: Protocol::Resp2 };
    let upstream = node.upstream.without_limit();
    // Of its own: what it reaches is not where the links are.
    let probe = Settings { dial: upstream.dial.another(), ..upstream.clone() };
    loop {
        sleep(backoff((every, every), 0)).await;
        let moved = timeout(upstream.connect_timeout, upstream.dial.has_moved(address)).await;
        if !matches!(moved, Ok(Ok(true))) {
            continue;
        }
        match Reached::now(&probe, &identity).await {
            Some(reached) if is_better(&node, reached) => {
                leave(&process, &node, "the upstream's name leads to another server");
            }
            reached => {
                let why = match reached {
                    None => "nothing there lets nearside in",
                    Some(reached) if reached.is_replica == Some(true) => "what is there is a replica",
                    Some(_) => continue,
                };
                if let Some(untold) = process.metrics.names_told.now() {
                    warn!(upstream = %address, untold, why, "the upstream's name leads elsewhere, and nearside stays: see what the name is to lead to");
                }
            }
        }
    }
}
