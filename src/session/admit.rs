//! What is to be done with a request, and whether that may be done now: by what its row says, by the session's mode, and by
//! what is still open.

use super::clean::Way;
use super::gate;
use super::presented;
use super::state::{Mode, Session};
use super::way::Own;
use crate::cache::Reason;
use crate::command::{Access, CacheRule, Kind, Local, Row};
use crate::process::errors;
use crate::request::back::{self, Taken};
use crate::resp::request::Request;

/// Every server takes so many bytes in an argument, and so many arguments.
const ALWAYS_TAKEN: usize = 1 << 20;

/// What is to be done with a request, once it may be done.
pub struct Admission<'t> {
    pub row: Option<&'t Row>,
    pub action: Action,
}

pub enum Action {
    Forward,
    /// What may not be said before the password.
    Refuse,
    Info,
    /// What asks about a cluster.
    Presented,
    Read,
    Mget,
    /// A read whose reply is not to be cached, though it could be.
    Bypass(Reason),
    Write,
    Local(Local),
    Dedicated(Kind),
    Tunnel,
    /// It was taken, and is answered or will be: see [`back`].
    Taken,
    /// What stands in its way does not go away; why is with the [claims](super::claims).
    Blocked,
}

impl Session {
    /// What is to be done with a request of this row; `None` if it has to wait for the replies before it.
    #[inline]
    pub fn admit<'t>(&mut self, row: Option<&'t Row>, request: &Request<'_>) -> Option<Admission<'t>> {
        let is_read = row.is_some_and(|row| row.is_plain_read(request) && self.may_hit(row));
        if is_read && self.is_free(request) {
            return Some(Admission { row, action: Action::Read });
        }
        if self.guarded
            && let Some(write) = row.filter(|row| self.may_take(row, request))
        {
            return self.admit_write(write, request).map(|action| Admission { row, action });
        }
        self.admit_any(row, request)
    }

    /// Whether a cached read of one key may go straight to the cache, and a write of a whole value to what is dirty, as they do
    /// nearly always: what [`Session::admit_any`] asks of them, in short.
    #[inline]
    fn is_free(&self, request: &Request<'_>) -> bool {
        matches!(self.mode, Mode::Shared)
            && !self.unsettled
            && self.barrier.get().is_none()
            && self.cx.key.ident.user.is_none()
            && request.raw().len() <= ALWAYS_TAKEN
            && !self.cx.queue.has_joined()
    }

    /// Whether such a read has nothing to be asked before, or else is one that is answered from what is dirty.
    #[inline]
    fn may_hit(&self, row: &Row) -> bool {
        !self.guarded || row.id == self.cx.process.get && self.claims_nothing()
    }

    /// Whether it is such a write.
    fn may_take(&self, row: &Row, request: &Request<'_>) -> bool {
        back::may_be_taken(row) && row.takes(request.len()) && self.claims_nothing() && self.is_free(request)
    }

    /// Whether what concerns what is dirty is the session's to say, and nothing waits to be sent.
    fn claims_nothing(&self) -> bool {
        !self.locked && self.claims.is_idle() && back::is_own(&self.cx)
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
        if self.unsettled && matches!(self.mode, Mode::Shared) && !self.settle(is_paused(row)) {
            return None;
        }
        if self.minds_dirty {
            match self.way(row, kind, request) {
                Way::Free => {}
                Way::Waits => return None,
                Way::Blocked => return Some(Admission { row, action: Action::Blocked }),
            }
        }
        let queue = self.cx.queue.clone();
        let idle = || queue.waiting() == 0;
        let muted = self.cx.queue.is_muted();
        let kind = match &self.mode {
            Mode::Dedicated(dedicated) => dedicated.kind_here(row, kind, muted),
            Mode::Shared if kind == Kind::Tunnel && muted => Kind::Connection,
            Mode::Shared => kind,
        };
        if valid
            && self.cx.process.cluster.is()
            && row.is_some_and(presented::is_answered)
            && self.is_free_to_say()
        {
            return Some(Admission { row, action: Action::Presented });
        }
        let action = match (&mut self.mode, kind) {
            (Mode::Dedicated(dedicated), Kind::Local(local)) if dedicated.answers_here(local) => {
                let done = local != Local::Reset || dedicated.is_done();
                (idle() && done).then_some(Action::Local(local))?
            }
            (_, Kind::Tunnel) => idle().then_some(Action::Tunnel)?,
            (Mode::Dedicated(_), kind) if !self.cx.process.is_single() => {
                let is_plain = kind == Kind::Plain && !is_heavy(request);
                match self.admit_own(row, kind, request, is_plain)? {
                    Own::Alone => Action::Dedicated(kind),
                    Own::Shared(_) if self.unsettled && !self.settle(is_paused(row)) => return None,
                    Own::Shared(reason) => self.admit_past(row?, request, reason)?,
                }
            }
            (Mode::Dedicated(dedicated), kind) if dedicated.holds_back(kind) && !idle() => return None,
            (Mode::Dedicated(_), kind) => Action::Dedicated(kind),
            (Mode::Shared, kind) if is_heavy(request) && !kind.is_answered_here() => {
                idle().then_some(Action::Dedicated(kind))?
            }
            // Wrong in any case: the upstream says how.
            (Mode::Shared, _) if !valid => Action::Forward,
            (Mode::Shared, Kind::Plain) => self.admit_plain(row?, request)?,
            (Mode::Shared, Kind::Local(Local::ClientReply)) => Action::Local(Local::ClientReply),
            (Mode::Shared, Kind::Local(local)) => idle().then_some(Action::Local(local))?,
            // Without a transaction, an error or nothing.
            (Mode::Shared, Kind::Exec | Kind::Discard | Kind::Unwatch) => Action::Forward,
            (Mode::Shared, kind) => idle().then_some(Action::Dedicated(kind))?,
        };
        Some(Admission { row, action })
    }

