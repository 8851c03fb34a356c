//! Links and the feed: each shared link is made sure to lead to the feed's server, and asks to have what is read on it
//! tracked.
//!
//! Invariants: what the upstream says to one link concerns that link. A question that was put off (`-BUSY` …) is
//! asked again soon, one that was refused from time to time, when users were changed, and whenever link or feed come up.

use crate::pending::{InFlight, Link, Pending};
use crate::process::FeedUp;
use crate::resp::encode;
use crate::upstream::server_id;

/// Makes sure that `link` leads to the feed's server, and asks the upstream to track what is read on it.
/// Whatever is leased after the answer is covered: its read comes behind this request on the same connection.
pub fn arm(link: &Link) {
    let handler = link.client();
    let process = &handler.process;
    let Some(FeedUp { coverage, client_id, server, .. }) = *handler.node.feed_up.borrow() else { return };
    let request = |pending| InFlight { since: process.now(), pending };
    match server {
        Some(server) => {
            let _ = link.send(|out| out.copy(server_id::ASK), request(Pending::Server(coverage, server)));
        }
        None => handler.may_lead_to(coverage),
    }
    if !process.redirects() {
        return;
    }
    let Some(id) = client_id else {
        return handler.refuse("the feed could not learn its id (HELLO, CLIENT ID)");
    };
    let id = id.to_string();
    let command: [&[u8]; 5] = [b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", id.as_bytes()];
    let _ =
        link.send(|out| out.with(|tail| encode::command(tail, &command)), request(Pending::Arm(coverage)));
}
