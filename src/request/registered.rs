//! Reads into the cache what was missed where keys are registered with the feed first: the client that missed it was answered
//! at once, past the cache.
//!
//! Invariants: a lease that came to nothing meanwhile is not read for. It may have been voided by what the feed was told
//! before the registration (a write's own report, an echo); so another is taken in its place, twice at most.

use std::collections::HashMap;
use std::sync::Arc;

use super::fetch::fetch_unasked;
use super::mget;
use super::refresh::refresh;
use crate::cache::By;
use crate::pending::CacheLease;
use crate::process::{Inbox, Registration};
use crate::resp::key_slot;
use crate::router::Router;

/// The keys are registered.
pub fn registered(inbox: &Arc<Inbox>, router: &Router, registration: Registration) {
    let Registration { leases, link, .. } = registration;
    let link = router.link_of(link).filter(|link| link.client().is_at_feed());
    let Some(link) = link else { return };
    let (good, void): (Vec<_>, Vec<_>) = leases.into_iter().partition(|lease| lease.is_good());
    let now = router.process().now();
    match good.first().map(|lease| lease.name().by) {
        Some(By::MGET) if router.process().cluster.is() => {
            // There, the keys of one command must be of one hash slot.
            let mut slots: HashMap<u16, Vec<CacheLease>> = HashMap::new();
            for lease in good {
                slots.entry(key_slot(lease.name().key)).or_default().push(lease);
            }
            slots.into_values().for_each(|leases| mget::fetch_unasked(&link, leases, now));
        }
        Some(By::MGET) => mget::fetch_unasked(&link, good, now),
        _ => good.into_iter().for_each(|lease| {
            fetch_unasked(inbox, &link, lease, now);
        }),
    }
    for lease in void {
        let wanted = lease.renew().map(|wanted| (Box::<[u8]>::from(lease.name().key), wanted));
        // Its flight goes before another is opened.
        drop(lease);
        if let Some((key, wanted)) = wanted {
            refresh(inbox, router, &key, &wanted);
        }
    }
}
