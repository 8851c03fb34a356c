//! The session's turn: what had to wait, then request after request.

use std::task::{Context as Task, Poll};

use bytes::Bytes;

use super::about;
use super::admit::{Action, Admission};
use super::command::Command;
use super::gate;
use super::presented;
use super::state::{Mode, Session};
use super::tunnel::Wanted;
use crate::command::{Access, Row, Table};
use crate::process::errors;
use crate::request::{Raw, finish, mget, read};
use crate::resp::request::Request;

impl Session {
    /// Before a batch of requests: takes the time, and does what had to wait. Says whether anything was done.
    pub fn begin_batch(&mut self, table: &Table, task: &mut Task<'_>) -> bool {
        self.cx.now = self.cx.process.now();
        self.turn.is_timed();
        if self.cx.client.has_orders() {
            self.obey(task);
        }
        if self.minds_dirty {
            self.drop_claims();
        }
        let mut done = self.poll_changing(task) | self.poll_asking(table);
        self.unsettled = self.cx.link.client().front.is_unsettled(self.cx.now);
        if !self.cx.process.is_single() || !self.cx.gathers.is_empty() {
            done |= !self.cx.gathers.is_empty() && finish(&self.cx);
            done |= self.send_again(table, task);
            self.unsettled |= self.is_behind();
        }
        if self.unsettled && !self.settle(false) && self.cx.queue.has_joined() {
            // What was released waits until it is known which way to go.
            return done;
        }
        while let Some((slot, request)) = self.cx.queue.next_released() {
            if read::read_again(&self.cx, table, slot, &request) {
                self.turn.count_hit();
            }
            done = true;
        }
        if self.unfinished.is_some() {
            let progress = mget::go_on(&self.cx, &mut self.unfinished);
            done |= self.note_progress(progress);
        }
        if self.changing.is_none() {
            done |= self.go_on_alone(table);
        }
        done
    }

    /// Does what others have asked of the session.
    #[cold]
    fn obey(&mut self, task: &mut Task<'_>) {
        if self.cx.client.is_killed() {
            self.quit = true;
            self.cx.queue.cut_off();
            return;
        }
        if self.is_shared() && (self.cx.queue.waiting() > 0 || self.changing.is_some()) {
            // It is woken when these are done.
            return;
        }
        self.dedicate();
        let id = match self.present_link().poll_ready(task) {
            Poll::Pending => return,
            Poll::Ready(Ok(())) => self.present_link().client().upstream_id(),
            Poll::Ready(Err(_)) => None,
        };
        self.cx.client.calls().into_iter().for_each(|call| call.answer(id));
    }

    /// `last` is the row of the last request.
    pub fn end_batch(&mut self, last: Option<&Row>) {
        let (requests, hits) = self.turn.report();
        if requests == 0 {
            return;
        }
        let cx = &self.cx;
        cx.client.note(cx.now, last.map(|row| row.id));
        cx.process.metrics.requests.add(requests);
        if hits > 0 {
            cx.client.note_hits(hits);
            cx.process.cache.touch(cx.now);
            let took = cx.process.now().saturating_sub(cx.now);
            cx.process.metrics.hit_latency.observe(took, hits);
        }
    }

    /// Whether another request may be taken now; if not, the session is woken when it may.
    pub fn may_proceed(&mut self, task: &mut Task<'_>) -> bool {
        if self.turn.is_due() {
            self.cx.now = self.cx.process.now();
        }
        if self.turn.looks {
            self.turn.looks = self.is_held_up(task);
        }
        !self.turn.looks && self.cx.queue.may_open()
    }

    /// Whether anything but the replies that are open holds the session up. Within a batch only its own requests can
    /// change that, and the clock; a hit cannot.
    fn is_held_up(&self, task: &mut Task<'_>) -> bool {
        self.turn.is_giving_way()
            || self.unfinished.is_some()
            || self.changing.is_some()
            || self.asking.is_some()
            || self.tunnel.is_some()
            || self.quit
            || self.present_link().is_congested(task)
            || self.is_crowded_out(task)
    }

    /// Likewise for the links to a cluster's other nodes.
    fn is_crowded_out(&self, task: &mut Task<'_>) -> bool {
        let mut crowded = self.cx.crowded.borrow_mut();
        let is = crowded.as_ref().is_some_and(|link| link.is_congested(task));
        if !is {
            *crowded = None;
        }
        is
    }

    /// Does with a request what it was [admitted](Session::admit) for.
    pub fn execute(&mut self, admission: Admission<'_>, request: &Request<'_>, raw: Raw<'_>) {
        self.turn.handled += 1;
        self.turn.looks = true;
        let Admission { row, action } = admission;
        match action {
            Action::Read => {
                let hit = read::read(&self.cx, row, request, raw);
                match hit {
                    true => self.turn.count_hit(),
                    false => self.cx.client.note_miss(),
                }
                self.turn.looks = !hit;
                if !hit && self.minds_dirty && self.claims.is_idle() {
                    self.claim_read(row, request);
                }
                if !hit && !self.cx.topology.is_single() {
                    self.unsettled |= self.cx.queue.has_back();
                }
            }
            Action::Forward | Action::Mget | Action::Bypass(_) | Action::Write => {
                let reads = self.minds_dirty && matches!(action, Action::Mget);
                self.send_shared(Admission { row, action }, request, raw);
                if reads {
                    self.claim_read(row, request);
                }
                if !self.cx.topology.is_single() {
                    // It could not be sent.
                    if self.cx.gathers.newest_is_over() {
                        finish(&self.cx);
                    }
                    self.unsettled |= self.cx.queue.has_back();
                }
            }
            Action::Taken => self.turn.looks = false,
            Action::Blocked => self.cx.queue.reply(&errors::line(&self.claims.error)),
            Action::Refuse => self.cx.queue.reply(&errors::line(&gate::refusal(row, request))),
            Action::Presented => {
                if let Some(row) = row {
                    presented::answer(&self.cx, row, request, raw);
                }
            }
            Action::Info => about::info(&self.cx, request, raw),
            Action::Local(local) => {
                self.cx.client.note(self.cx.now, row.map(|row| row.id));
                self.answer_here(local, request, raw);
            }
            Action::Dedicated(kind) => {
                let command = Command { row, kind, request };
                match self.sends_parts_aside(command, &raw) {
                    true => self.unsettled |= self.is_behind(),
                    false => self.send_dedicated(command, raw),
                }
            }
            Action::Tunnel => {
                let said = match &self.mode {
                    Mode::Dedicated(dedicated) => dedicated.said(),
                    Mode::Shared => Default::default(),
                };
                let writes = row.is_some_and(|row| row.access != Access::None);
                let request = Bytes::copy_from_slice(request.raw());
                self.tunnel = Some(Wanted { said, request, writes });
            }
        }
        if self.minds_dirty {
            self.hold_claims();
        }
    }
}
