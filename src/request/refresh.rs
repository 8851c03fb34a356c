//! `on-update = "refresh"`: fetches a reply that was dropped because of an announced update.
//!
//! Invariants: nobody waits for it, and it obeys leases and fences as any other fill. One that an update has
//! overtaken is followed by another; see `cache`.

use std::sync::Arc;

use super::fetch::fetch_unasked;
use crate::cache::Wanted;
use crate::process::Inbox;
use crate::router::Router;

/// Fetches it, unless somebody does so already.
pub fn refresh(inbox: &Arc<Inbox>, router: &Router, key: &[u8], wanted: &Wanted) {
    let process = router.process();
    let node = process.topology().owner(key).id;
    let Some(link) = router.known_link(node, wanted.ident) else { return };
    let namespace = process.namespaces.find(key);
    let (now, max_staleness) = (process.now(), process.max_staleness(namespace));
    let cover = || link.client().cover(key, namespace);
    let Some(lease) = process.cache.lease_refresh(key, wanted, now, max_staleness, cover) else { return };
    if fetch_unasked(inbox, &link, lease, now) {
        process.metrics.refreshes.inc();
    }
}
