//! Commands without keys that concern all nodes of a cluster, by their request policy.

use std::sync::Arc;

use super::combine::How;
use super::context::Context;
use super::gathers::{Part, Plan};
use super::parts::{Way, send};
use super::raw::Raw;
use crate::process::Node;

/// Sends the request to all nodes. Says in which slot its reply will be, and whether that may have written keys which nobody
/// can name.
pub fn fan_out(cx: &Context, how: How, raw: Raw<'_>, way: Way) -> (u64, bool) {
    let request = raw.to_bytes();
    let part = |node: &Arc<Node>| Part { node: node.clone(), request: request.clone() };
    let parts = cx.topology.nodes().iter().map(part).collect();
    send(cx, &Raw::Own(request.clone()), parts, Plan::Combine { how, by_keys: false }, way)
}
