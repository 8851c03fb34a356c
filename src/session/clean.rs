//! What a session does where writes are acknowledged before they are upstream.
//!
//! Invariants:
//! - A request that is not answered from what is dirty claims the keys that it may touch before it is sent: their writes go
//!   through from then on, and what is dirty of them is flushed first. The claims are held until it is answered; those of a
//!   transaction, or of what is watched, until that is over.
//! - So of two requests of one session for one key the second never overtakes the first: its write is taken here only while no
//!   request of the session for that key is under way.

use std::time::Duration;

use tokio::time::Instant;

use super::claims::{Next, Until};
use super::roam::wake_at;
use super::state::{Mode, Session};
use crate::command::{Access, KeySet, Kind, Local, Row};
use crate::namespace::Namespace;
use crate::pending::WATCH;
use crate::process::{Back, Ticket, errors};
use crate::request::back::{is_own, may_be_taken};
use crate::resp::request::Request;
use crate::writeback::Claim;

/// Keys that a transaction claims, at most; with more of them it claims all.
const MOST: usize = 1 << 14;

/// How long a request waits for a flush where `upstream-timeout` does not say, and `NEARSIDE SYNC` while the upstream refuses it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it waits while the upstream cannot be reached, or refuses the flush: it would do so with the request, too.
const IN_VAIN: Duration = Duration::from_secs(1);

/// Whether it touches nothing, and asks where the writes before it are.
fn waits_only(row: &Row) -> bool {
    matches!(&*row.name, "wait" | "waitaof")
}

/// What a request concerns.
enum Touches {
    Nothing,
    /// What is dirty is read by it, or it may be taken as a write; that is found out when it is its turn.
    Dirty,
    Keys(Vec<Claim<Ticket>>),
}

/// Whether a request may be sent.
pub(super) enum Way {
    Free,
    /// The session is woken when it may.
    Waits,
    /// It cannot be; why is with the claims.
    Blocked,
}

impl Session {
    /// Whether the request may go on, as far as what is dirty is concerned.
    pub(super) fn way(&mut self, row: Option<&Row>, kind: Kind, request: &Request<'_>) -> Way {
        if self.claims.next.is_none() {
            match self.touches(row, kind, request) {
                Touches::Nothing | Touches::Dirty => return Way::Free,
                Touches::Keys(claims) => {
                    self.claims.next = Some(Next::new(
                        claims,
                        matches!(kind, Kind::Local(_)) || row.is_some_and(waits_only),
                    ));
                }
            }
        }
        self.go_when_clean()
    }

    /// Likewise of a write that could have been taken, and is to go through.
    pub(super) fn way_through(&mut self, row: &Row, request: &Request<'_>) -> Way {
        if self.claims.next.is_none() {
            let claims = self.claims_of(row, request).unwrap_or_default();
            self.claims.next = Some(Next::new(claims, false));
        }
        self.go_when_clean()
    }

    /// Whether the write that is next goes through: that was found out before, and it waits since.
    pub(super) fn goes_through(&self) -> bool {
        self.claims.next.is_some()
    }

    fn go_when_clean(&mut self) -> Way {
        let cx = &self.cx;
        let Some(next) = &mut self.claims.next else { return Way::Free };
        let Some(at) = next.claims.iter().position(|claim| !claim.is_clean()) else { return Way::Free };
        let unclean = &next.claims[at];
        let limit = Some(cx.process.settings.upstream.reply_timeout).filter(|limit| !limit.is_zero());
        let (limit, engine) = (limit.unwrap_or(PATIENCE), unclean.engine());
        let since = *next.since.get_or_insert_with(|| {
            [limit, PATIENCE, IN_VAIN]
                .into_iter()
                .for_each(|wait| wake_at(&cx.queue, Instant::now() + wait.min(limit)));
            Instant::now()
        });
        // While the upstream is away it is in vain, and a claim on all would keep every write from being taken.
        let limit = match engine.is_away() {
            true if unclean.is_of_all() => Duration::ZERO,
            true => limit.min(IN_VAIN),
            false if !unclean.is_refused() => limit,
            false if next.is_sync => limit.min(PATIENCE),
            false => limit.min(IN_VAIN),
        };
        if since.elapsed() >= limit {
            engine.flush_all();
            self.claims.error = errors::unflushed(&engine.name, &engine.refusal());
            self.claims.next = None;
            return Way::Blocked;
        }
        // Once for each: the session may look more often.
        if next.woken_by.replace(at) != Some(at) {
            let ticket = Ticket { inbox: cx.outbound.inbox.clone(), session: cx.client.id, slot: 0 };
            unclean.wake_when_clean(ticket);
        }
        Way::Waits
    }

