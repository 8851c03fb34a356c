//! What is passed on to clients: replies, changed where they speak of nearside's own connections, and messages.

use bytes::BytesMut;

use super::super::expect::Change;
use super::super::queue::ReplySlot;
use super::LinkHandler;
use crate::cache::{Micros, Reason};
use crate::namespace::Event;
use crate::resp::decode::decode;
use crate::resp::pubsub::{is_message, message_word};
use crate::resp::scanner::Kind;
use crate::upstream::{At, Chunk, LARGE};

impl LinkHandler {
    /// A subscriber is told of a change: when it reads the key here, it must not see what was before, even
    /// if it has heard sooner than the feed.
    pub(super) fn note_announcement(&self, frame: &[u8]) {
        if self.shared.namespaces.is_empty() || !is_message(message_word(frame)) {
            return;
        }
        let Ok(message) = decode(frame, 1) else { return };
        // The pattern comes before them, if there is one.
        let Some([.., channel, bare]) = message.as_array() else { return };
        let (Some(channel), Some(bare)) = (channel.as_bytes(), bare.as_bytes()) else { return };
        if let Some((namespace, event)) = self.shared.namespaces.heard(channel) {
            let reason = if event == Event::Update { Reason::Update } else { Reason::Delete };
            self.shared.cache.invalidate(&namespace.key(bare), reason, self.shared.now());
        }
    }

    pub(super) fn relay(&self, to: ReplySlot, since: Micros, chunk: Chunk<'_>, at: At) -> Option<ReplySlot> {
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

    pub(super) fn change(&self, to: &ReplySlot, mut reply: BytesMut, kind: Kind, change: Change) {
        match change {
            Change::Info if kind != Kind::Error => {
                reply = super::super::nearside::with_section(&self.shared, reply);
            }
            Change::Library(session, attribute, value) if kind != Kind::Error => {
                session.is_made_with(&attribute, value);
            }
            Change::Redirect if kind != Kind::Error => {
                reply = super::super::clients::redirected(&to.queue.session().who(), reply);
            }
            Change::Info | Change::Library(..) | Change::Redirect => {}
            Change::HelloId(id, leaves) => {
                let whole = At { kind, first: true, last: true };
                leaves.into_iter().for_each(|mut leaves| leaves.reply(&reply, whole, &self.pushes));
                reply = super::super::local::with_number(reply, b"$2\r\nid\r\n:", |_| id as i64);
            }
        }
        to.piece(reply.freeze(), true);
    }
}
