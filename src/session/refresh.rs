//! `on-update = "refresh"`: fetches a reply that was dropped because of an announced update.
//!
//! Invariants: nobody waits for it, and it obeys leases and fences as any other fill. One that an update has
//! overtaken is followed by another; see `cache`.

use std::rc::Rc;

use super::read::fetch_unasked;
use super::worker::Worker;
use crate::cache::Wanted;

/// Fetches it, unless somebody does so already.
pub(super) fn refresh(worker: &Rc<Worker>, key: &[u8], wanted: &Wanted) {
    let shared = &worker.shared;
    let Some(link) = worker.known_link(wanted.ident) else { return };
    let namespace = shared.namespaces.find(key);
    let (now, max_staleness) = (shared.now(), shared.max_staleness(namespace));
    let cover = || link.client().cover(namespace);
    let Some(lease) = shared.cache.lease_refresh(key, wanted, now, max_staleness, cover) else { return };
    if fetch_unasked(shared, &link, lease, now) {
        shared.metrics.refreshes.inc();
    }
}
