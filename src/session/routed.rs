//! Requests on links that sessions share: to the node of their keys, or in parts to several.

use super::admit::{Action, Admission};
use super::command::Command;
use super::state::{Mode, Session};
use crate::cache::Reason;
use crate::command::{Access, Kind, Row};
use crate::process::errors;
use crate::request::fan_out::fan_out;
use crate::request::scan::scan;
use crate::request::split::split;
use crate::request::{CrossSlot, How, Raw, Way, note_scripts, preload};
use crate::resp::request::Request;
use crate::router::Target;

impl Session {
    /// Sends a request to whom it concerns.
    pub(super) fn send_shared(&mut self, admission: Admission<'_>, request: &Request<'_>, raw: Raw<'_>) {
        let (cx, row) = (&self.cx, admission.row);
        if cx.topology.is_single() {
            return self.send_to(None, admission, request, raw);
        }
        note_scripts(cx, row, request);
        let target = cx.target(row, request);
        let reads =
            matches!(admission.action, Action::Mget) && matches!(target, Target::Split | Target::Node(_));
        if reads {
            return self.send_to(None, admission, request, raw);
        }
        match (target, row) {
            (target @ (Target::Split | Target::All | Target::Scan), Some(row)) => {
                match admission.action {
                    Action::Bypass(reason) => cx.process.cache.count(reason),
                    _ if row.access == Access::Read => cx.process.cache.count(Reason::Uncacheable),
                    _ => {}
                }
                self.send_parts(target, row, request, raw, Way::Shared);
            }
            (target, _) => match cx.link_to(target) {
                Ok(link) => {
                    preload(cx, row, request, link.as_ref().unwrap_or(&cx.link));
                    self.send_to(link.as_ref(), admission, request, raw);
                }
                Err(CrossSlot) => cx.queue.reply(&errors::line(errors::CROSS_SLOT)),
            },
        }
    }

    fn send_parts(&mut self, target: Target, row: &Row, request: &Request<'_>, raw: Raw<'_>, way: Way) {
        let cx = &self.cx;
        let sent = match target {
            Target::Split => split(cx, row, request, &raw, way),
            Target::Scan => {
                scan(cx, request, way);
                None
            }
            _ => How::of(row.policy, &row.name).map(|how| fan_out(cx, how, raw, way)),
        };
        if let Some((slot, true)) = sent {
            self.barrier.set(Some(slot));
        }
    }

    /// Whether a request that would go on a connection of the session's own went out in parts, each on one of its own: it may
    /// wait at the servers, hold them up, or be too much for them, and concerns several.
    pub(super) fn sends_parts_aside(&mut self, command: Command<'_>, raw: &Raw<'_>) -> bool {
        let Command { row, kind, request } = command;
        if self.cx.topology.is_single() || !matches!(self.mode, Mode::Shared) {
            return false;
        }
        note_scripts(&self.cx, row, request);
        let way = match kind {
            Kind::Aside => Way::Aside,
            Kind::Blocking => Way::Waiting,
            Kind::Plain => Way::Own,
            _ => return false,
        };
        match (self.cx.target(row, request), row) {
            (target @ (Target::Split | Target::All | Target::Scan), Some(row)) => {
                let raw = match raw {
                    Raw::Copy(bytes) => Raw::Copy(bytes),
                    Raw::Own(bytes) => Raw::Own(bytes.clone()),
                };
                self.send_parts(target, row, request, raw, way);
                true
            }
            _ => false,
        }
    }
}
