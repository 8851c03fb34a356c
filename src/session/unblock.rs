//! `CLIENT UNBLOCK`: the upstream is told what it calls the connection of the session that is meant.

use bytes::{Bytes, BytesMut};

use crate::command::Row;
use crate::process::{NodeId, Process};
use crate::resp::encode;
use crate::resp::number::string2ll;
use crate::resp::request::Request;

/// At which node the session has its connection that is meant by a `CLIENT UNBLOCK`, if it has one.
pub fn where_to_unblock(process: &Process, row: Option<&Row>, request: &Request<'_>) -> Option<NodeId> {
    row.filter(|row| row.name == "client|unblock")?;
    let id = string2ll(request.get(2)?).and_then(|id| u64::try_from(id).ok())?;
    process.clients.get(id)?.node()
}

/// A `CLIENT UNBLOCK`, said at this node, with the id that it has for the session that is meant; `None` of any other
/// request, and if the id is none of ours.
pub fn unblocking(process: &Process, at: NodeId, row: Option<&Row>, request: &Request<'_>) -> Option<Bytes> {
    row.filter(|row| row.name == "client|unblock")?;
    let id = string2ll(request.get(2)?).and_then(|id| u64::try_from(id).ok())?;
    let id = upstream_id(process, at, id)?.to_string();
    let args: Vec<_> =
        (0..request.len()).map(|i| if i == 2 { id.as_bytes() } else { request.arg(i) }).collect();
    let mut out = BytesMut::new();
    encode::command(&mut out, &args);
    Some(out.freeze())
}

/// What the upstream has to be told where a client says `id`, of `CLIENT UNBLOCK` say; `None` if it is the right one.
/// 0, which it calls nobody, stands for a session that has no connection of its own there, and for connections of ours that
/// are no clients.
fn upstream_id(process: &Process, at: NodeId, id: u64) -> Option<i64> {
    if let Some(session) = process.clients.get(id) {
        return Some(session.upstream_at(at));
    }
    i64::try_from(id).ok().filter(|id| process.settings.upstream.ours.has_id(*id)).map(|_| 0)
}
