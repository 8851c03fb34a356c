//! What the feed is told of changes: announcements on the namespaces' channels, and the upstream's own reports.

use tracing::debug;

use super::client::{FeedClient, MAX_DEPTH};
use super::hooks::Hooks;
use crate::cache::{Micros, Reason, Waiter};
use crate::namespace::{Event, Namespace, OnUpdate};
use crate::resp::decode::{Value, decode};

/// Keys for which an announcement is awaited, at most: those of one large write.
const MAX_AWAITED: usize = 1024;

/// And replies of one of them.
const MAX_AWAITED_REPLIES: usize = 256;

impl<W: Waiter, H: Hooks> FeedClient<W, H> {
    pub(super) fn message(&self, frame: &[u8]) {
        let Ok(frame) = decode(frame, MAX_DEPTH) else { return };
        let Some(parts) = frame.as_array() else { return };
        match (parts.first().and_then(Value::as_bytes), parts) {
            (Some(b"message"), [_, channel, payload]) => {
                if let (Some(channel), Some(payload)) = (channel.as_bytes(), payload.as_bytes()) {
                    self.announced(channel, payload);
                }
            }
            (Some(b"invalidate"), [_, keys]) => self.tracked(keys),
            (word, _) => debug!(?word, "the feed heard what it does not know"),
        }
    }

    fn announced(&self, channel: &[u8], bare: &[u8]) {
        let feed = &self.feed;
        let Some((namespace, event)) = feed.hooks.namespaces().heard(channel) else { return };
        let (key, now) = (namespace.key(bare), feed.hooks.now());
        if !feed.hooks.owns(&key) {
            // It comes to all nodes' feeds, once to each. Only that of the key's own node has it in order with what is read
            // there, and what is awaited once must not be counted twice.
            return;
        }
        if namespace.writes_back().is_some() && !feed.cache.awaits_echo(&key) {
            feed.hooks.told(namespace, &key, true);
        }
        match event {
            Event::Delete => {
                self.awaited.borrow_mut().remove(&key);
                feed.hooks.metrics().heard_deletes.inc();
                feed.cache.heard(&key, Reason::Delete, now);
            }
            Event::Update => {
                feed.hooks.metrics().heard_updates.inc();
                match namespace.on_update() {
                    OnUpdate::Invalidate => feed.cache.heard(&key, Reason::Update, now),
                    OnUpdate::Refresh => {
                        let mut wanted = feed.cache.heard_for_refresh(&key, Reason::Update, now);
                        wanted.extend(self.awaited.borrow_mut().remove(&key).unwrap_or_default());
                        if !wanted.is_empty() {
                            feed.hooks.refresh(&key, wanted);
                        }
                    }
                }
            }
        }
    }

    fn tracked(&self, keys: &Value) {
        let feed = &self.feed;
        let now = feed.hooks.now();
        let Some(keys) = keys.as_array() else {
            self.awaited.borrow_mut().clear();
            feed.hooks.metrics().heard_flushes.inc();
            feed.cache.flush_of(feed.hooks.slot(), Reason::Tracking);
            feed.hooks.told_of_all();
            return;
        };
        feed.hooks.metrics().heard_tracking.add(keys.len() as u64);
        for key in keys.iter().filter_map(Value::as_bytes) {
            let namespace = feed.hooks.namespaces().find(key);
            if let Some(namespace) = namespace.filter(|namespace| namespace.writes_back().is_some()) {
                feed.hooks.told(namespace, key, false);
            }
            match namespace.map(Namespace::on_update) {
                Some(OnUpdate::Refresh) => self.drop_and_await(key, now),
                _ => feed.cache.heard(key, Reason::Tracking, now),
            }
        }
    }

    fn drop_and_await(&self, key: &[u8], now: Micros) {
        let mut wanted = self.feed.cache.heard_for_refresh(key, Reason::Tracking, now);
        if wanted.is_empty() {
            return;
        }
        let mut awaited = self.awaited.borrow_mut();
        if awaited.len() >= MAX_AWAITED {
            awaited.clear();
        }
        let known = awaited.entry(key.to_vec()).or_default();
        wanted.retain(|wanted| !known.iter().any(|known| known.is(wanted)));
        known.extend(wanted);
        known.truncate(MAX_AWAITED_REPLIES);
    }
}
