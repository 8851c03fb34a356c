//! A session whose state lives on the server: it has a connection of its own until that state is gone.
//!
//! Invariants:
//! - Every request of the session goes to that connection, so the server sees them in order. Reads go past
//!   the cache; writes take their fences and make their announcements all the same. A transaction's are
//!   taken and made with its `EXEC`.
//! - The connection is used again only if nothing of the session is left on it; else it is closed.
//! - What keeps the session here is what the server has accepted, see [`state`](super::state).

mod silence;
mod wait;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::clients::{Alone, Session};
use super::core::{Core, Raw, send_on};
use super::expect::{Bypass, Change, Changed, Pending, Transaction, Write};
use super::gate::{self, Within};
use super::peer::LinkHandler;
use super::pushes::{Awaited, Pushes};
use super::queue::ReplySlot;
use super::redirect::Lead;
use super::state::{Became, DEBUG, Effect, Leaves, State, WATCH};
use super::tunnel::Said;
use super::worker::Worker;
use super::write::WriteSet;
use crate::cache::{IdentId, Micros, Reason};
use crate::command::{Access, CacheRule, Kind, Local, Row};
use crate::resp::encode;
use crate::resp::request::Request;
use crate::upstream::{Link, Login, PING};

const DISCARD: &[u8] = b"*1\r\n$7\r\nDISCARD\r\n";
const REPLY_ON: &[u8] = b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$2\r\nON\r\n";

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
    link: Link<LinkHandler>,
    /// The open transaction.
    transaction: Option<Rc<RefCell<Transaction>>>,
    /// All else that is left on the connection.
    state: Rc<State>,
    /// Has ever subscribed.
    subscribes: bool,
    replies: Replies,
    /// Written while the client wants no replies.
    unanswered: WriteSet,
    /// The newest request that waits at the server, and the newest that may do so for ever.
    waiting: Option<u64>,
    for_ever: Option<u64>,
    /// Which of them the server was asked to let go, and whether because the process stops.
    let_go: Option<(u64, bool)>,
    /// What a tunnel would have to say again.
    said: Said,
    /// It is for one [`Kind::Aside`] alone, and of this identity.
    aside: Option<IdentId>,
    alone: Alone,
    /// Where the session's tracking leads, if that is another session.
    lead: Option<Lead>,
}

impl Dedicated {
    pub(super) fn new(link: Link<LinkHandler>, session: &Arc<Session>) -> Self {
        Self {
            alone: Alone::new(session, link.client().id()),
            lead: None,
            link,
            transaction: None,
            state: Rc::default(),
            subscribes: false,
            replies: Replies::On,
            unanswered: WriteSet::default(),
            waiting: None,
            for_ever: None,
            let_go: None,
            said: Said::default(),
            aside: None,
        }
    }

    /// For one [`Kind::Aside`] alone, on a connection of this identity.
    pub(super) fn aside(mut self, ident: IdentId) -> Self {
        self.aside = Some(ident);
        self
    }

    pub(super) fn link(&self) -> &Link<LinkHandler> {
        &self.link
    }

    fn pushes(&self) -> &Pushes {
        &self.link.client().pushes
    }

    /// Whether the connection holds state of the session.
    pub(super) fn has_state(&self) -> bool {
        self.transaction.is_some()
            || self.state.holds()
            || self.replies != Replies::On
            || self.pushes().is_subscribed()
            || self.pushes().is_raw()
            || self.alone.is_target()
    }

    /// The session's tracking leads there from now on.
    pub(super) fn lead(&mut self, lead: Lead) {
        self.lead = Some(lead);
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
        if self.pushes().is_raw() {
            // Its replies cannot be told from what else comes.
            return true;
        }
        if self.replies == Replies::Off {
            self.replies = Replies::On;
            let ends: &[u8] = if self.transaction.is_some() { DISCARD } else { b"" };
            let pending = Pending::Write(Box::new(Write::unwanted()));
            send_on(&self.link, now, |out| out.copy(&[ends, REPLY_ON].concat()), pending);
        }
        self.link.in_flight() == 0
    }

