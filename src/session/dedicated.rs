//! A session whose state lives on the server: it has a connection of its own until that state is gone.
//!
//! What always holds:
//! - Every request of the session goes to that connection, so the server sees them in order. Reads go past
//!   the cache; writes take their fences and make their announcements all the same. A transaction's are
//!   taken and made with its `EXEC`.
//! - The connection is used again only if nothing of the session is left on it; else it is closed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;

use super::core::{Core, Raw, send_on};
use super::expect::{Change, Past, Transaction, What, Write};
use super::gate::{self, Within};
use super::outbox::To;
use super::peer::Peer;
use super::shared::Shared;
use super::worker::Worker;
use super::write::Touched;
use crate::cache::{IdentId, Micros, Reason};
use crate::command::{Access, CacheRule, Kind, Local, Row};
use crate::resp::request::Request;
use crate::resp::{Protocol, encode};
use crate::upstream::Link;

const DISCARD: &[u8] = b"*1\r\n$7\r\nDISCARD\r\n";
const REPLY_ON: &[u8] = b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$2\r\nON\r\n";
const CLIENT_ID: &[u8] = b"*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n";

/// Which requests the server answers, as `CLIENT REPLY` has it.
#[derive(Clone, Copy, PartialEq)]
enum Replies {
    On,
    Off,
    /// All but the next.
    Skip,
}

/// While it stands, `CLIENT UNBLOCK` finds the session.
struct Waits {
    shared: Arc<Shared>,
    session: u64,
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.shared.forget_waiting(self.session);
    }
}

/// See the [module](self).
pub(super) struct Dedicated {
    link: Link<Peer>,
    /// The open transaction.
    transaction: Option<Rc<RefCell<Transaction>>>,
    watching: bool,
    /// Has ever subscribed.
    subscribes: bool,
    /// The connection has state that is not followed here: it stays until the session ends or is reset.
    sticky: bool,
    /// Commands that nobody knows: those that the server has taken may have left anything, those that are
    /// open may do so. One that it refuses is taken off.
    unknown: Rc<Cell<u32>>,
    replies: Replies,
    /// Written while the client wants no replies.
    unanswered: Touched,
    /// The server knows better than we what the session is called, and which protocol it speaks.
    named: bool,
    /// Was asked to wait for something.
    waits: Option<Waits>,
    db: Rc<Cell<Option<u32>>>,
}

impl Dedicated {
    pub(super) fn new(link: Link<Peer>) -> Self {
        Self {
            link,
            transaction: None,
            watching: false,
            subscribes: false,
            sticky: false,
            unknown: Rc::default(),
            replies: Replies::On,
            unanswered: Touched::default(),
            named: false,
            waits: None,
            db: Rc::default(),
        }
    }

    pub(super) fn link(&self) -> &Link<Peer> {
        &self.link
    }

    pub(super) fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    fn is_sticky(&self) -> bool {
        self.sticky || self.unknown.get() > 0
    }

    /// Whether the connection holds state of the session.
    pub(super) fn has_state(&self) -> bool {
        self.transaction.is_some()
            || self.watching
            || self.is_sticky()
            || self.replies != Replies::On
            || self.link.client().is_subscribed()
    }

    /// Whether what is open here may never be answered.
    pub(super) fn may_wait(&self) -> bool {
        self.waits.is_some() || self.is_sticky() || self.link.client().is_subscribed()
    }

    /// Whether nothing of the session is left here.
    pub(super) fn is_idle(&mut self, core: &Core) -> bool {
        if self.link.in_flight() == 0 {
            self.drop_refused(core);
        }
        !self.has_state() && self.link.in_flight() == 0
    }

    /// Whether all that was written here is carried out, also what the client wants no replies to. If not, that is
    /// asked for, and the session is woken when it is: what comes next may go another way.
    pub(super) fn is_done(&mut self, now: Micros) -> bool {
        if self.link.client().is_raw() {
            // Its replies cannot be told from what else comes.
            return true;
        }
        if self.replies == Replies::Off {
            self.replies = Replies::On;
            let ends: &[u8] = if self.transaction.is_some() { DISCARD } else { b"" };
            let what = What::Write(Box::new(Write::unwanted()));
            send_on(&self.link, now, |out| out.copy(&[ends, REPLY_ON].concat()), what);
        }
        self.link.in_flight() == 0
    }

