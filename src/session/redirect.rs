//! `CLIENT TRACKING … REDIRECT id` with the id of a session: what the upstream is told is the id of that session's own
//! connection, which the session gets for it, and keeps as long as anybody's tracking leads there.
//!
//! Invariants: the id that is told was confirmed by the session's own thread while the caller's [`Lead`] stood,
//! so the connection does not become another session's. An id of a connection of nearside's own that is no
//! session's is one that nobody has: the feed hears nothing for clients.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::command::Row;
use crate::process::{Call, Client, NOBODY, Process};
use crate::request::Context;
use crate::resp::encode;
use crate::resp::number::string2ll;
use crate::resp::request::Request;

/// Somebody's tracking leads, or is to lead, to a session.
pub struct Lead(Arc<Client>);

impl Lead {
    fn to(session: &Arc<Client>) -> Self {
        session.is_led_to(true);
        Self(session.clone())
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.0.is_led_to(false);
    }
}

/// A request that waits for the id.
pub struct Redirecting {
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
pub fn begin(cx: &Context, row: Option<&Row>, request: &Request<'_>) -> Option<Redirecting> {
    let at = row.filter(|row| row.name == "client|tracking").and_then(|_| place(request))?;
    let id = string2ll(request.arg(at)).and_then(|id| u64::try_from(id).ok())?;
    let client = cx.process.clients.get(id)?;
    let lead = Lead::to(&client);
    let call = Call::new(cx.outbound.inbox.clone(), cx.client.id);
    client.call(call.clone());
    if cx.process.clients.get(client.id).is_none() {
        // It has just gone, perhaps without a look at the call.
        call.answer(None);
    }
    let args = request.args().map(<[u8]>::to_vec).collect();
    Some(Redirecting { lead, call, args, at })
}

/// The request as the upstream is to have it, if it names a connection of nearside's that is no session's.
pub fn astray(process: &Process, row: Option<&Row>, request: &Request<'_>) -> Option<Bytes> {
    let at = row.filter(|row| row.name == "client|tracking").and_then(|_| place(request))?;
    string2ll(request.arg(at)).filter(|id| process.settings.upstream.ours.has_id(*id))?;
    Some(rewritten(request.args().map(<[u8]>::to_vec).collect(), at, NOBODY))
}

impl Redirecting {
    pub fn is_answered(&self) -> bool {
        self.call.answered().is_some()
    }

    /// What is to be sent, where it leads (what the upstream calls that, and the client), and what keeps that there.
    pub fn into_parts(self) -> (Bytes, (i64, u64), Lead) {
        let (id, target) = (self.call.answered().unwrap_or(NOBODY), self.lead.0.id);
        (rewritten(self.args, self.at, id), (id, target), self.lead)
    }
}
