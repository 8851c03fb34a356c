//! What is known to stand upstream, without a lookup: nothing is counted, nothing is fetched.

use super::coverage::Micros;
use super::entry_key::EntryKey;
use super::flights::Waiter;
use super::shards::{Cache, State};

impl<W: Waiter> Cache<W> {
    /// Shows `look` the reply that a hit of `name` would be served now, and when its time to live upstream ends, if it has one that
    /// is known; nothing if there would be none.
    pub fn standing<T>(
        &self,
        name: &EntryKey<'_>,
        now: Micros,
        max_staleness: Micros,
        look: impl FnOnce(&[u8], Option<Micros>) -> T,
    ) -> Option<T> {
        let place = self.place(name.key);
        let mut shard = self.shards[place.shard].lock();
        let (head, body) = shard.store.find(name, place.hash)?;
        let is_fresh = max_staleness > 0 && self.state(head, body, max_staleness, now) == State::Fresh;
        is_fresh.then(|| look(body.reply(head), (!head.is_aged()).then_some(head.expires)))
    }

    /// Whether an announcement of ours of this key is still to come back.
    pub fn awaits_echo(&self, key: &[u8]) -> bool {
        let place = self.place(key);
        self.shards[place.shard].lock().echoes.are_awaited(key, place.hash)
    }
}
