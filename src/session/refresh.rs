//! `on-update = "refresh"`: fetches a reply that was dropped because of an announced update.
//!
//! What always holds: nobody waits for it, and it obeys leases and fences as any other fill. One that an update has
//! overtaken is followed by another; see `cache`.

use std::rc::Rc;

use super::read::fetch_unasked;
use super::worker::Worker;
use crate::cache::{Bounds, Lookup, Wanted};

/// Fetches it, unless somebody does so already.
pub(super) fn refresh(worker: &Rc<Worker>, key: &[u8], wanted: &Wanted) {
    let shared = &worker.shared;
    let Some(link) = worker.known_link(wanted.ident) else { return };
    let name = wanted.name(key);
    if shared.cache.is_refreshed_again(&name) {
        return;
    }
    let namespace = shared.namespaces.find(key);
    let bounds = Bounds { max_staleness: shared.max_staleness(namespace), unreachable: false };
    let now = shared.now();
    let cover = || link.client().cover(namespace);
    let Lookup::Miss(lease) = shared.cache.lookup(&name, now, bounds, cover, |_| None, |_| ()) else {
        return;
    };
    lease.refreshes(wanted);
    if fetch_unasked(shared, &link, lease, now) {
        shared.metrics.refreshes.inc();
    }
}