    /// Forgets a transaction that the server has refused: whatever came behind its `MULTI` is done.
    fn drop_refused(&mut self, core: &Core) {
        let refused = |transaction: &Rc<RefCell<Transaction>>| transaction.borrow().refused.is_some();
        if let Some(transaction) = self.transaction.take_if(|transaction| refused(transaction)) {
            let touched = std::mem::take(&mut transaction.borrow_mut().touched);
            touched.announce_later(&core.worker);
        }
    }

    /// The database that the session has selected meanwhile.
    pub(super) fn chosen_db(&self) -> Option<u32> {
        self.db.get()
    }

    /// Gives the connection to the next session, if it is fit for that.
    pub(super) fn end(self, worker: &Worker, ident: IdentId) {
        if self.link.client().is_clean() {
            worker.give_back(ident, self.link);
        }
    }

    /// Whether such a command is answered by nearside even now.
    pub(super) fn answers_here(&self, local: Local) -> bool {
        let plain = self.transaction.is_none()
            && !self.link.client().is_subscribed()
            && self.replies == Replies::On
            && !self.link.client().is_raw();
        match local {
            Local::Quit | Local::Http | Local::Reset => true,
            Local::Hello | Local::Auth | Local::Select | Local::ClientSetInfo => false,
            Local::ClientGetName | Local::ClientSetName => plain && !self.named,
            Local::ClientId | Local::Nearside => plain,
        }
    }

    /// Whether such a command has to wait for the replies before it: what it does, and how many replies it has,
    /// hangs on whether the server has taken the `MULTI`; or on whether the connection is still subscribed.
    pub(super) fn holds_back(&self, kind: Kind) -> bool {
        if matches!(kind, Kind::Local(_)) {
            return true;
        }
        let unsure = |transaction: &Rc<RefCell<Transaction>>| !transaction.borrow().answered;
        let odd = !matches!(kind, Kind::Plain | Kind::Exec | Kind::Discard | Kind::Multi);
        odd && self.replies == Replies::On && self.transaction.as_ref().is_some_and(unsure)
    }

    /// Whether the client wants no reply to what comes next.
    pub(super) fn is_silent(&self) -> bool {
        self.replies != Replies::On
    }

    /// Tells the server what the session is called, for what it will say itself.
    fn tell_name(&mut self, core: &Core) {
        // A subscriber in RESP2 may not be named, and says what counts as named all the same.
        let known = self.named && self.link.client().is_called();
        if known || self.replies != Replies::On || !self.link.client().call(&core.name) {
            return;
        }
        let command: [&[u8]; 3] = [b"CLIENT", b"SETNAME", &core.name];
        send_on(&self.link, core.now, |out| out.with(|tail| encode::command(tail, &command)), What::Name);
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
        let refused = |transaction: &Rc<RefCell<Transaction>>| transaction.borrow().refused.is_some();
        if self.transaction.as_ref().is_some_and(refused) && core.outbox.waiting() == 0 {
            self.drop_refused(core);
        }
        let raw = match kind {
            Kind::Local(local @ (Local::Auth | Local::Hello)) => {
                let within = self.within(core, quiet);
                match gate::on_dedicated(core, local, &within, request, raw) {
                    Some(raw) => raw,
                    None => return,
                }
            }
            _ => raw,
        };
        if let Some(transaction) = &self.transaction
            && !matches!(kind, Kind::Exec | Kind::Discard)
        {
            transaction.borrow_mut().touched.add_queued(&core.shared, row, request);
            self.count_read(core, row, request);
            let odd =
                !matches!(kind, Kind::Plain | Kind::Blocking | Kind::Multi | Kind::Watch | Kind::Unwatch);
            if odd {
                self.sticky |= row.is_some();
                self.named = true;
            }
            // Of a refused transaction it is carried out, else with EXEC.
            return match kind {
                Kind::Subscribe | Kind::Unsubscribe if self.replies == Replies::On => {
                    self.link.client().listen();
                    self.subscribe(core, kind, request, raw);
                }
                Kind::Connection if row.is_none() && self.replies == Replies::On => {
                    let unknown = self.count_unknown();
                    self.send(core, raw, |to| What::Write(Box::new(Write::unknown(to, unknown))));
                }
                _ => self.relay(core, raw),
            };
        }
        match kind {
            Kind::Connection if is_reply_command(row) => self.reply_command(core, request, raw),
            _ if quiet => self.unanswered(core, row, kind, request, raw),
            Kind::Multi => {
                self.tell_name(core);
                let transaction = Rc::<RefCell<Transaction>>::default();
                self.transaction = Some(transaction.clone());
                self.send(core, raw, |to| What::Multi(to, transaction));
            }
            Kind::Exec => {
                self.watching &= self.transaction.is_none();
                let touched = match self.transaction.take() {
                    Some(transaction) => std::mem::take(&mut transaction.borrow_mut().touched),
                    None => Touched::default(),
                };
                self.write(core, touched, raw);
            }
            Kind::Discard => {
                self.watching &= self.transaction.is_none();
                self.transaction = None;
                self.relay(core, raw);
            }
            Kind::Watch => {
                self.watching = true;
                self.relay(core, raw);
            }
            Kind::Unwatch => {
                // In RESP2 a subscriber may not say it.
                self.watching &= self.subscribes;
                self.relay(core, raw);
            }
            Kind::Subscribe | Kind::Unsubscribe => self.subscribe(core, kind, request, raw),
            Kind::Monitor => {
                self.sticky = true;
                self.send(core, raw, What::Monitor);
            }
            Kind::Connection => {
                self.sticky |= row.is_some();
                self.plain(core, row, request, raw);
            }
            Kind::Local(local) => self.local(core, local, request, raw),
            Kind::Blocking => {
                self.note_waiting(core);
                if row.is_some_and(|row| row.name.starts_with("wait")) {
                    // WAIT is about the connection's own writes, which went over the shared link: a
                    // request on this one moves its mark to where the replication stream is now.
                    let _ =
                        send_on(&self.link, core.now, |out| out.copy(b"*1\r\n$4\r\nPING\r\n"), What::Ping);
                }
                self.plain(core, row, request, raw);
            }
            Kind::Plain => {
                let raw = super::local::unblocking(core, row, request).map_or(raw, Raw::Own);
                self.plain(core, row, request, raw);
            }
        }
    }

