//! A session whose state lives on the server: it has a connection of its own until that state is gone.
//!
//! What always holds:
//! - Every request of the session goes to that connection, so the server sees them in order. Reads go past
//!   the cache; writes take their fences and make their announcements all the same. A transaction's are
//!   taken and made with its `EXEC`.
//! - The connection is used again only if nothing of the session is left on it; else it is closed.

use std::cell::Cell;
use std::rc::Rc;

use bytes::BytesMut;

use super::core::{Core, Raw, send_on};
use super::expect::{Change, Past, Peer, What};
use super::outbox::To;
use super::worker::Worker;
use super::write::Touched;
use crate::command::{Access, CacheRule, Kind, Local, Row};
use crate::resp::request::Request;
use crate::upstream::Link;

/// Which requests the server answers, as `CLIENT REPLY` has it.
#[derive(Clone, Copy, PartialEq)]
enum Replies {
    On,
    Off,
    /// All but the next.
    Skip,
}

/// See the [module](self).
pub(super) struct Dedicated {
    link: Link<Peer>,
    /// What the open transaction touches.
    transaction: Option<Touched>,
    watching: bool,
    /// The connection has state that is not followed here: it stays until the session ends or is reset.
    sticky: Rc<Cell<bool>>,
    replies: Replies,
    /// Was asked to wait for something.
    waits: bool,
    db: Rc<Cell<Option<u32>>>,
}

impl Dedicated {
    pub(super) fn new(link: Link<Peer>) -> Self {
        Self {
            link,
            transaction: None,
            watching: false,
            sticky: Rc::default(),
            replies: Replies::On,
            waits: false,
            db: Rc::default(),
        }
    }

    pub(super) fn link(&self) -> &Link<Peer> {
        &self.link
    }

    pub(super) fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Whether the connection holds state of the session.
    pub(super) fn has_state(&self) -> bool {
        self.transaction.is_some()
            || self.watching
            || self.sticky.get()
            || self.replies != Replies::On
            || self.link.client().is_subscribed()
    }

    /// Whether what is open here may never be answered.
    pub(super) fn may_wait(&self) -> bool {
        self.waits || self.sticky.get() || self.link.client().is_subscribed()
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.has_state() && self.link.in_flight() == 0
    }

    /// The database that the session has selected meanwhile.
    pub(super) fn chosen_db(&self) -> Option<u32> {
        self.db.get()
    }

    /// Gives the connection to the next session, if it is fit for that.
    pub(super) fn end(self, worker: &Worker, ident: u32) {
        if self.link.client().is_clean() {
            worker.give_back(ident, self.link);
        }
    }

    /// Whether such a command is answered by nearside even now.
    pub(super) fn answers_here(&self, local: Local) -> bool {
        match local {
            Local::Quit | Local::Reset => true,
            Local::Hello | Local::Auth | Local::Select | Local::ClientSetInfo => false,
            _ => self.transaction.is_none() && !self.link.client().is_subscribed(),
        }
    }

    pub(super) fn execute(
        &mut self,
        core: &mut Core,
        row: Option<&Row>,
        kind: Kind,
        request: &Request<'_>,
        raw: Raw<'_>,
    ) {
        let quiet = self.replies != Replies::On || self.link.client().is_raw();
        if let Some(transaction) = &mut self.transaction
            && !matches!(kind, Kind::Exec | Kind::Discard)
        {
            transaction.add_queued(&core.shared, row, request);
            let odd =
                !matches!(kind, Kind::Plain | Kind::Blocking | Kind::Multi | Kind::Watch | Kind::Unwatch);
            if odd {
                self.sticky.set(true);
            }
            return self.relay(core, raw);
        }
        match kind {
            Kind::Connection if is_reply_command(row) => self.reply_command(core, request, raw),
            _ if quiet => self.unanswered(core, row, request, raw),
            Kind::Multi => {
                self.transaction = Some(Touched::default());
                self.relay(core, raw);
            }
            Kind::Exec => {
                self.watching = false;
                let touched = self.transaction.take().unwrap_or_default();
                self.write(core, touched, raw);
            }
            Kind::Discard => {
                self.watching = false;
                self.transaction = None;
                self.relay(core, raw);
            }
            Kind::Watch => {
                self.watching = true;
                self.relay(core, raw);
            }
            Kind::Unwatch => {
                self.watching = false;
                self.relay(core, raw);
            }
            Kind::Subscribe => {
                let confirmations = request.len() - 1;
                self.send(core, raw, |to| What::Subscribe(to, confirmations));
            }
            // Without arguments there is one for each channel, or one if there is none: the first ends the
            // request, and the others pass as messages do.
            Kind::Unsubscribe => {
                let confirmations = (request.len() - 1).max(1);
                self.send(core, raw, |to| What::Subscribe(to, confirmations));
            }
            Kind::Monitor => {
                self.sticky.set(true);
                self.send(core, raw, What::Monitor);
            }
            Kind::Connection => {
                self.sticky.set(true);
                self.plain(core, row, request, raw);
            }
            Kind::Local(local) => self.local(core, local, request, raw),
            Kind::Blocking => {
                self.waits = true;
                if row.is_some_and(|row| row.name.starts_with("wait")) {
                    // WAIT is about the connection's own writes, which went over the shared link: a
                    // request on this one moves its mark to where the replication stream is now.
                    let _ =
                        send_on(&self.link, core.now, |out| out.copy(b"*1\r\n$4\r\nPING\r\n"), What::Ping);
                }
                self.plain(core, row, request, raw);
            }
            Kind::Plain => self.plain(core, row, request, raw),
        }
    }

