//! `NEARSIDE CLIENTS`: the sessions of this process, one line for each in the manner of `CLIENT LIST`.
//!
//! Invariants: nothing is asked upstream, so it can be said while that is away. A user other than nearside's own is told of
//! the sessions of that user alone. What is told was counted already: to ask costs the sessions nothing.

use std::io::Write;

use crate::process::{Client, Process};

/// All sessions, by id; with `user`, only those that speak as this user.
pub fn connected(process: &Process, user: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for session in process.clients.all() {
        if user.is_none_or(|user| session.who().user == user) {
            line(&mut out, process, &session);
        }
    }
    out
}

fn line(out: &mut Vec<u8>, process: &Process, session: &Client) {
    let who = session.who();
    let words: [(&str, &[u8]); 5] = [
        ("addr", session.ends.peer.as_bytes()),
        ("name", &who.name),
        ("lib-name", &who.library),
        ("lib-ver", &who.version),
        ("user", &who.user),
    ];
    let numbers = [
        ("db", u64::from(who.db)),
        ("age", session.since.elapsed().as_secs()),
        ("idle", session.idle(process.now()).as_secs()),
        ("hits", session.hits()),
        ("misses", session.misses()),
    ];
    // Nothing that is written to memory fails.
    let _ = write!(out, "id={}", session.id);
    for (name, word) in words {
        let _ = write!(out, " {name}=");
        out.extend_from_slice(word);
    }
    for (name, number) in numbers {
        let _ = write!(out, " {name}={number}");
    }
    out.push(b'\n');
}