    /// What hangs on it when the client logs in here.
    fn within(&self, core: &Core, quiet: bool) -> Within {
        match self.transaction {
            _ if quiet => Within::Silence,
            Some(_) => Within::Transaction,
            None if self.is_restricted(core) => Within::Subscription,
            None => Within::Nothing,
        }
    }

    /// Whether the client is a subscriber in RESP2, who may say little.
    fn is_restricted(&self, core: &Core) -> bool {
        self.link.client().is_subscribed() && core.ident.protocol == Protocol::Resp2 && !self.named
    }

    fn count_unknown(&self) -> Rc<Cell<u32>> {
        self.unknown.set(self.unknown.get() + 1);
        self.unknown.clone()
    }

    /// From now on `CLIENT UNBLOCK` finds the session.
    fn note_waiting(&mut self, core: &Core) {
        if self.waits.is_some() {
            return;
        }
        self.link.client().be_patient();
        self.waits = Some(Waits { shared: core.shared.clone(), session: core.id });
        match self.link.client().id() {
            Some(id) => core.shared.note_waiting(core.id, id),
            None => {
                let _ = send_on(&self.link, core.now, |out| out.copy(CLIENT_ID), What::Id(core.id));
            }
        }
    }

    /// A confirmation comes for each channel. Of UNSUBSCRIBE without arguments there is one for each that the
    /// connection has, or one if there is none: the first ends the request, and the others pass as messages do.
    fn subscribe(&mut self, core: &mut Core, kind: Kind, request: &Request<'_>, raw: Raw<'_>) {
        self.subscribes = true;
        let named = request.len() - 1;
        let confirmations = if kind == Kind::Subscribe { named } else { named.max(1) };
        self.send(core, raw, |to| What::Subscribe(to, confirmations));
    }

    fn plain(&mut self, core: &mut Core, row: Option<&Row>, request: &Request<'_>, raw: Raw<'_>) {
        match row {
            Some(row) if row.access != Access::Write => {
                self.count_read(core, Some(row), request);
                if row.cache(request) == CacheRule::Never {
                    return self.relay(core, raw);
                }
                let keys = Core::keys_of(Some(row), request);
                self.send(core, raw, |to| What::ReadPast(to, Box::new(Past { keys, instead: None })));
            }
            row => {
                let mut touched = Touched::default();
                touched.add(&core.shared, row, request);
                if row.is_none() {
                    // It may be anything under another name, MULTI even. If it is refused, it was nothing.
                    touched.unstick(self.count_unknown());
                }
                self.write(core, touched, raw);
            }
        }
    }

