//! Scripts on a cluster's nodes: a client that has loaded one, or run it by `EVAL`, may say `EVALSHA` to any node, also to
//! one that joined later.
//!
//! Invariants: what a node may not know is told to it on the very link, right in front of the `EVALSHA`, once for each
//! connection. So nothing has to be sent again, and the order of the session's requests stays. That a user may not say `SCRIPT`
//! costs only this: the node answers as it would have.

use super::context::Context;
use crate::command::Row;
use crate::pending::{Link, Pending, send};
use crate::resp::encode;
use crate::resp::request::Request;

/// Notes the script that a request has, or that all are to be forgotten.
pub fn note_scripts(cx: &Context, row: Option<&Row>, request: &Request<'_>) {
    let Some(row) = row else { return };
    match (&*row.name, request.get(1), request.get(2)) {
        ("eval" | "eval_ro", Some(script), _) | ("script|load", _, Some(script)) => {
            cx.process.scripts.add(script);
        }
        ("script|flush", ..) => cx.process.scripts.flush(),
        _ => {}
    }
}

/// Tells the server of `link` of the script that the request names, if it was not told.
pub fn preload(cx: &Context, row: Option<&Row>, request: &Request<'_>, link: &Link) {
    if !row.is_some_and(|row| matches!(&*row.name, "evalsha" | "evalsha_ro")) {
        return;
    }
    let script = request.get(1).and_then(|name| cx.process.scripts.get(name));
    let Some((digest, script)) = script.filter(|(digest, _)| link.client().tell_script(*digest)) else {
        return;
    };
    cx.process.metrics.scripts_loaded.inc();
    let load = |out: &mut crate::io::Outgoing| {
        out.with(|tail| encode::command(tail, &[b"SCRIPT", b"LOAD", &script]));
    };
    send(link, cx.now, load, Pending::Script(digest));
}