    fn touches(&self, row: Option<&Row>, kind: Kind, request: &Request<'_>) -> Touches {
        let process = &self.cx.process;
        let all = || Touches::Keys(process.backs().map(|back| back.claim(None)).collect());
        if let Kind::Local(local) = kind {
            let is_sync = local == Local::Nearside
                && request.get(1).is_some_and(|word| word.eq_ignore_ascii_case(b"sync"));
            return match (is_sync, request.len()) {
                (false, _) => Touches::Nothing,
                (true, ..=2) => all(),
                (true, _) => {
                    Touches::Keys(request.args().skip(2).filter_map(|key| self.claim(key)).collect())
                }
            };
        }
        let Some(row) = row else { return all() };
        if waits_only(row) {
            return all();
        }
        if row.access == Access::None {
            return Touches::Nothing;
        }
        let is_shared = matches!(self.mode, Mode::Shared) && kind == Kind::Plain && is_own(&self.cx);
        if is_shared && (matches!(&*row.name, "get" | "mget") && row.is_cached() || may_be_taken(row)) {
            return Touches::Dirty;
        }
        self.claims_of(row, request).map_or_else(all, |claims| match claims.is_empty() {
            true => Touches::Nothing,
            false => Touches::Keys(claims),
        })
    }

    /// Claims on the request's keys; nothing if it may touch any.
    fn claims_of(&self, row: &Row, request: &Request<'_>) -> Option<Vec<Claim<Ticket>>> {
        let (mut claims, mut keys) = (Vec::new(), 0);
        let set = row.keys(request, |i, _| {
            keys += 1;
            claims.extend(self.claim(request.arg(i)));
        });
        let is_elsewhere = self.is_elsewhere();
        // They read what they do not name.
        if matches!(&*row.name, "sort" | "sort_ro" | "eval_ro" | "evalsha_ro" | "fcall_ro")
            && request.len() > 2
        {
            return None;
        }
        // These reach into another database than their own.
        let reaches = matches!(&*row.name, "move" | "copy");
        match set {
            KeySet::Known if is_elsewhere && keys > 0 && !reaches => Some(Vec::new()),
            KeySet::Known if is_elsewhere && reaches => None,
            KeySet::Known if keys > 0 && claims.len() <= MOST => Some(claims),
            _ => None,
        }
    }

    /// Whether it is sure that the request finds another database than the one whose keys may be dirty.
    fn is_elsewhere(&self) -> bool {
        let may_move = match &self.mode {
            Mode::Shared => false,
            // A `SELECT` may be on its way, or stand in the transaction.
            Mode::Dedicated(dedicated) => self.cx.queue.waiting() > 0 || dedicated.transaction.is_some(),
        };
        !may_move && self.ident_here().db != self.cx.process.settings.db
    }

    fn claim(&self, key: &[u8]) -> Option<Claim<Ticket>> {
        let namespace: Option<&Namespace> = self.cx.process.namespaces.find(key);
        self.cx.process.back(namespace).map(|back| back.claim(Some(key)))
    }

    /// The request whose way was free was sent: its claims are held as long as it is under way.
    pub(super) fn hold_claims(&mut self) {
        let Some(Next { claims, is_sync, .. }) = self.claims.next.take() else { return };
        if is_sync {
            return;
        }
        let until = match self.is_bound() {
            true => Until::Over,
            false => Until::Answered(self.cx.queue.next().saturating_sub(1)),
        };
        self.claims.held.extend(claims.into_iter().map(|claim| (until, claim)));
        if self.claims.held.len() > MOST {
            let engines: Vec<Back> = self.cx.process.backs().cloned().collect();
            let all = engines.iter().map(|engine| (until, engine.claim(None))).collect();
            // The new ones are there before the old ones go.
            self.claims.held = all;
        }
    }

    /// A read is under way that was not answered from what is dirty: no write of the session for the same keys is taken
    /// before it is answered.
    pub(super) fn claim_read(&mut self, row: Option<&Row>, request: &Request<'_>) {
        let Some(claims) = row.and_then(|row| self.claims_of(row, request)) else { return };
        let until = Until::Answered(self.cx.queue.next().saturating_sub(1));
        self.claims.held.extend(claims.into_iter().map(|claim| (until, claim)));
    }

    /// Lets go of claims of what is answered.
    pub(super) fn drop_claims(&mut self) {
        if self.claims.held.is_empty() {
            return;
        }
        let (queue, is_bound) = (self.cx.queue.clone(), self.is_bound());
        self.claims.held.retain(|(until, _)| match until {
            Until::Answered(slot) => queue.is_unanswered(*slot),
            Until::Over => is_bound || queue.waiting() > 0,
        });
    }

    /// Whether what comes next depends on what was said before: a transaction is open, or something is watched.
    fn is_bound(&self) -> bool {
        match &self.mode {
            Mode::Shared => false,
            Mode::Dedicated(dedicated) => dedicated.transaction.is_some() || dedicated.state.may_have(WATCH),
        }
    }
}
