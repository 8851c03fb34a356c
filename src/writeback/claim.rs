//! Claims: whoever touches a key past what is dirty says so first.
//!
//! Invariants: while a key is claimed none of its writes is taken, so once it is clean it stays so. A claim goes with its guard.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ack::Waiter;
use super::dirty::Dirty;
use super::engine::{Entry, WriteBack};

impl<W: Waiter> WriteBack<W> {
    /// A request is about to touch this key, or any: until the claim is dropped its writes go through.
    pub fn claim(self: &Arc<Self>, key: Option<&[u8]>) -> Claim<W> {
        match key {
            Some(key) => self.shard(key).entry(key.into()).or_default().claims += 1,
            None => {
                self.claims.fetch_add(1, Ordering::SeqCst);
                // Whoever did not see it has left its key dirty by now.
                self.all_shards().for_each(drop);
            }
        }
        Claim { engine: self.clone(), key: key.map(Into::into) }
    }
}

/// A request under way on a key, or on any.
pub struct Claim<W: Waiter> {
    engine: Arc<WriteBack<W>>,
    key: Option<Box<[u8]>>,
}

impl<W: Waiter> Claim<W> {
    /// Whether nothing is dirty there, and nothing would be after a crash. Once this is so it stays so, as long as the claim is held.
    pub fn is_clean(&self) -> bool {
        match &self.key {
            Some(key) => self.engine.shard(key).get(key).is_none_or(Entry::is_clean),
            None => self.engine.is_clean(),
        }
    }

    /// Has flushed what is dirty there, and the session woken when that is done, or at once if it is.
    pub fn wake_when_clean(&self, waiter: W) {
        let engine = &self.engine;
        let Some(key) = &self.key else {
            engine.waits.lock().push(waiter);
            engine.flush_all();
            engine.hurry();
            return engine.wake_if_clean();
        };
        let mut shard = engine.shard(key);
        match shard.get_mut(key) {
            Some(Entry { dirty: Some(dirty), waits, .. }) => {
                waits.push(waiter);
                dirty.due = true;
                engine.list_if_ready(key, dirty);
            }
            // The journal's thread is about to have forgotten it.
            Some(Entry { kept: true, waits, .. }) => {
                waits.push(waiter);
                engine.hurry();
            }
            _ => {
                drop(shard);
                waiter.wake();
            }
        }
    }

    /// Whether what is dirty there was tried to be flushed, and could not be.
    pub fn is_refused(&self) -> bool {
        let is_refused = |dirty: &Dirty<W>| dirty.refused > 0;
        match &self.key {
            Some(key) => {
                let shard = self.engine.shard(key);
                shard.get(key).and_then(|entry| entry.dirty.as_deref()).is_some_and(is_refused)
            }
            None => self.engine.has_refused(),
        }
    }

    /// Whether it is on all keys.
    pub fn is_of_all(&self) -> bool {
        self.key.is_none()
    }

    /// The engine that it belongs to.
    pub fn engine(&self) -> &Arc<WriteBack<W>> {
        &self.engine
    }
}

impl<W: Waiter> Drop for Claim<W> {
    fn drop(&mut self) {
        let Some(key) = &self.key else {
            self.engine.claims.fetch_sub(1, Ordering::SeqCst);
            return;
        };
        let mut shard = self.engine.shard(key);
        if let Some(entry) = shard.get_mut(key) {
            entry.claims -= 1;
            if entry.is_idle() {
                shard.remove(key);
            }
        }
    }
}
