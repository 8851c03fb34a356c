//! Requests that a cluster has not executed, on their way again.
//!
//! Invariants:
//! - While the topology is another than the session's, or anything is to be sent again, nothing new of the session goes
//!   upstream, nor is anything served to it. It goes on when nothing that it has sent is unanswered; by the newest topology
//!   then. So of two of its requests for one key, the second is not executed before the first is, wherever they go.
//! - Requests go again in the order in which they came, and those of one key or hash slot not before those in front of them. The
//!   first of a hash slot goes alone, for a node that has just refused may take the next; the others follow when it is taken.
//! - What was written behind a request of the same key forbids that it is sent again: then its client gets the refusal. What
//!   was read behind it is read anew, after it.
//! - What was read of other keys behind a request that is long in going is read anew, too, unless it was written since: it would be too old when
//!   it leaves. So are the parts of a read that are there already.
//! - Each is sent again at most [`TURNS`] times, with growing delays, and for no longer than `upstream-timeout`. That it cannot be
//!   sent, because its node is gone, counts only when no replica can be expected to take its place any more.
//! - A script may have said so itself, and be executed: that its hash slot is no more the node's that says so is to be heard from others, too,
//!   before it goes there; and one that was sent to where a slot will be, and is sent back, is not executed again.
//! - `ASK` counts for one sending. What is asked for so is never kept, for the node does not own it.

use std::collections::HashSet;
use std::sync::Arc;
use std::task::Context as Task;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::about;
use super::admit::{Action, Admission};
use super::concern::{Concern, Concerns};
use super::resending::{KEYS_MOVE, MOVED, PATIENCE, Resending, TURNS, Unsent};
use super::state::Session;
use crate::cache::Reason;
use crate::command::{Kind, Table};
use crate::pending::{is_owned_at, node_at};
use crate::process::{Node, Topology};
use crate::reply::{Again, Refusal, Standing};
use crate::request::{Raw, Resent, begin_anew, give_up_parts, preload, read, send_parts_again};
use crate::resp::Redirection;
use crate::resp::framer::{Frame, RequestFramer};
use crate::router::Target;
use crate::upstream::backoff;

/// Before a request is sent again, the first time and at most: by what has refused it. See also [`resending`](super::resending).
const STATE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
const UNREACHABLE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

/// What is due so soon goes with what is due now.
const TOGETHER: Duration = Duration::from_millis(2);

/// So long a replica may take to take the place of a node that is gone: by default it is missed after 15 seconds. What could not
/// be sent waits for that as long as other nodes are there.
const PROMOTION: Duration = Duration::from_secs(20);

/// So long it may take until others say the same as a script does, and so often it is looked.
const HEARSAY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(20));

/// A request that was put back, or was answered behind one that was.
struct Request {
    slot: u64,
    bytes: Bytes,
    concern: Concern,
    again: Option<Again>,
}

impl Session {
    /// Sends again what is due. Says whether anything was done.
    pub(super) fn send_again(&mut self, table: &Table, task: &mut Task<'_>) -> bool {
        let has_back = self.cx.queue.has_back();
        if !has_back && !self.resending.is_begun() || self.cx.queue.has_sent() {
            return false;
        }
        if !has_back {
            self.resending = Resending::default();
            return false;
        }
        let before = self.adopt();
        let timer = self.resending.timer.as_mut();
        if before.is_none() && timer.is_some_and(|timer| timer.as_mut().poll(task).is_pending()) {
            return false;
        }
        let mut framer = RequestFramer::new(self.cx.process.settings.limits);
        let standing = self.cx.queue.standing().into_iter();
        let mut requests: Vec<_> = standing.map(|of| Request::of(of, table, &mut framer)).collect();
        let (fixed, stays) = self.refuse_overtaken(&mut requests);
        self.recall_reads(&mut requests, &stays);
        self.read_whole(&mut requests, &fixed, table, &mut framer);
        let next = self.send_due(requests, before.as_deref(), table, &mut framer);
        self.resending.timer = None;
        if self.cx.queue.has_sent() {
            // Whose replies wake the session.
            return true;
        }
        if !self.cx.queue.has_back() {
            self.resending = Resending::default();
        } else if let Some(due) = next {
            let timer = self.resending.timer.insert(Box::pin(sleep_until(due)));
            if timer.as_mut().poll(task).is_ready() {
                self.cx.queue.wake();
            }
        }
        true
    }