    /// Whether the session may say what it likes, and is answered at once.
    fn is_free_to_say(&self) -> bool {
        match &self.mode {
            Mode::Shared => true,
            Mode::Dedicated(dedicated) => dedicated.phase().is_free(),
        }
    }

    /// What goes on a link that others share though the session has a connection of its own: a read goes past the cache.
    fn admit_past(&mut self, row: &Row, request: &Request<'_>, reason: Reason) -> Option<Action> {
        if !row.takes(request.len()) {
            return Some(Action::Forward);
        }
        Some(match self.admit_plain(row, request)? {
            Action::Read | Action::Mget => Action::Bypass(reason),
            action => action,
        })
    }

    fn admit_plain(&mut self, row: &Row, request: &Request<'_>) -> Option<Action> {
        if self.cx.queue.has_joined() {
            // What waits for another's flight may yet be read anew, and then knows more than what overtook it. So
            // only cached reads of other keys go on.
            let overtakes = self.is_doubtful() || self.cx.queue.has_joined_for(request.get(1)?);
            return (row.cache(request) == CacheRule::Single && !overtakes).then_some(Action::Read);
        }
        if self.minds_dirty && back::may_be_taken(row) && back::is_own(&self.cx) {
            return self.admit_write(row, request);
        }
        Some(self.plain(row, request))
    }

    /// A write that may be taken here. It was, or goes through once its keys are clean.
    fn admit_write(&mut self, row: &Row, request: &Request<'_>) -> Option<Action> {
        if !self.goes_through() {
            match back::take(&self.cx, row, request) {
                Taken::Here => return Some(Action::Taken),
                Taken::Full(namespace) => {
                    self.claims.error = errors::no_room(&namespace);
                    return Some(Action::Blocked);
                }
                Taken::Through => {}
            }
        }
        match self.way_through(row, request) {
            Way::Free => Some(self.plain(row, request)),
            Way::Waits => None,
            Way::Blocked => Some(Action::Blocked),
        }
    }

    /// What is to be done with a request on a link that others share.
    pub(super) fn plain(&self, row: &Row, request: &Request<'_>) -> Action {
        match row.cache(request) {
            CacheRule::Single | CacheRule::Mget if self.is_doubtful() => Action::Bypass(Reason::User),
            CacheRule::Single | CacheRule::Mget if self.is_behind_barrier() => {
                Action::Bypass(Reason::Barrier)
            }
            CacheRule::Single => Action::Read,
            CacheRule::Mget => Action::Mget,
            CacheRule::Unwanted => Action::Bypass(Reason::Unwanted),
            CacheRule::Never if is_paused(Some(row)) => Action::Write,
            CacheRule::Never if row.name == "info" => Action::Info,
            CacheRule::Never => Action::Forward,
        }
    }

    /// Whether a request of the session is under way that may write keys which nobody can name. What is read behind it
    /// goes the same way, so it sees what that has written.
    #[inline]
    fn is_behind_barrier(&self) -> bool {
        let Some(slot) = self.barrier.get() else { return false };
        let is_open = self.cx.queue.is_open(slot);
        if !is_open {
            self.barrier.set(None);
        }
        is_open
    }

    /// Whether the session is another user's of whom it is not sure that the upstream would still let it in. One
    /// whose link stands is logged in there. One whose link does not may have been deleted, and another made under the
    /// same name.
    fn is_doubtful(&self) -> bool {
        if self.cx.key.ident.user.is_none() {
            return false;
        }
        let unreachable = self.cx.process.settings.stale_if_error.get() && !self.cx.link.is_refused();
        !self.cx.key.node.watches_users() || !self.cx.link.is_up() && !unreachable
    }

    /// Chooses the link for what comes next, while the session's own is stuck, is a spare one, or is to be left. It stays
    /// where it has something open, so that its order is kept. False if what comes next has to wait for that: nothing
    /// more goes on a link that is to be left, and no write to where it would hold up the reads.
    pub(super) fn settle(&mut self, writes: bool) -> bool {
        if self.changing.is_some() {
            return true;
        }
        if !self.keep_up() {
            return false;
        }
        let router = &self.cx.outbound.router;
        if self.cx.queue.has_sent() {
            let kept_off = || writes && router.keeps_writes_off(self.cx.ident, &self.cx.link, self.cx.now);
            return !self.cx.link.client().is_replaced() && !kept_off();
        }
        match router.route(&self.cx.key, writes, self.cx.now) {
            Some(link) => {
                self.cx.link = link;
                self.cx.ident = self.cx.process.idents.number(&self.cx.key.ident);
                true
            }
            None => {
                router.wake_when_known(self.cx.client.id, &self.cx.queue);
                false
            }
        }
    }
}

/// Whether a server with tight limits might close the connection because of this request: it does so with an argument
/// above `proto-max-bulk-len`, which is 1 MB at least, and up to Redis 6 with more than 1,048,576 arguments.
#[inline]
fn is_heavy(request: &Request<'_>) -> bool {
    let heavy = || request.len() > ALWAYS_TAKEN || request.args().any(|arg| arg.len() > ALWAYS_TAKEN);
    request.raw().len() > ALWAYS_TAKEN && heavy()
}

/// Whether the server pauses such a command when it pauses writes.
fn is_paused(row: Option<&Row>) -> bool {
    row.is_some_and(|row| row.access == Access::Write || matches!(&*row.name, "publish" | "spublish"))
}