    fn plain(&mut self, core: &mut Core, row: Option<&Row>, request: &Request<'_>, raw: Raw<'_>) {
        match row {
            Some(row) if row.access != Access::Write => {
                if row.cache(request) == CacheRule::Never {
                    return self.relay(core, raw);
                }
                core.shared.cache.count(crate::cache::Reason::Dedicated);
                let keys = Core::keys_of(Some(row), request);
                self.send(core, raw, |to| What::ReadPast(to, Box::new(Past { keys, instead: None })));
            }
            row => {
                let mut touched = Touched::default();
                touched.add(&core.shared, row, request);
                if row.is_none() {
                    // It may be anything under another name, MULTI even. If it is refused, it was nothing.
                    self.sticky.set(true);
                    touched.unstick(self.sticky.clone());
                }
                self.write(core, touched, raw);
            }
        }
    }

    fn write(&mut self, core: &mut Core, touched: Touched, raw: Raw<'_>) {
        let to = core.to(core.outbox.open());
        touched.send(&core.shared, &self.link, &core.ident, core.now, to, raw);
    }

    fn relay(&mut self, core: &mut Core, raw: Raw<'_>) {
        if self.replies != Replies::On {
            self.link.send_unanswered(|out| raw.write(out));
            return;
        }
        self.send(core, raw, What::Relay);
    }

    fn send(&mut self, core: &mut Core, raw: Raw<'_>, what: impl FnOnce(To) -> What) {
        let to = core.to(core.outbox.open());
        let _ = send_on(&self.link, core.now, |out| raw.write(out), what(to));
    }

    /// A request to which the server will say nothing.
    fn unanswered(&mut self, core: &mut Core, row: Option<&Row>, request: &Request<'_>, raw: Raw<'_>) {
        let writes = row.is_none_or(|row| row.access == Access::Write);
        let mut touched = Touched::default();
        if writes {
            touched.add(&core.shared, row, request);
        }
        match std::mem::replace(&mut self.replies, Replies::On) {
            Replies::Skip => {
                touched.send_skipped(&core.shared, &self.link, core.now, raw);
            }
            replies => {
                self.replies = replies;
                touched.send_unanswered(&core.shared, &self.link, core.now, raw);
            }
        }
    }

    /// `CLIENT REPLY ON|OFF|SKIP`.
    fn reply_command(&mut self, core: &mut Core, request: &Request<'_>, raw: Raw<'_>) {
        self.sticky.set(true);
        let is = |word: &[u8]| request.get(2).is_some_and(|arg| arg.eq_ignore_ascii_case(word));
        if request.len() == 3 && is(b"on") {
            self.replies = Replies::On;
            return self.send(core, raw, What::Relay);
        }
        let skip = is(b"skip");
        if request.len() != 3 || !(is(b"off") || skip) {
            return self.relay(core, raw);
        }
        if self.replies == Replies::On || !skip {
            self.replies = if skip { Replies::Skip } else { Replies::Off };
        }
        self.link.send_unanswered(|out| raw.write(out));
    }

    fn local(&mut self, core: &mut Core, local: Local, request: &Request<'_>, raw: Raw<'_>) {
        let what = |to| match local {
            Local::Hello => What::Changed(to, BytesMut::new(), Change::HelloId(core.id)),
            Local::Select => match request.get(1).and_then(super::local::number) {
                Some(db) => What::Changed(to, BytesMut::new(), Change::Select(self.db.clone(), db)),
                None => What::Relay(to),
            },
            _ => What::Relay(to),
        };
        if matches!(local, Local::Hello | Local::Auth) {
            // Who the connection is now is its own affair.
            self.sticky.set(true);
        }
        let what = what(core.to(core.outbox.open()));
        let _ = send_on(&self.link, core.now, |out| raw.write(out), what);
    }
}

fn is_reply_command(row: Option<&Row>) -> bool {
    row.is_some_and(|row| row.name == "client|reply")
}
