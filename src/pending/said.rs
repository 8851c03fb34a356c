//! The replies to announcements.

use std::collections::VecDeque;

use tracing::warn;

use super::announcement::Key;
use super::link_handler::LinkHandler;
use crate::cache::NO_LINK;
use crate::command::Say;
use crate::resp::scanner::Kind;
use crate::upstream::{At, Chunk};

/// Announcements under way.
pub struct Said {
    pub keys: VecDeque<(Key, Say)>,
    pub db: u32,
}

impl LinkHandler {
    /// A reply to an announcement.
    pub fn said(&self, mut said: Box<Said>, chunk: &Chunk<'_>, at: At) -> Option<Box<Said>> {
        if at.first
            && at.kind == Kind::Error
            && let Some((key, say)) = said.keys.front()
        {
            self.not_said(key, *say, said.db, chunk);
        }
        if at.last {
            said.keys.pop_front();
        }
        (!said.keys.is_empty()).then_some(said)
    }

    /// An announcement was refused.
    pub fn not_said(&self, key: &[u8], say: Say, db: u32, reply: &[u8]) {
        let (cache, now) = (&self.process.cache, self.process.now());
        cache.no_echo(key, now);
        if say != Say::Look {
            return self.count_failed(reply);
        }
        self.process.metrics.looks_refused.inc();
        let is = |text: &[u8]| reply.get(..text.len()).is_some_and(|said| said.eq_ignore_ascii_case(text));
        if is(b"-NOPERM") || is(b"-ERR") {
            self.forbid_looks();
        }
        if let Some(untold) = self.process.metrics.looks_refused_told.now() {
            let said = String::from_utf8_lossy(reply);
            warn!(
                reply = said.trim_end(),
                untold,
                "the upstream does not let nearside look (EVAL) whether a key is still there: `delete` is announced \
                 instead; let its user say EVAL (+eval)"
            );
        }
        if let Some(upcalls) = self.upcalls() {
            upcalls.announce(NO_LINK, db, vec![(key.into(), Say::Delete)]);
        }
    }

    fn count_failed(&self, chunk: &[u8]) {
        self.process.metrics.announcements_failed.inc();
        if let Some(untold) = self.process.metrics.announcements_failed_told.now() {
            let reply = String::from_utf8_lossy(chunk);
            let reply = reply.trim_end();
            warn!(
                reply,
                untold,
                "an announcement failed: other sidecars may serve the old value; let nearside's user say PUBLISH (+publish, &*)"
            );
        }
    }
}
