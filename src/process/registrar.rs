//! Keys that wait to be registered with a node's feed, before they are read into the cache.
//!
//! Invariants: so many wait at most; beyond that the fetch is given up, and its client was answered already. What waits is
//! let go when the feed is lost, so nobody waits for a registration that does not come: the feed's coverage ends first, and
//! then what waits is taken; whoever asks adds to it first, and then looks whether a coverage stands.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::inbox::Registration;

/// Keys that may wait, of one node.
const MAX_KEYS: usize = 1 << 14;

/// Keys of which it is remembered that they were refused, and for how long.
const MAX_REFUSED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
const REFUSED: Duration = Duration::from_secs(10);

/// See the [module](self).
#[derive(Default)]
pub struct Registrar {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    /// Keys that nearside's user may not ask for, and when that was last said.
    refused: Mutex<Option<LruCache<Box<[u8]>, Instant>>>,
}

#[derive(Default)]
struct Waiting {
    registrations: Vec<Registration>,
    keys: usize,
}

impl Registrar {
    /// Has its keys registered, if the feed `stands` once they wait: else all that waits is let go. Gives it back if too
    /// many wait.
    pub fn ask(&self, registration: Registration, stands: impl FnOnce() -> bool) -> Result<(), Registration> {
        let mut waiting = self.waiting.lock();
        let keys = waiting.keys + registration.leases.len();
        if keys > MAX_KEYS {
            return Err(registration);
        }
        waiting.keys = keys;
        waiting.registrations.push(registration);
        drop(waiting);
        if !stands() {
            drop(self.take());
            return Ok(());
        }
        self.arrived.notify_one();
        Ok(())
    }

    /// There is something to be done, though nobody has asked.
    pub fn wake(&self) {
        self.arrived.notify_one();
    }

    /// These keys may not be asked for.
    pub fn refuse<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        let mut refused = self.refused.lock();
        let refused = refused.get_or_insert_with(|| LruCache::new(MAX_REFUSED));
        keys.for_each(|key| {
            refused.put(key.into(), Instant::now());
        });
    }

    /// Whether that was said of the key lately: then it is not fetched for, and nobody waits for another's read of it.
    pub fn is_refused(&self, key: &[u8]) -> bool {
        let mut refused = self.refused.lock();
        let said = refused.as_mut().and_then(|refused| refused.get(key));
        said.is_some_and(|said| said.elapsed() < REFUSED)
    }

    /// Rights have changed.
    pub fn forget_refusals(&self) {
        self.refused.lock().take();
    }

    /// All that wait now.
    pub fn take(&self) -> Vec<Registration> {
        std::mem::take(&mut *self.waiting.lock()).registrations
    }

    /// Ends when there may be something to take.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Arc;

    use super::super::inbox::{Inbox, Message, Ticket};
    use super::*;
    use crate::cache::{Bounds, By, Cache, Cover, EntryKey, IdentId, LinkId, Lookup};

    fn registration(
        cache: &Arc<Cache<Ticket>>,
        cover: Cover,
        inbox: &Arc<Inbox>,
        keys: Range<usize>,
    ) -> Registration {
        let lease = |i: usize| {
            let key = i.to_string();
            let name =
                EntryKey { key: key.as_bytes(), ident: IdentId(0), command: 1, args: b"", by: By::ITSELF };
            let bounds = Bounds { max_staleness: 1, unreachable: false, group: 0 };
            match cache.lookup(&name, 1, bounds, || Some(cover), |_| None, |_| ()) {
                Lookup::Miss(lease) => lease,
                _ => panic!("no lease"),
            }
        };
        let leases = keys.map(lease).collect();
        Registration { leases, link: cover.link, inbox: inbox.clone() }
    }

    #[tokio::test]
    async fn so_many_keys_wait_at_most_and_who_waits_is_told_when_they_are_registered() {
        let cache = Arc::new(Cache::new(1 << 20, 1 << 20, 0));
        let slot = cache.coverages().take().unwrap();
        let coverage = cache.coverages().arm(&slot, None, 1).unwrap();
        let cover = Cover { coverage, link: LinkId(7), registers: true };
        let (registrar, inbox) = (Registrar::default(), Arc::new(Inbox::default()));
        assert!(registrar.ask(registration(&cache, cover, &inbox, 0..MAX_KEYS), || true).is_ok());
        registrar.arrived().await;
        let crowded = registration(&cache, cover, &inbox, MAX_KEYS..MAX_KEYS + 1);
        assert!(registrar.ask(crowded, || true).is_err(), "one too many");
        let taken = registrar.take();
        assert_eq!(taken.iter().map(|one| one.keys().count()).sum::<usize>(), MAX_KEYS);
        assert!(registrar.take().is_empty());
        let alone: Vec<_> = taken.into_iter().flat_map(Registration::split).collect();
        assert_eq!(alone.len(), MAX_KEYS);
        let first = alone.into_iter().next().unwrap();
        assert!(first.leases.iter().all(|lease| !lease.is_registered()));
        first.confirm();
        let told = inbox.take().await;
        let [Message::Registered(told)] = &told[..] else { panic!("the worker was told") };
        assert!(told.link == LinkId(7) && told.leases.iter().all(|lease| lease.is_registered()));
        assert!(
            registrar.ask(registration(&cache, cover, &inbox, MAX_KEYS..MAX_KEYS + 1), || true).is_ok(),
            "there is room again"
        );
    }

    #[test]
    fn what_comes_behind_the_end_of_the_feed_does_not_wait_for_the_next() {
        let cache = Arc::new(Cache::new(1 << 20, 1 << 20, 0));
        let slot = cache.coverages().take().unwrap();
        let coverage = cache.coverages().arm(&slot, None, 1).unwrap();
        let cover = Cover { coverage, link: LinkId(7), registers: true };
        let (registrar, inbox) = (Registrar::default(), Arc::new(Inbox::default()));
        let late = registration(&cache, cover, &inbox, 0..1);
        // The feed's coverage ends, and what waits is let go, between a lookup and its question.
        cache.coverages().end(&slot, 2);
        drop(registrar.take());
        let stands = || cache.coverages().current(&slot).is_some();
        assert!(registrar.ask(late, stands).is_ok());
        assert!(
            registrar.take().is_empty(),
            "the upstream may be away for long, and others wait for the same reply"
        );
    }
}
