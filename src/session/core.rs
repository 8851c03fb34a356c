//! What a session does with each request: classify, then the cache, the shared link, or a dedicated one.
//!
//! Invariants:
//! - A session has at most one link in use. It goes to another (a dedicated one, another database) only when
//!   all its earlier replies are in, so the order of its requests is the upstream's order.
//! - A request that waits for another's flight is not on any link yet; until it is answered, only reads that
//!   may be cached follow it. So no later write can overtake it.

mod end;
mod own;
mod turn;
mod way;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;

use bytes::Bytes;
use smallvec::SmallVec;

use super::asking::Asking;
use super::clients::Present;
use super::dedicated::Dedicated;
use super::errors;
use super::expect::{Bypass, InFlight, Pending};
use super::gate::{self, Password};
use super::idents::Ident;
use super::local::Changing;
use super::peer::LinkHandler;
use super::queue::{ReplyQueue, ReplySlot};
use super::shared::Shared;
use super::tunnel::Wanted;
use super::worker::Worker;
use super::write::WriteSet;
use crate::cache::{Bounds, IdentId, Micros, Reason};
use crate::command::{Access, CacheRule, Kind, Local, Row, Table};
use crate::namespace::Namespace;
use crate::resp::Protocol;
use crate::resp::request::Request;
use crate::upstream::{Link, Login, Outgoing};

/// Every server takes so many bytes in an argument, and so many arguments.
const ALWAYS_TAKEN: usize = 1 << 20;

/// A request's raw bytes.
pub(super) enum Raw<'a> {
    Copy(&'a [u8]),
    /// Large: passed on without a copy.
    Own(Bytes),
}

impl Raw<'_> {
    pub(super) fn write(self, out: &mut Outgoing) {
        match self {
            Raw::Copy(bytes) => out.copy(bytes),
            Raw::Own(bytes) => out.append(bytes),
        }
    }
}

/// What is to be done with a request, once it may be done.
pub(super) struct Admission<'t> {
    pub(super) row: Option<&'t Row>,
    pub(super) action: Action,
}

pub(super) enum Action {
    Forward,
    /// What may not be said before the password.
    Refuse,
    Info,
    Read,
    Mget,
    /// A read whose reply is not to be cached, though it could be.
    Bypass(Reason),
    Write,
    Local(Local),
    Dedicated(Kind),
    Tunnel,
}

enum Mode {
    Shared,
    Dedicated(Box<Dedicated>),
}

/// One session's state, without its socket.
pub(super) struct Core {
    pub(super) worker: Rc<Worker>,
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Rc<ReplyQueue>,
    pub(super) id: u64,
    pub(super) session: Present,
    pub(super) ident: Ident,
    /// The identity's number in the cache.
    pub(super) number: IdentId,
    pub(super) login: Option<Login>,
    pub(super) name: Vec<u8>,
    pub(super) link: Link<LinkHandler>,
    pub(super) changing: Option<Changing>,
    pub(super) asking: Option<Asking>,
    /// What the session is to become once all is answered.
    pub(super) tunnel: Option<Wanted>,
    pub(super) quit: bool,
    /// An `MGET` that is answered bit by bit.
    pub(super) rest: Option<Box<super::mget::Rest>>,
    /// The session's link is not the one that it would choose anew: see [`Core::settle`].
    unsettled: bool,
    /// The last request that may write keys which nobody can name.
    barrier: Cell<Option<u64>>,
    /// The client has not given the password that nearside asks for.
    locked: bool,
    /// When the present request was read.
    pub(super) now: Micros,
    mode: Mode,
    handled: u64,
    /// At how many it gives way, and whether it is to do so now.
    turn_ends: u64,
    gives_way: bool,
    /// Something was done since it was last looked whether anything holds the session up; a hit is nothing.
    looks: bool,
    /// What `handled` was when the clock was last read.
    timed: u64,
    hits: u64,
    reported: u64,
}