    /// Forgets a transaction that the server has refused: whatever came behind its `MULTI` is done.
    fn drop_refused(&mut self, core: &Core) {
        let refused = |transaction: &Rc<RefCell<Transaction>>| transaction.borrow().refused.is_some();
        if let Some(transaction) = self.transaction.take_if(|transaction| refused(transaction)) {
            let write_set = std::mem::take(&mut transaction.borrow_mut().write_set);
            write_set.announce_later(&core.worker, self.db(core));
        }
    }

    /// What was said here that a tunnel has to begin with.
    pub(super) fn said(&self) -> Said {
        self.said.clone()
    }

    /// Who the session has become here.
    pub(super) fn became(&self) -> Became {
        self.state.became()
    }

    /// Gives the connection to the next session, if it is fit for that.
    pub(super) fn end(self, worker: &Worker, ident: IdentId, login: &Option<Login>) {
        if self.pushes().is_clean() && self.state.is_clean() {
            worker.give_back(self.aside.unwrap_or(ident), login, self.link);
        }
    }

    /// Whether such a command is answered by nearside even now.
    pub(super) fn answers_here(&self, local: Local) -> bool {
        let plain = self.transaction.is_none()
            && !self.pushes().is_restricted()
            && self.replies == Replies::On
            && !self.pushes().is_raw();
        match local {
            Local::Quit | Local::Http | Local::Reset => true,
            Local::Hello | Local::Auth | Local::Select => false,
            Local::ClientGetName | Local::ClientSetName => plain && !self.state.is_named(),
            Local::ClientId | Local::ClientSetInfo | Local::Nearside => plain,
            Local::ClientInfo | Local::ClientList | Local::ClientKill => plain,
        }
    }

    /// What is asked about clients where nearside cannot answer the upstream answers as it can.
    pub(super) fn kind_here(&self, row: Option<&Row>, kind: Kind) -> Kind {
        let plain =
            || self.transaction.is_none() && self.replies == Replies::On && !self.pushes().is_restricted();
        match kind {
            // The debugger answers it, and speaks to the client until its end.
            Kind::Plain if self.state.may_have(DEBUG) && plain() && row.is_some_and(is_script) => {
                Kind::Tunnel
            }
            Kind::Tunnel if !plain() => Kind::Connection,
            Kind::Local(local) if local.is_about_clients() && !self.answers_here(local) => Kind::Plain,
            kind => kind,
        }
    }

