//! How a session's own connection is used: what is sent there, and what is awaited in return.

use super::dedicated::Dedicated;
use super::phase::Phase;
use crate::cache::Reason;
use crate::command::{Access, CacheRule, Row};
use crate::pending::{Effect, Leaves, Pending, WATCH, WriteSet, send};
use crate::reply::ReplySlot;
use crate::request::{Context, Raw, write};
use crate::resp::request::Request;

impl Dedicated {
    /// Counts a read under the reason why it goes past the cache.
    pub(super) fn count_read(&self, cx: &Context, row: Option<&Row>, request: &Request<'_>) {
        let Some(row) = row.filter(|row| row.access == Access::Read) else { return };
        cx.process.cache.count(match row.cache(request) {
            CacheRule::Never => Reason::Uncacheable,
            _ if self.phase() == Phase::Transaction => Reason::Transaction,
            _ if self.state.may_have(WATCH) => Reason::Watching,
            _ if self.pushes().has_listened() => Reason::Subscribed,
            _ => Reason::Dedicated,
        });
    }

    pub(super) fn write(&mut self, cx: &Context, mut write_set: WriteSet, raw: Raw<'_>) {
        let to = self.place(cx);
        write_set.db = Some(self.db(cx));
        write::send(write_set, cx, &self.link, to, raw);
    }

    /// Where the next reply goes: the next place, or that of what is sent again.
    fn place(&mut self, cx: &Context) -> ReplySlot {
        self.again.take().unwrap_or_else(|| cx.open())
    }

    pub(super) fn relay(&mut self, cx: &Context, raw: Raw<'_>) {
        self.send(cx, raw, Pending::Relay);
    }

    pub(super) fn send(&mut self, cx: &Context, raw: Raw<'_>, pending: impl FnOnce(ReplySlot) -> Pending) {
        let to = self.place(cx);
        let _ = send(&self.link, cx.now, |out| raw.write(out), pending(to));
    }

    /// Sends what changes the connection's state if the server accepts it.
    pub(super) fn leave(&mut self, cx: &Context, effect: Effect, raw: Raw<'_>) {
        let leaves = Leaves::one(&self.state, effect);
        self.send(cx, raw, |to| Pending::Leave(to, leaves));
    }
}
