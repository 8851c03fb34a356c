//! `CLIENT TRACKING … REDIRECT id` with the id of a session: what the upstream is told is the id of that session's own
//! connection, which the session gets for it, and keeps as long as anybody's tracking leads there.
//!
//! Invariants: the id that is told was confirmed by the session's own thread while the caller's [`Lead`] stood,
//! so the connection does not become another session's. An id of a connection of nearside's own that is no
//! session's is one that nobody has: the feed hears nothing for clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use super::asking::Asking;
use super::clients::Session;
use super::core::{Core, Raw};
use super::worker::{Inbox, Message};
use crate::command::{Row, Table};
use crate::resp::encode;
use crate::resp::framer::{Frame, RequestFramer};
use crate::resp::number::string2ll;
use crate::resp::request::Request;

/// The upstream gives it to nobody.
const NOBODY: i64 = i64::MAX;

/// Somebody's tracking leads, or is to lead, to a session.
pub(super) struct Lead(Arc<Session>);

impl Lead {
    fn to(session: &Arc<Session>) -> Self {
        session.is_led_to(true);
        Self(session.clone())
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.0.is_led_to(false);
    }
}

/// A session asks another for the id of its own connection.
pub(super) struct Call {
    /// 0 until it is answered.
    answer: AtomicI64,
    inbox: Arc<Inbox>,
    caller: u64,
}

impl Call {
    /// `None`: it has none, and will get none.
    pub(super) fn answer(&self, id: Option<i64>) {
        self.answer.store(id.unwrap_or(NOBODY), Ordering::Release);
        self.inbox.send(Message::Wake { session: self.caller });
    }
}

/// A request that waits for the id.
pub(super) struct Redirecting {
    lead: Lead,
    call: Arc<Call>,
    /// The request, and which argument is the id.
    args: Vec<Vec<u8>>,
    at: usize,
}

/// Which argument is the id, if there is just one.
fn place(request: &Request<'_>) -> Option<usize> {
    let (mut found, mut i) = (None, 3);
    while let Some(word) = request.get(i) {
        let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
        if is(b"redirect") && found.replace(i + 1).is_some() {
            return None;
        }
        i += if is(b"redirect") || is(b"prefix") { 2 } else { 1 };
    }
    found.filter(|at| *at < request.len())
}

fn rewritten(mut args: Vec<Vec<u8>>, at: usize, id: i64) -> Bytes {
    args[at] = id.to_string().into_bytes();
    let mut out = BytesMut::new();
    encode::command(&mut out, &args.iter().map(Vec::as_slice).collect::<Vec<_>>());
    out.freeze()
}

/// The redirection to a session that is begun here, if the request is one; it is carried out when the id is known.
pub(super) fn begin(core: &mut Core, row: Option<&Row>, request: &Request<'_>) -> bool {
    let Some(at) = row.filter(|row| row.name == "client|tracking").and_then(|_| place(request)) else {
        return false;
    };
    let id = string2ll(request.arg(at)).and_then(|id| u64::try_from(id).ok());
    let Some(session) = id.and_then(|id| core.shared.clients.get(id)) else { return false };
    let lead = Lead::to(&session);
    let inbox = core.worker.inbox.clone();
    let call = Arc::new(Call { answer: AtomicI64::new(0), inbox, caller: core.id });
    session.call(call.clone());
    if core.shared.clients.get(session.id).is_none() {
        // It has just gone, perhaps without a look at the call.
        call.answer(None);
    }
    let args = request.args().map(<[u8]>::to_vec).collect();
    core.asking = Some(Asking::Redirect(Redirecting { lead, call, args, at }));
    true
}

/// The request as the upstream is to have it, if it names a connection of nearside's that is no session's.
pub(super) fn astray(core: &Core, row: Option<&Row>, request: &Request<'_>) -> Option<Bytes> {
    let at = row.filter(|row| row.name == "client|tracking").and_then(|_| place(request))?;
    string2ll(request.arg(at)).filter(|id| core.shared.settings.upstream.ours.has_id(*id))?;
    Some(rewritten(request.args().map(<[u8]>::to_vec).collect(), at, NOBODY))
}

impl Redirecting {
    pub(super) fn is_answered(&self) -> bool {
        self.call.answer.load(Ordering::Acquire) != 0
    }

    /// Carries the request out.
    pub(super) fn go_on(self, core: &mut Core, table: &Table) {
        let id = self.call.answer.load(Ordering::Acquire);
        let target = self.lead.0.id;
        let bytes = rewritten(self.args, self.at, id);
        let mut framer = RequestFramer::new(core.shared.settings.limits);
        let Ok(Frame::Request(_)) = framer.next(&bytes) else { return };
        let request = framer.request(&bytes);
        let Some(row) = table.lookup(&request) else { return };
        core.session.change(|who| who.redirects = Some((id, target)));
        core.on_dedicated(Some(row), row.kind(&request), &request, Raw::Own(bytes.clone()));
        core.lead(self.lead);
    }
}

impl Core {
    /// Does what others have asked of the session.
    #[cold]
    pub(super) fn obey(&mut self, cx: &mut Context<'_>) {
        if self.session.is_killed() {
            self.quit = true;
            self.queue.cut_off();
            return;
        }
        if self.is_shared() && (self.queue.waiting() > 0 || self.changing.is_some()) {
            // It is woken when these are done.
            return;
        }
        self.dedicate();
        let id = match self.present_link().poll_ready(cx) {
            Poll::Pending => return,
            Poll::Ready(Ok(())) => self.present_link().client().id(),
            Poll::Ready(Err(_)) => None,
        };
        self.session.calls().into_iter().for_each(|call| call.answer(id));
    }
}
