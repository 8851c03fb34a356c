//! What is passed on to clients as it comes: replies, and messages.

use super::link_handler::LinkHandler;
use crate::cache::{Micros, Reason};
use crate::io::LARGE;
use crate::namespace::Event;
use crate::reply::ReplySlot;
use crate::resp::decode::decode;
use crate::resp::pubsub::{is_message, message_word};
use crate::upstream::{At, Chunk};

impl LinkHandler {
    /// A subscriber is told of a change: when it reads the key here, it must not see what was before, even
    /// if it has heard sooner than the feed.
    pub fn note_announcement(&self, frame: &[u8]) {
        if self.process.namespaces.is_empty() || !is_message(message_word(frame)) {
            return;
        }
        let Ok(message) = decode(frame, 1) else { return };
        // The pattern comes before them, if there is one.
        let Some([.., channel, bare]) = message.as_array() else { return };
        let (Some(channel), Some(bare)) = (channel.as_bytes(), bare.as_bytes()) else { return };
        if let Some((namespace, event)) = self.process.namespaces.heard(channel) {
            let reason = if event == Event::Update { Reason::Update } else { Reason::Delete };
            self.process.cache.invalidate(&namespace.key(bare), reason, self.process.now());
        }
    }

    /// Passes a piece of a reply on; gives the slot back if more is to come.
    pub fn relay(&self, to: ReplySlot, since: Micros, chunk: Chunk<'_>, at: At) -> Option<ReplySlot> {
        if at.last {
            self.observe(since);
        }
        if at.first && at.last && chunk.len() < LARGE {
            to.whole(&chunk);
            return None;
        }
        to.piece(chunk.into_bytes(), at.last);
        (!at.last).then_some(to)
    }
}
