//! For unit tests of the rooms above: an upstream that is never reached, and a process in front of it.

use std::sync::Arc;
use std::time::Duration;

use super::{Node, NodeId, Process, Settings, Topology};
use crate::cache::Cache;
use crate::io::Address;
use crate::namespace::{Namespaces, Tracking};
use crate::resp::framer::Limits;
use crate::upstream;

const SECOND: Duration = Duration::from_secs(1);

/// Of an upstream that is nowhere: what connects to it fails.
pub fn nowhere() -> upstream::Settings {
    upstream::Settings {
        address: Address::Unix("/nowhere".into()).into(),
        own: None,
        connect_timeout: SECOND,
        reply_timeout: SECOND,
        ours: Default::default(),
        dial: Default::default(),
    }
}

/// A process whose one node is nowhere.
pub fn process(max_links: usize) -> Arc<Process> {
    let settings = Settings {
        upstream: nowhere(),
        login: None,
        db: 0,
        password: None,
        limits: Limits::default(),
        output_limit: 1 << 20,
        max_links,
        stall_timeout: SECOND,
        max_staleness: SECOND,
        max_age: SECOND,
        stale_if_error: false,
        tracking: Tracking::Off,
        cache_commands: None,
        described: Vec::new(),
    };
    let cache = Cache::new(1 << 20, 1 << 20, 0);
    let node = Node::new(NodeId(0), settings.upstream.clone(), &cache).unwrap();
    let topology = Topology::single(Arc::new(node));
    Arc::new(Process::new(topology, settings, cache, Namespaces::new(Vec::new())).unwrap())
}