    /// Whether such a command has to wait for the replies before it: what it does, and how many replies it has,
    /// depends on whether the server has taken the `MULTI`; or on whether the connection is still subscribed.
    pub(super) fn holds_back(&self, row: Option<&Row>, kind: Kind) -> bool {
        if matches!(kind, Kind::Local(_)) || is_reply_command(row) || self.aside.is_some() {
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
        if self.state.is_named() || self.replies != Replies::On || !self.link.client().call(&core.name) {
            return;
        }
        let command: [&[u8]; 3] = [b"CLIENT", b"SETNAME", &core.name];
        send_on(&self.link, core.now, |out| out.with(|tail| encode::command(tail, &command)), Pending::Name);
    }

    pub(super) fn execute(
        &mut self,
        core: &mut Core,
        row: Option<&Row>,
        kind: Kind,
        request: &Request<'_>,
        raw: Raw<'_>,
    ) {
        let quiet = self.replies != Replies::On || self.pushes().is_raw();
        let refused = |transaction: &Rc<RefCell<Transaction>>| transaction.borrow().refused.is_some();
        if self.transaction.as_ref().is_some_and(refused) && core.queue.waiting() == 0 {
            self.drop_refused(core);
        }
        let raw = match kind {
            Kind::Local(local @ (Local::Auth | Local::Hello)) => {
                let within = self.within(quiet);
                match gate::on_dedicated(core, local, &within, request, raw) {
                    Some(raw) => raw,
                    None => return,
                }
            }
            _ => raw,
        };
        let seq = self.state.count();
        let effect = match kind {
            Kind::Local(local) => Effect::of_local(local, request, core.password().is_some()),
            Kind::Connection | Kind::Watch | Kind::Unwatch | Kind::Discard => Effect::of(row, request, seq),
            Kind::Subscribe | Kind::Unsubscribe => Some(Effect::Confirm),
            _ => None,
        };
        if let Some(transaction) = &self.transaction
            && !matches!(kind, Kind::Exec | Kind::Discard)
        {
            let mut queued = transaction.borrow_mut();
            let place = queued.place();
            queued.write_set.add_queued(&core.shared, row, request, place);
            queued.add(kind, effect.clone());
            drop(queued);
            self.count_read(core, row, request);
            // Of a refused transaction it is carried out, else with EXEC.
            let barrier = super::write::barrier(row, request).filter(|_| self.replies == Replies::On);
            return match (kind, effect) {
                (Kind::Subscribe | Kind::Unsubscribe, _) if self.replies == Replies::On => {
                    self.pushes().listen();
                    self.subscribe(core, row, request, raw);
                }
                (_, effect) if barrier.is_some() => {
                    let leaves = effect.map(|effect| Leaves::one(&self.state, effect));
                    self.send(core, raw, |to| Pending::Write(Box::new(Write::queued(to, barrier, leaves))));
                }
                (_, Some(effect)) => self.leave(core, effect, raw),
                (_, None) => self.relay(core, raw),
            };
        }
        match (kind, effect) {
            (Kind::Connection, _) if is_reply_command(row) => self.reply_command(core, request, raw),
            (_, effect) if quiet => self.unanswered(core, row, kind, effect, request, raw),
            (Kind::Multi, _) => {
                self.tell_name(core);
                let transaction = Rc::<RefCell<Transaction>>::default();
                self.transaction = Some(transaction.clone());
                self.send(core, raw, |to| Pending::Multi(to, transaction));
            }
            (Kind::Exec, _) => {
                let (mut write_set, effects) = match self.transaction.take() {
                    Some(transaction) => std::mem::take(&mut *transaction.borrow_mut()).into_parts(),
                    None => Default::default(),
                };
                write_set.leave(Leaves::exec(&self.state, effects));
                self.write(core, write_set, raw);
            }
            (Kind::Discard, Some(effect)) => {
                self.transaction = None;
                self.leave(core, effect, raw);
            }
            (Kind::Watch | Kind::Unwatch, Some(effect)) => self.leave(core, effect, raw),
            (Kind::Subscribe | Kind::Unsubscribe, _) => self.subscribe(core, row, request, raw),
            (Kind::Monitor, _) => self.send(core, raw, Pending::Monitor),
            (Kind::Connection, Some(effect)) if row.is_some() => {
                if row.is_some_and(|row| matches!(&*row.name, "replconf" | "script|debug")) {
                    self.said.add(request.raw());
                }
                self.count_read(core, row, request);
                self.leave(core, effect, raw);
            }
            (Kind::Connection, Some(effect)) => {
                let mut write_set = WriteSet::default();
                write_set.add(&core.shared, row, request);
                write_set.leave(Leaves::one(&self.state, effect));
                self.write(core, write_set, raw);
            }
            (Kind::Local(local), effect) => self.local(core, local, effect, raw),
            (Kind::Blocking, _) => {
                self.link.client().exempt_from_timeout();
                self.note_wait(row, request, core.queue.next());
                if row.is_some_and(|row| row.name.starts_with("wait")) {
                    // WAIT is about the connection's own writes, which went over the shared link: a
                    // request on this one moves its mark to where the replication stream is now.
                    let _ = send_on(&self.link, core.now, |out| out.copy(PING), Pending::Ping);
                }
                self.plain(core, row, kind, request, raw);
            }
            _ => {
                let raw = super::local::unblocking(core, row, request).map_or(raw, Raw::Own);
                self.plain(core, row, kind, request, raw);
            }
        }
    }

    /// What depends on it when the client logs in here.
    fn within(&self, quiet: bool) -> Within {
        match self.transaction {
            _ if quiet => Within::Silence,
            Some(_) => Within::Transaction,
            None if self.pushes().is_restricted() => Within::Subscription,
            None => Within::Nothing,
        }
    }

    /// A confirmation comes for each channel. Of UNSUBSCRIBE without arguments there is one for each that the
    /// connection has, or one if there is none.
    fn subscribe(&mut self, core: &mut Core, row: Option<&Row>, request: &Request<'_>, raw: Raw<'_>) {
        self.subscribes = true;
        self.pushes().listen();
        let awaited = Awaited::of(row.map_or("", |row| &row.name), request.len() - 1);
        self.send(core, raw, |to| Pending::Subscribe(to, awaited));
    }

    fn plain(&mut self, core: &mut Core, row: Option<&Row>, kind: Kind, request: &Request<'_>, raw: Raw<'_>) {
        match row {
            Some(row) if row.access != Access::Write => {
                self.count_read(core, Some(row), request);
                if matches!(&*row.name, "client|getredir" | "client|trackinginfo") {
                    return self.send(core, raw, |to| Pending::Changed(to, Changed::by(Change::Redirect)));
                }
                if row.cache(request) == CacheRule::Never {
                    return self.relay(core, raw);
                }
                let keys = Core::keys_of(Some(row), request);
                self.send(core, raw, |to| Pending::Bypass(to, Box::new(Bypass { keys, instead: None })));
            }
            row => {
                let mut write_set = WriteSet::default();
                write_set.add(&core.shared, row, request);
                if kind == Kind::Blocking {
                    write_set.may_wait();
                }
                self.write(core, write_set, raw);
            }
        }
    }

    /// Counts a read under the reason why it goes past the cache.
    fn count_read(&self, core: &Core, row: Option<&Row>, request: &Request<'_>) {
        let Some(row) = row.filter(|row| row.access == Access::Read) else { return };
        core.shared.cache.count(match row.cache(request) {
            CacheRule::Never => Reason::Uncacheable,
            _ if self.transaction.is_some() => Reason::Transaction,
            _ if self.state.may_have(WATCH) => Reason::Watching,
            _ if self.subscribes => Reason::Subscribed,
            _ => Reason::Dedicated,
        });
    }

    /// The database that the session is in here.
    pub(super) fn db(&self, core: &Core) -> u32 {
        self.state.became().ident(&core.ident).db
    }

    fn write(&mut self, core: &mut Core, mut write_set: WriteSet, raw: Raw<'_>) {
        let to = core.to(core.queue.open());
        write_set.db = Some(self.db(core));
        write_set.send(&core.shared, &self.link, &core.ident, core.now, to, raw);
    }

    fn relay(&mut self, core: &mut Core, raw: Raw<'_>) {
        if self.replies == Replies::On {
            return self.send(core, raw, Pending::Relay);
        }
        if self.replies == Replies::Skip {
            self.replies = Replies::On;
        }
        self.link.send_unanswered(|out| raw.write(out));
    }

    fn send(&mut self, core: &mut Core, raw: Raw<'_>, pending: impl FnOnce(ReplySlot) -> Pending) {
        let to = core.to(core.queue.open());
        let _ = send_on(&self.link, core.now, |out| raw.write(out), pending(to));
    }

    /// Sends what changes the connection's state if the server accepts it.
    fn leave(&mut self, core: &mut Core, effect: Effect, raw: Raw<'_>) {
        if self.replies != Replies::On {
            return self.relay(core, raw);
        }
        let leaves = Leaves::one(&self.state, effect);
        self.send(core, raw, |to| Pending::Leave(to, leaves));
    }

    fn local(&mut self, core: &mut Core, local: Local, effect: Option<Effect>, raw: Raw<'_>) {
        if self.pushes().is_restricted() {
            // Not allowed there: the server says so, and nothing changes.
            return self.relay(core, raw);
        }
        self.tell_name(core);
        match (local, effect) {
            (Local::Hello, effect) => {
                let leaves = effect.map(|effect| Leaves::one(&self.state, effect));
                let change = Change::HelloId(core.id, leaves);
                self.send(core, raw, |to| Pending::Changed(to, Changed::by(change)));
            }
            (_, Some(effect)) => self.leave(core, effect, raw),
            (_, None) => self.relay(core, raw),
        }
    }
}

fn is_script(row: &Row) -> bool {
    matches!(&*row.name, "eval" | "evalsha" | "eval_ro" | "evalsha_ro")
}

fn is_reply_command(row: Option<&Row>) -> bool {
    row.is_some_and(|row| row.name == "client|reply")
}