    /// Those of whose keys something was written behind them are not sent again. What is left can be, and what was read behind
    /// it can be read anew, but for those that are given, with what they concern.
    fn refuse_overtaken(&mut self, requests: &mut Vec<Request>) -> (Concerns, HashSet<u64>) {
        let mut fixed = Concerns::default();
        let (mut refused, mut stays) = (HashSet::new(), HashSet::new());
        for request in requests.iter().rev() {
            let meets = fixed.meet(&request.concern);
            match request.again {
                Some(_) if meets => drop(refused.insert(request.slot)),
                Some(_) => {}
                // What was read before a later write cannot be read after it.
                None if meets || !request.concern.reads => {
                    fixed.add(&request.concern);
                    stays.insert(request.slot);
                }
                None => {}
            }
        }
        for request in requests.extract_if(.., |request| refused.contains(&request.slot)) {
            self.give_up(&request, Unsent::Overtaken);
        }
        (fixed, stays)
    }

    /// Whether what was read when it was first refused is old by now: with what remains of the bound the reply to what goes now can
    /// come.
    fn is_late(&self, again: &Again) -> bool {
        again.first.elapsed() > self.cx.process.tightest_staleness() / 4
    }

    /// What was read behind a request that goes again is read after it; of other keys, too, if it is old by now, unless it `stays`.
    fn recall_reads(&self, requests: &mut Vec<Request>, stays: &HashSet<u64>) {
        let (mut going, mut line, mut is_late) = (Concerns::default(), Bytes::new(), false);
        requests.retain_mut(|request| {
            if let Some(again) = &request.again {
                line.clone_from(&again.refusal.line);
                is_late |= self.is_late(again);
            } else if !stays.contains(&request.slot) && (is_late || going.meet(&request.concern)) {
                let refusal = Refusal { said: Some(Redirection::TryAgain), by: None, line: line.clone() };
                request.again = self.cx.queue.recall(request.slot, refusal);
            }
            let goes = request.again.is_some();
            if goes {
                going.add(&request.concern);
            }
            goes
        });
    }

    /// Of what is read in parts, those that are there are read anew, too, if they are old by now, unless that would show them what
    /// is `fixed`.
    fn read_whole(
        &self,
        requests: &mut [Request],
        fixed: &Concerns,
        table: &Table,
        framer: &mut RequestFramer,
    ) {
        let is_late = |request: &Request| request.again.as_ref().is_some_and(|again| self.is_late(again));
        for request in requests.iter_mut().filter(|request| request.concern.reads && is_late(request)) {
            let whole = self.cx.queue.whole_request(request.slot);
            let Some(whole) = whole.filter(|_| self.cx.gathers.begins_anew(request.slot)) else { continue };
            let concern = concern_of(&whole, table, framer);
            if !fixed.meet(&concern) {
                begin_anew(&self.cx, request.slot);
                (request.bytes, request.concern) = (whole, concern);
            }
        }
    }

