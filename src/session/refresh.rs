//! `on-update = "refresh"`: fetches a reply that was dropped because of an announced update.
//!
//! What always holds: nobody waits for it, and it obeys leases and fences as any other fill. One that an update has
//! overtaken is followed by another; see `cache`.

use std::rc::Rc;

use bytes::BytesMut;

use super::core::send_on;
use super::expect::What;
use super::read::{Fill, write_fill};
use super::worker::Worker;
use crate::cache::{Bounds, Lookup, Wanted};
use crate::upstream::Outgoing;

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
    let Lookup::Miss(lease) = shared.cache.lookup(&name, now, bounds, cover, || None, |_| ()) else { return };
    let mut request = BytesMut::new();
    let Some(fields) = write_fill(&mut request, &shared.table(), &name) else { return };
    lease.refreshes(wanted);
    shared.metrics.refreshes.inc();
    let fill = Fill::new(shared, None, lease, fields);
    let _ =
        send_on(&link, now, |out: &mut Outgoing| out.append(request.freeze()), What::Fill(Box::new(fill)));
}