    /// Counts a read under the reason why it goes past the cache.
    fn count_read(&self, core: &Core, row: Option<&Row>, request: &Request<'_>) {
        let Some(row) = row.filter(|row| row.access == Access::Read) else { return };
        core.shared.cache.count(match row.cache(request) {
            CacheRule::Never => Reason::Uncacheable,
            _ if self.transaction.is_some() => Reason::Transaction,
            _ if self.watching => Reason::Watching,
            _ if self.subscribes => Reason::Subscribed,
            _ => Reason::Dedicated,
        });
    }

    fn write(&mut self, core: &mut Core, touched: Touched, raw: Raw<'_>) {
        let to = core.to(core.outbox.open());
        touched.send(&core.shared, &self.link, &core.ident, core.now, to, raw);
    }

    fn relay(&mut self, core: &mut Core, raw: Raw<'_>) {
        if self.replies == Replies::On {
            return self.send(core, raw, What::Relay);
        }
        if self.replies == Replies::Skip {
            self.replies = Replies::On;
        }
        self.link.send_unanswered(|out| raw.write(out));
    }

    fn send(&mut self, core: &mut Core, raw: Raw<'_>, what: impl FnOnce(To) -> What) {
        let to = core.to(core.outbox.open());
        let _ = send_on(&self.link, core.now, |out| raw.write(out), what(to));
    }

    /// A request to which the server will say nothing.
    fn unanswered(
        &mut self,
        core: &mut Core,
        row: Option<&Row>,
        kind: Kind,
        request: &Request<'_>,
        raw: Raw<'_>,
    ) {
        if kind == Kind::Multi && !self.link.client().is_raw() {
            self.transaction = Some(Rc::default());
            return self.relay(core, raw);
        }
        let mut touched = match self.transaction.take() {
            Some(transaction) => std::mem::take(&mut transaction.borrow_mut().touched),
            None => Touched::default(),
        };
        if row.is_none_or(|row| row.access == Access::Write) {
            touched.add(&core.shared, row, request);
        }
        self.count_read(core, row, request);
        match std::mem::replace(&mut self.replies, Replies::On) {
            Replies::Skip => {
                touched.send_skipped(&core.shared, &self.link, core.now, raw);
            }
            replies => {
                self.replies = replies;
                self.unanswered.add_keys(&touched);
                touched.send_unanswered(&core.shared, &self.link, core.now, raw);
            }
        }
    }

    /// `CLIENT REPLY ON|OFF|SKIP`.
    fn reply_command(&mut self, core: &mut Core, request: &Request<'_>, raw: Raw<'_>) {
        self.sticky = true;
        self.tell_name(core);
        self.named = true;
        let is = |word: &[u8]| request.get(2).is_some_and(|arg| arg.eq_ignore_ascii_case(word));
        if request.len() == 3 && is(b"on") {
            self.replies = Replies::On;
            // Its reply says that what was written before is done.
            let touched = std::mem::take(&mut self.unanswered);
            return self.write(core, touched, raw);
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
        if self.is_restricted(core) {
            // Not allowed there: the server says so, and nothing changes.
            return self.relay(core, raw);
        }
        self.tell_name(core);
        self.named |= !matches!(local, Local::Select | Local::ClientSetInfo);
        let what = |to| match local {
            Local::Hello => What::Changed(to, BytesMut::new(), Change::HelloId(core.id)),
            Local::Select => match request.get(1).and_then(super::local::number) {
                Some(db) => What::Changed(to, BytesMut::new(), Change::Select(self.db.clone(), db)),
                None => What::Relay(to),
            },
            _ => What::Relay(to),
        };
        if !matches!(local, Local::Select | Local::ClientSetInfo | Local::ClientId) {
            // Who the connection is now is its own affair.
            self.sticky = true;
        }
        let what = what(core.to(core.outbox.open()));
        let _ = send_on(&self.link, core.now, |out| raw.write(out), what);
    }
}

fn is_reply_command(row: Option<&Row>) -> bool {
    row.is_some_and(|row| row.name == "client|reply")
}