    /// Sends what is due; says when the next is.
    fn send_due(
        &mut self,
        requests: Vec<Request>,
        before: Option<&Topology>,
        table: &Table,
        framer: &mut RequestFramer,
    ) -> Option<Instant> {
        let patience = self.cx.process.settings.upstream.reply_timeout;
        let patience = if patience.is_zero() { PATIENCE } else { patience };
        let back: HashSet<u64> = requests.iter().map(|request| request.slot).collect();
        let taken = self.resending.first.drain().filter(|(_, went)| !back.contains(went));
        self.resending.open.extend(taken.map(|(slot, _)| slot));
        let (mut held, mut next, now) = (Concerns::default(), None::<Instant>, Instant::now());
        for request in requests {
            let Some(again) = &request.again else { continue };
            let end = again.first + patience;
            if self.is_hopeless(again, &request.concern) || now >= end {
                self.give_up(&request, Unsent::Exhausted);
                continue;
            }
            let is_doubted = request.concern.is_script && self.is_doubted(again);
            if is_doubted && again.since.elapsed() > HEARSAY.0 {
                self.give_up(&request, Unsent::Exhausted);
                continue;
            }
            let (due, asked) = self.due(again);
            let moved = |before: &Topology| {
                let of = |topology: &Topology, slot| topology.owner_of(slot).map(|node| node.id);
                request.concern.slots().any(|slot| of(before, slot) != of(&self.cx.topology, slot))
            };
            let due = if before.is_some_and(moved) { now } else { due.min(end) };
            let due = if is_doubted { now + HEARSAY.1 } else { due };
            let due = if due <= now + TOGETHER { now } else { due };
            let Resending { first, open, .. } = &mut self.resending;
            let behind = |slot| first.contains_key(&slot) && !open.contains(&slot);
            if due > now || request.concern.slots().any(behind) || held.meet(&request.concern) {
                if due > now {
                    next = Some(next.map_or(due, |next| next.min(due)));
                }
                held.add(&request.concern);
                continue;
            }
            first.extend(request.concern.slots().map(|slot| (slot, request.slot)));
            self.resend(&request, asked, table, framer);
        }
        next
    }

    /// Whether sending it again would come to nothing.
    fn is_hopeless(&self, again: &Again, concern: &Concern) -> bool {
        let named = again.refusal.said.as_ref().and_then(Redirection::slot);
        // It is not the server that says so.
        let is_forged =
            |named| concern.slots().next().is_some() && !concern.slots().any(|slot| slot == named);
        let others_are_up = || self.cx.topology.nodes().iter().any(|node| node.is_up());
        let waits = again.refusal.said.is_none() && again.first.elapsed() < PROMOTION && others_are_up();
        let is_back = concern.is_script && again.was_asked && named.is_some();
        again.turns >= TURNS && !waits || named.is_some_and(is_forged) || is_back
    }

    /// Whether nobody else says that the hash slot is where this `MOVED` leads, or at least not where it was said.
    fn is_doubted(&self, again: &Again) -> bool {
        let Refusal { said: Some(Redirection::Moved { slot, to }), by, .. } = &again.refusal else {
            return false;
        };
        // It may have moved on since.
        let owner = self.cx.topology.owner_of(*slot).and_then(|owner| owner.address());
        let is_elsewhere = by.as_ref().zip(owner).is_some_and(|(by, owner)| **by != *owner);
        !is_elsewhere && !is_owned_at(&self.cx.process, &self.cx.topology, *slot, to)
    }

    /// When it is to go, and the node to which an `ASK` leads.
    fn due(&mut self, again: &Again) -> (Instant, Option<Arc<Node>>) {
        let (turns, pauses) = (again.turns, &mut self.resending.pauses);
        let mut after = |between: (Duration, Duration), times| {
            again.since + *pauses.entry((between.0, times)).or_insert_with(|| backoff(between, times))
        };
        let mut at_once = |between| if turns == 0 { again.since } else { after(between, turns - 1) };
        let (process, topology) = (&self.cx.process, &self.cx.topology);
        match &again.refusal.said {
            // It may be that of a node that is not known yet.
            Some(Redirection::Moved { slot, to }) => {
                let is_known = is_owned_at(process, topology, *slot, to);
                (if is_known { at_once(MOVED) } else { after(STATE, turns) }, None)
            }
            Some(Redirection::Ask { to, .. }) => match node_at(process, topology, to) {
                Some(node) => (at_once(MOVED), Some(node.clone())),
                None => (after(STATE, turns), None),
            },
            Some(Redirection::TryAgain) => (after(KEYS_MOVE, turns), None),
            Some(_) => (after(STATE, turns), None),
            None => (after(UNREACHABLE, turns), None),
        }
    }

