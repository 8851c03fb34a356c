//! Commands about clients, which nearside answers with what it asks the upstream for: `CLIENT INFO`, `LIST`, `KILL`.
//!
//! Invariants: whether the client may say it, and what is wrong with how it is said, is for the upstream to
//! tell, and is asked under the session's own login before anything is told or done. The request is asked in a way
//! that closes nobody; what is to be closed there is then named by its id, and is no connection of nearside's.
//!
//! The session handles no other request until it has its answer.

use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::listing::Filter;
use super::redirect::Redirecting;
use crate::command::Row;
use crate::pending::Answers;
use crate::process::Client;
use crate::reply::ReplySlot;
use crate::resp::encode;
use crate::resp::request::Request;

/// No client's address.
const NOBODY: &[u8] = b"nobody:0";

/// A command about clients, while what it needs is awaited.
pub enum Asking {
    Upstream(ReplySlot, Rc<Answers>, Step),
    /// Another session.
    Redirect(Redirecting),
}

impl Asking {
    pub fn is_answered(&self) -> bool {
        match self {
            Self::Upstream(_, answers, _) => answers.is_complete(),
            Self::Redirect(redirecting) => redirecting.is_answered(),
        }
    }
}

pub enum Step {
    Info,
    List(Filter),
    /// May it be said? And of whom?
    Kill(Kill),
    /// The upstream's clients are being closed, so many sessions were.
    Killed {
        sessions: usize,
        form: Form,
        me: bool,
    },
}

pub struct Kill {
    pub form: Form,
    pub filter: Filter,
    /// What the old form names.
    pub address: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Form {
    /// `CLIENT KILL addr:port`
    Address,
    Filters,
}

/// Whom a `KILL` is for.
#[derive(Default)]
pub struct Victims {
    pub sessions: Vec<Arc<Client>>,
    /// The upstream's clients.
    pub others: Vec<i64>,
}

/// A `CLIENT KILL` with all that may be wrong with it, that closes nobody.
pub fn of_nobody<'a>(request: &Request<'a>, filter: &Filter) -> Vec<&'a [u8]> {
    let mut args: Vec<_> = request.args().collect();
    if request.len() == 3 {
        args[2] = NOBODY;
        return args;
    }
    filter.peers.iter().filter(|at| **at < request.len()).for_each(|at| args[*at] = NOBODY);
    if filter.peers.is_empty() {
        args.splice(2..2, [&b"ADDR"[..], NOBODY]);
    }
    args
}

/// A `CLIENT KILL` where its reply cannot be waited for, in a transaction say: as it stands it might close the
/// connections that other clients share.
pub fn harmless(row: Option<&Row>, request: &Request<'_>) -> Option<Bytes> {
    row.filter(|row| row.name == "client|kill" && row.takes(request.len()))?;
    let mut out = BytesMut::new();
    encode::command(&mut out, &of_nobody(request, &Filter::parse(request)));
    Some(out.freeze())
}