impl Core {
    pub(super) fn new(worker: Rc<Worker>, session: Present, queue: Rc<ReplyQueue>) -> Self {
        let shared = worker.shared.clone();
        let ident = worker.default_ident(Protocol::Resp2);
        let login = shared.settings.login.clone();
        let core = Self {
            locked: shared.settings.password.is_some(),
            number: shared.idents.number(&ident),
            link: worker.link(&ident, &login),
            now: shared.now(),
            worker,
            shared,
            queue,
            id: session.id,
            session,
            ident,
            login,
            name: Vec::new(),
            changing: None,
            tunnel: None,
            asking: None,
            quit: false,
            rest: None,
            unsettled: false,
            barrier: Cell::new(None),
            mode: Mode::Shared,
            handled: 0,
            turn_ends: turn::TURN,
            gives_way: false,
            looks: true,
            timed: 0,
            hits: 0,
            reported: 0,
        };
        core.publish();
        core
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Requests handled so far.
    pub(super) fn handled(&self) -> u64 {
        self.handled
    }

    /// What the client has to give, if nearside itself asks for it.
    pub(super) fn password(&self) -> Option<Password> {
        self.shared.settings.password.clone()
    }

    pub(super) fn is_locked(&self) -> bool {
        self.locked
    }

    pub(super) fn unlock(&mut self) {
        self.locked = false;
    }

    /// As at the start: the password has to be given anew, if there is one.
    pub(super) fn lock(&mut self) {
        self.locked = self.shared.settings.password.is_some();
    }

    /// Before a batch of requests: takes the time, and does what had to wait. Says whether anything was done.
    pub(super) fn begin_batch(&mut self, table: &Table, cx: &mut Context<'_>) -> bool {
        self.now = self.shared.now();
        self.timed = self.handled;
        self.looks = true;
        if self.session.has_orders() {
            self.obey(cx);
        }
        let mut done = self.poll_changing(cx) | self.poll_asking(table);
        self.unsettled = self.link.client().front.is_unsettled(self.now);
        if self.unsettled && !self.settle(false) && self.queue.has_joined() {
            // What was released waits until it is known which way to go.
            return done;
        }
        while let Some((slot, request)) = self.queue.next_released() {
            super::read::read_again(self, table, slot, &request);
            done = true;
        }
        done |= super::mget::go_on(self);
        if self.changing.is_none() {
            self.leave_if_idle();
        }
        done
    }

    /// `last` is the row of the last request.
    pub(super) fn end_batch(&mut self, last: Option<&Row>) {
        let requests = self.handled - self.reported;
        if requests == 0 {
            return;
        }
        self.reported = self.handled;
        self.session.note(self.now, last.map(|row| row.id));
        self.shared.metrics.requests.add(requests);
        let hits = std::mem::take(&mut self.hits);
        if hits > 0 {
            self.shared.cache.touch(self.now);
            let took = self.shared.now().saturating_sub(self.now);
            self.shared.metrics.hit_latency.observe(took, hits);
        }
    }

    pub(super) fn count_hit(&mut self) {
        self.hits += 1;
    }

    /// What is to be done with a request of this row; `None` if it has to wait for the replies before it.
    #[inline]
    pub(super) fn admit<'t>(&mut self, row: Option<&'t Row>, request: &Request<'_>) -> Option<Admission<'t>> {
        if row.is_some_and(|row| row.is_plain_read(request)) && self.is_free(request) {
            return Some(Admission { row, action: Action::Read });
        }
        self.admit_any(row, request)
    }

    /// Whether a cached read of one key may go straight to the cache, as it does nearly always: what [`Core::admit_any`]
    /// asks of it, in short.
    #[inline]
    fn is_free(&self, request: &Request<'_>) -> bool {
        matches!(self.mode, Mode::Shared)
            && !self.locked
            && !self.unsettled
            && self.barrier.get().is_none()
            && self.ident.user.is_none()
            && request.raw().len() <= ALWAYS_TAKEN
            && !self.queue.has_joined()
    }

    fn admit_any<'t>(&mut self, row: Option<&'t Row>, request: &Request<'_>) -> Option<Admission<'t>> {
        if self.locked && !row.is_some_and(|row| gate::allows(row) && row.takes(request.len())) {
            return Some(Admission { row, action: Action::Refuse });
        }
        let valid = row.is_none_or(|row| row.takes(request.len()));
        // Without a row it may be anything under another name, MULTI even: not on a link that others use.
        let kind = match row {
            None => Kind::Connection,
            Some(row) if valid => row.kind(request),
            Some(_) => Kind::Plain,
        };
        self.leave_if_idle();
        if self.unsettled && matches!(self.mode, Mode::Shared) && !self.settle(way::is_paused(row)) {
            return None;
        }
        let idle = || self.queue.waiting() == 0;
        let now = self.now;
        let kind = match &self.mode {
            Mode::Dedicated(dedicated) => dedicated.kind_here(row, kind),
            Mode::Shared => kind,
        };
        let action = match (&mut self.mode, kind) {
            (Mode::Dedicated(dedicated), Kind::Local(local)) if dedicated.answers_here(local) => {
                let done = local != Local::Reset || dedicated.is_done(now);
                (idle() && done).then_some(Action::Local(local))?
            }
            (_, Kind::Tunnel) => idle().then_some(Action::Tunnel)?,
            (Mode::Dedicated(dedicated), kind) if dedicated.holds_back(row, kind) && !idle() => return None,
            (Mode::Dedicated(_), kind) => Action::Dedicated(kind),
            (Mode::Shared, kind) if is_heavy(request) && !kind.is_answered_here() => {
                idle().then_some(Action::Dedicated(kind))?
            }
            // Wrong in any case: the upstream says how.
            (Mode::Shared, _) if !valid => Action::Forward,
            (Mode::Shared, Kind::Plain) => self.admit_plain(row?, request)?,
            (Mode::Shared, Kind::Local(local)) => idle().then_some(Action::Local(local))?,
            // Without a transaction, an error or nothing.
            (Mode::Shared, Kind::Exec | Kind::Discard | Kind::Unwatch) => Action::Forward,
            (Mode::Shared, kind) => idle().then_some(Action::Dedicated(kind))?,
        };
        Some(Admission { row, action })
    }

    fn admit_plain(&self, row: &Row, request: &Request<'_>) -> Option<Action> {
        let rule = row.cache(request);
        if self.queue.has_joined() {
            // What waits for another's flight may yet be read anew, and then knows more than what overtook it. So
            // only cached reads of other keys go on.
            let overtakes = self.is_doubtful() || self.queue.has_joined_for(request.get(1)?);
            return (rule == CacheRule::Single && !overtakes).then_some(Action::Read);
        }
        Some(match rule {
            CacheRule::Single | CacheRule::Mget if self.is_doubtful() => Action::Bypass(Reason::User),
            CacheRule::Single | CacheRule::Mget if self.is_behind_barrier() => {
                Action::Bypass(Reason::Barrier)
            }
            CacheRule::Single => Action::Read,
            CacheRule::Mget => Action::Mget,
            CacheRule::Unwanted => Action::Bypass(Reason::Unwanted),
            CacheRule::Never if way::is_paused(Some(row)) => Action::Write,
            CacheRule::Never if row.name == "info" => Action::Info,
            CacheRule::Never => Action::Forward,
        })
    }

    /// Whether a request of the session is under way that may write keys which nobody can name. What is read behind it
    /// goes the same way, so it sees what that has written.
    #[inline]
    fn is_behind_barrier(&self) -> bool {
        let Some(slot) = self.barrier.get() else { return false };
        let is_open = self.queue.is_open(slot);
        if !is_open {
            self.barrier.set(None);
        }
        is_open
    }

    /// Whether the session is another user's of whom it is not sure that the upstream would still let it in. One
    /// whose link stands is logged in there. One whose link does not may have been deleted, and another made under the
    /// same name.
    fn is_doubtful(&self) -> bool {
        if self.ident.user.is_none() {
            return false;
        }
        let unreachable = self.shared.settings.stale_if_error && !self.link.is_refused();
        !self.shared.watches_users() || !self.link.is_up() && !unreachable
    }

    pub(super) fn execute(&mut self, admission: Admission<'_>, request: &Request<'_>, raw: Raw<'_>) {
        self.handled += 1;
        self.looks = true;
        match admission.action {
            Action::Forward => {
                if admission.row.is_some_and(|row| row.access == Access::Read) {
                    self.shared.cache.count(Reason::Uncacheable);
                }
                let raw = super::local::unblocking(self, admission.row, request).map_or(raw, Raw::Own);
                self.forward(raw, Pending::Relay);
            }
            Action::Refuse => gate::refuse(self, admission.row, request),
            Action::Info => super::nearside::info(self, request, raw),
            Action::Read => self.looks = !super::read::read(self, admission.row, request, raw),
            Action::Mget => super::mget::mget(self, request, raw),
            Action::Bypass(reason) => {
                self.shared.cache.count(reason);
                let past = Bypass { keys: Self::keys_of(admission.row, request), instead: None };
                self.forward(raw, |to| Pending::Bypass(to, Box::new(past)));
            }
            Action::Write => self.write(admission.row, request, raw),
            Action::Local(local) => {
                self.session.note(self.now, admission.row.map(|row| row.id));
                super::local::answer(self, local, request, raw);
            }
            Action::Dedicated(kind) => self.send_dedicated(admission.row, kind, request, raw),
            Action::Tunnel => {
                let said = match &self.mode {
                    Mode::Dedicated(dedicated) => dedicated.said(),
                    Mode::Shared => Default::default(),
                };
                let writes = admission.row.is_some_and(|row| row.access != Access::None);
                let request = Bytes::copy_from_slice(request.raw());
                self.tunnel = Some(Wanted { said, request, writes });
            }
        }
    }

    /// Sends a request on the shared link; `what` says what is done with its reply.
    pub(super) fn forward(&mut self, raw: Raw<'_>, pending: impl FnOnce(ReplySlot) -> Pending) {
        let slot = self.queue.open();
        let pending = pending(self.to(slot));
        self.send(|out| raw.write(out), pending);
    }

    pub(super) fn to(&self, slot: u64) -> ReplySlot {
        ReplySlot { queue: self.queue.clone(), slot }
    }

    /// Sends on the shared link; if that is away, the client is told at once.
    pub(super) fn send(&self, write: impl FnOnce(&mut Outgoing), pending: Pending) {
        let _ = send_on(&self.link, self.now, write, pending);
    }

    fn write(&mut self, row: Option<&Row>, request: &Request<'_>, raw: Raw<'_>) {
        let mut write_set = WriteSet::of_one();
        write_set.add(&self.shared, row, request);
        let to = self.to(self.queue.open());
        if write_set.is_barrier() {
            self.barrier.set(Some(to.slot));
        }
        write_set.send(&self.shared, &self.link, &self.ident, self.now, to, raw);
    }

    /// Goes back to the shared link if nothing is left on the dedicated one.
    #[inline(always)]
    fn leave_if_idle(&mut self) {
        if !matches!(self.mode, Mode::Shared) && self.queue.waiting() == 0 {
            self.leave();
        }
    }

    /// From now on the session is this one.
    pub(super) fn become_ident(&mut self, ident: Ident, login: Option<Login>) {
        self.link = self.worker.link(&ident, &login);
        self.number = self.shared.idents.number(&ident);
        self.ident = ident;
        self.login = login;
        self.publish();
    }

    /// Where the session's requests go now.
    #[inline]
    pub(super) fn present_link(&self) -> &Link<LinkHandler> {
        match &self.mode {
            Mode::Shared => &self.link,
            Mode::Dedicated(dedicated) => dedicated.link(),
        }
    }

    /// Under what conditions a read of a key in this namespace may be served.
    pub(super) fn bounds(&self, namespace: Option<&Namespace>) -> Bounds {
        let unreachable = self.shared.settings.stale_if_error && !self.link.is_up();
        Bounds { max_staleness: self.shared.max_staleness(namespace), unreachable }
    }

    /// The keys of a request, copied.
    pub(super) fn keys_of(row: Option<&Row>, request: &Request<'_>) -> SmallVec<[Box<[u8]>; 1]> {
        let mut keys = SmallVec::new();
        if let Some(row) = row {
            let _ = row.keys(request, |i, _| keys.push(request.arg(i).into()));
        }
        keys
    }
}

/// Whether a server with tight limits might close the connection because of this request: it does so with an argument
/// above `proto-max-bulk-len`, which is 1 MB at least, and up to Redis 6 with more than 1,048,576 arguments.
#[inline]
fn is_heavy(request: &Request<'_>) -> bool {
    let heavy = || request.len() > ALWAYS_TAKEN || request.args().any(|arg| arg.len() > ALWAYS_TAKEN);
    request.raw().len() > ALWAYS_TAKEN && heavy()
}

/// Sends on `link`; if it is away, whoever waits is told at once, and the answer is false.
pub(super) fn send_on(
    link: &Link<LinkHandler>,
    since: Micros,
    write: impl FnOnce(&mut Outgoing),
    pending: Pending,
) -> bool {
    let peer = link.client();
    peer.shared.metrics.upstream_requests.inc();
    let Err((expect, loss)) = link.send(write, InFlight { since, pending }) else { return true };
    peer.shared.metrics.upstream_refused.inc();
    // Its announcements were not sent: who waited for their echoes would be deaf to those of others.
    expect.pending.echoed().iter().for_each(|key| peer.shared.cache.no_echo(key, since));
    let text = errors::lost(&peer.shared.settings.upstream.address, &loss);
    if let Pending::Answers(answers) = &expect.pending {
        answers.lose(&text);
    }
    if let Some(to) = expect.pending.give_up() {
        to.error(&text);
    }
    false
}