    /// Sends it on its ordinary way, or to the node that is `asked`.
    fn resend(
        &mut self,
        again: &Request,
        asked: Option<Arc<Node>>,
        table: &Table,
        framer: &mut RequestFramer,
    ) {
        let (slot, bytes) = (again.slot, &again.bytes);
        self.cx.again = Some(Resent { slot, asks: true });
        let in_parts = send_parts_again(&self.cx, slot).is_some();
        self.cx.again = None;
        if in_parts {
            // Of its parts some may be asked of another node than the owner.
            self.resending.asks = true;
            self.cx.process.metrics.resent.inc();
            return;
        }
        let Ok(Frame::Request(_)) = framer.next(bytes) else { return self.give_up(again, Unsent::Exhausted) };
        let request = framer.request(bytes);
        let row = table.lookup(&request);
        let valid = row.is_some_and(|row| row.takes(request.len()));
        let action = match row.map(|row| (row, row.kind(&request))) {
            Some((row, Kind::Plain)) if valid => self.plain(row, &request),
            Some((_, Kind::Plain | Kind::Exec | Kind::Discard | Kind::Unwatch)) => Action::Forward,
            _ => return self.give_up(again, Unsent::Exhausted),
        };
        self.cx.queue.goes_again(slot);
        self.cx.process.metrics.resent.inc();
        self.cx.again = Some(Resent { slot, asks: asked.is_some() });
        // Who has a connection of its own reads past the cache.
        if let Action::Read = action
            && asked.is_none()
            && self.is_shared()
        {
            if read::read_again(&self.cx, table, slot, bytes) {
                self.turn.count_hit();
            }
            self.cx.again = None;
            return;
        }
        self.resending.asks |= asked.is_some();
        let action = match action {
            Action::Read => Action::Bypass(Reason::NoCoverage),
            Action::Mget => Action::Bypass(Reason::Uncacheable),
            action => action,
        };
        let raw = Raw::Own(bytes.clone());
        match (action, asked) {
            (Action::Info, _) => about::info(&self.cx, &request, raw),
            (action, Some(node)) => {
                let there = self.cx.link_to(Target::Node(node.clone())).ok().flatten();
                preload(&self.cx, row, &request, there.as_ref().unwrap_or(&self.cx.link));
                let link = self.cx.asking_link(node);
                self.send_to(Some(&link), Admission { row, action }, &request, raw);
            }
            (action, None) => self.send_shared(Admission { row, action }, &request, raw),
        }
        self.cx.again = None;
    }

    /// Its client gets the last refusal.
    fn give_up(&self, request: &Request, why: Unsent) {
        let Some(again) = &request.again else { return };
        let metrics = &self.cx.process.metrics;
        metrics.unresent[why as usize].inc();
        if let Some(untold) = metrics.unresent_told.now() {
            let reply = String::from_utf8_lossy(&again.refusal.line);
            let why = match why {
                Unsent::Overtaken => "what came behind it was executed meanwhile",
                Unsent::Exhausted => "it was refused again and again",
            };
            warn!(
                reply = reply.trim_end(),
                turns = again.turns,
                why,
                untold,
                "a request that the cluster did not execute is not sent again: its client has the error, and may say it anew"
            );
        }
        if give_up_parts(&self.cx, request.slot).is_none() {
            self.cx.slot(request.slot).refuse(&again.refusal);
        }
    }
}

impl Request {
    fn of(standing: Standing, table: &Table, framer: &mut RequestFramer) -> Self {
        let Standing { slot, request: bytes, again } = standing;
        let concern = concern_of(&bytes, table, framer);
        Self { slot, bytes, concern, again }
    }
}

fn concern_of(bytes: &Bytes, table: &Table, framer: &mut RequestFramer) -> Concern {
    let Ok(Frame::Request(_)) = framer.next(bytes) else { return Concern::unknown() };
    let request = framer.request(bytes);
    Concern::of(table.lookup(&request), &request)
}
