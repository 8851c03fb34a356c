//! What becomes of a request on a link that others share.

use super::admit::{Action, Admission};
use super::state::Session;
use super::unblock::{unblocking, where_to_unblock};
use crate::cache::Reason;
use crate::command::{Access, Row};
use crate::pending::{Bypass, Link, Pending, WriteSet};
use crate::request::mget::{self, Progress};
use crate::request::{Raw, keys_of, write};
use crate::resp::request::Request;

impl Session {
    /// Sends a request on a link that others share; `None` is the session's own.
    pub(super) fn send_to(
        &mut self,
        other: Option<&Link>,
        admission: Admission<'_>,
        request: &Request<'_>,
        raw: Raw<'_>,
    ) {
        let (cx, row) = (&self.cx, admission.row);
        let link = other.unwrap_or(&cx.link);
        let bypass = |reason: Reason, raw: Raw<'_>| {
            cx.process.cache.count(reason);
            let bypass = Bypass { keys: keys_of(row, request), ..Bypass::default() };
            cx.forward_on(link, raw, |to| Pending::Bypass(to, Box::new(bypass)));
        };
        match admission.action {
            Action::Write => {
                let mut write_set = WriteSet::of_one();
                write_set.add(&cx.process, row, request);
                if cx.client.is_own {
                    write_set.is_flush();
                }
                let to = cx.open_for(&raw);
                if write_set.is_barrier() {
                    self.barrier.set(self.barrier.get().max(Some(to.slot)));
                }
                write::send(write_set, cx, link, to, raw);
            }
            Action::Bypass(reason) => bypass(reason, raw),
            Action::Mget => {
                let (progress, unfinished) = mget::mget(cx, request, raw);
                self.unfinished = unfinished;
                self.note_progress(progress);
            }
            _ => {
                if row.is_some_and(|row| row.access == Access::Read) {
                    cx.process.cache.count(Reason::Uncacheable);
                }
                let link = self.unblocks_elsewhere(row, request).unwrap_or_else(|| link.clone());
                let at = link.client().node.id;
                let raw = unblocking(&cx.process, at, row, request).map_or(raw, Raw::Own);
                cx.forward_on(&link, raw, Pending::Relay);
            }
        }
    }

    /// In front of a cluster: the link to the node at which a session waits that is to be unblocked.
    fn unblocks_elsewhere(&self, row: Option<&Row>, request: &Request<'_>) -> Option<Link> {
        if self.cx.topology.is_single() {
            return None;
        }
        let id = where_to_unblock(&self.cx.process, row, request)?;
        let node = self.cx.topology.nodes().iter().find(|node| node.id == id)?.clone();
        Some(self.cx.link_at(node))
    }

    /// What has become of an `MGET`: says whether anything was done.
    pub(super) fn note_progress(&mut self, progress: Progress) -> bool {
        match progress {
            Progress::Waits => return false,
            Progress::Worked => {}
            Progress::Over { hit: false } => self.cx.client.note_miss(),
            Progress::GivesWay => self.turn.give_way(),
            Progress::Over { hit: true } => self.turn.count_hit(),
        }
        true
    }
}
