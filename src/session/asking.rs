//! Commands about clients, which nearside answers with what it asks the upstream for: `CLIENT INFO`, `LIST`, `KILL`.
//!
//! Invariants: whether the client may say it, and what is wrong with how it is said, is for the upstream to
//! tell, and is asked under the session's own login before anything is told or done. The request is asked in a way
//! that closes nobody; what is to be closed there is then named by its id, and is no connection of nearside's.
//!
//! The session handles no other request until it has its answer.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::clients::Session;
use super::core::{Core, Raw, send_on};
use super::errors;
use super::expect::Pending;
use super::listing::{Asker, Filter, merge, own_line, written};
use super::queue::{ReplyQueue, ReplySlot};
use super::redirect::Redirecting;
use crate::command::{Row, Table};
use crate::resp::encode;
use crate::resp::request::Request;
use crate::upstream::{At, Outgoing};

/// No client's address.
const NOBODY: &[u8] = b"nobody:0";

const LIST: [&[u8]; 2] = [b"CLIENT", b"LIST"];

/// Replies that a session waits for.
pub(super) struct Answers {
    /// Those that have come whole, and the beginning of the next.
    replies: RefCell<(Vec<Bytes>, BytesMut)>,
    wanted: usize,
    queue: Rc<ReplyQueue>,
}

impl Answers {
    fn new(wanted: usize, queue: &Rc<ReplyQueue>) -> Rc<Self> {
        Rc::new(Self { replies: RefCell::default(), wanted, queue: queue.clone() })
    }

    fn is_complete(&self) -> bool {
        self.replies.borrow().0.len() >= self.wanted
    }

    /// Takes a piece of a reply; says whether it was the last of all.
    pub(super) fn take(&self, chunk: &[u8], at: At) -> bool {
        let mut replies = self.replies.borrow_mut();
        let (whole, piece) = &mut *replies;
        piece.extend_from_slice(chunk);
        if at.last {
            whole.push(std::mem::take(piece).freeze());
        }
        drop(replies);
        let complete = self.is_complete();
        if complete {
            self.queue.wake();
        }
        complete
    }

    /// What has not come will not: this error stands for it.
    pub(super) fn lose(&self, text: &str) {
        let error = Bytes::from(errors::line(text));
        let (whole, piece) = &mut *self.replies.borrow_mut();
        piece.clear();
        whole.resize(self.wanted, error);
        self.queue.wake();
    }
}

/// A command about clients, while what it needs is awaited.
pub(super) enum Asking {
    Upstream(ReplySlot, Rc<Answers>, Step),
    /// Another session.
    Redirect(Redirecting),
}

impl Asking {
    fn is_answered(&self) -> bool {
        match self {
            Self::Upstream(_, answers, _) => answers.is_complete(),
            Self::Redirect(redirecting) => redirecting.is_answered(),
        }
    }
}

pub(super) enum Step {
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

pub(super) struct Kill {
    form: Form,
    filter: Filter,
    /// What the old form names.
    address: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Form {
    /// `CLIENT KILL addr:port`
    Address,
    Filters,
}

/// Whom a `KILL` is for.
#[derive(Default)]
struct Victims {
    sessions: Vec<Arc<Session>>,
    /// The upstream's clients.
    others: Vec<i64>,
}

pub(super) fn info(core: &mut Core, raw: Raw<'_>) {
    core.ask(1, |out| raw.write(out), Step::Info);
}

pub(super) fn list(core: &mut Core, request: &Request<'_>, raw: Raw<'_>) {
    let filter = Filter::parse(request);
    if request.len() == 2 {
        return core.ask(1, |out| raw.write(out), Step::List(filter));
    }
    // The filter is for the upstream to check, and not to apply: it does not know the sessions.
    let ask = |out: &mut Outgoing| {
        raw.write(out);
        out.with(|tail| encode::command(tail, &LIST));
    };
    core.ask(2, ask, Step::List(filter));
}

pub(super) fn kill(core: &mut Core, request: &Request<'_>) {
    let form = if request.len() == 3 { Form::Address } else { Form::Filters };
    let mut filter = match form {
        Form::Address => Filter::default(),
        Form::Filters => Filter::parse(request),
    };
    filter.skips_me.get_or_insert(true);
    let asked = of_nobody(request, &filter);
    let lists = form == Form::Filters && !filter.is_of_ids();
    let ask = |out: &mut Outgoing| {
        out.with(|tail| {
            encode::command(tail, &asked);
            if lists {
                encode::command(tail, &LIST);
            }
        });
    };
    let address = request.get(2).unwrap_or_default().to_vec();
    core.ask(1 + usize::from(lists), ask, Step::Kill(Kill { form, filter, address }));
}

/// A `CLIENT KILL` with all that may be wrong with it, that closes nobody.
fn of_nobody<'a>(request: &Request<'a>, filter: &Filter) -> Vec<&'a [u8]> {
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
pub(super) fn harmless(row: Option<&Row>, request: &Request<'_>) -> Option<Bytes> {
    row.filter(|row| row.name == "client|kill" && row.takes(request.len()))?;
    let mut out = BytesMut::new();
    encode::command(&mut out, &of_nobody(request, &Filter::parse(request)));
    Some(out.freeze())
}

impl Core {
    /// Asks the upstream for `wanted` replies, which `step` is then done with.
    fn ask(&mut self, wanted: usize, write: impl FnOnce(&mut Outgoing), step: Step) {
        let to = self.to(self.queue.open());
        self.ask_for(to, wanted, write, step);
    }

    fn ask_for(&mut self, to: ReplySlot, wanted: usize, write: impl FnOnce(&mut Outgoing), step: Step) {
        let answers = Answers::new(wanted, &self.queue);
        send_on(self.present_link(), self.now, write, Pending::Answers(answers.clone()));
        self.asking = Some(Asking::Upstream(to, answers, step));
    }

    /// Goes on with a command about clients. Says whether anything was done.
    pub(super) fn poll_asking(&mut self, table: &Table) -> bool {
        let (to, answers, step) = match self.asking.take_if(|asking| asking.is_answered()) {
            None => return false,
            Some(Asking::Redirect(redirecting)) => {
                redirecting.go_on(self, table);
                return true;
            }
            Some(Asking::Upstream(to, answers, step)) => (to, answers, step),
        };
        let replies = std::mem::take(&mut answers.replies.borrow_mut().0);
        match step {
            Step::Info => {
                let line = body(&replies[0]).and_then(|text| own_line(&self.shared, text, &self.session));
                to.piece(answer(&replies[0], line), true);
            }
            Step::List(filter) => to.piece(self.listed(&replies, &filter), true),
            Step::Kill(kill) => self.found(to, &replies, kill),
            Step::Killed { sessions, form, me } => {
                let others: usize = replies.iter().filter_map(|reply| integer(reply)).sum();
                self.killed(&to, sessions + others, form, me);
            }
        }
        true
    }

    fn asker(&self) -> Asker {
        Asker { session: self.id, link: self.present_link().client().id() }
    }

    fn listed(&self, replies: &[Bytes], filter: &Filter) -> Bytes {
        let (first, last) = (&replies[0], &replies[replies.len() - 1]);
        if is_error(first) {
            return first.clone();
        }
        // A filter that we cannot apply the upstream has applied, as far as it can.
        let reply = if filter.odd { first } else { last };
        let lines = body(reply).and_then(|text| merge(&self.shared, text, self.asker(), !filter.odd));
        let text = lines.map(|mut lines| {
            lines.retain(|line| filter.odd || filter.matches(line, self.id));
            written(&lines)
        });
        answer(reply, text)
    }

    /// The upstream has said whether the client may say it, and who is there.
    fn found(&mut self, to: ReplySlot, replies: &[Bytes], kill: Kill) {
        let Kill { form, filter, address } = kill;
        let nobody = form == Form::Address && replies[0].starts_with(b"-ERR No such client");
        let refused = |reply: &&Bytes| is_error(reply) && !nobody;
        if let Some(refusal) = replies.iter().find(refused) {
            return to.piece(refusal.clone(), true);
        }
        if filter.odd {
            return to.whole(&errors::line(errors::UNKNOWN_FILTER));
        }
        if form == Form::Address {
            return self.kill_address(to, &address, replies[0].clone());
        }
        let Victims { sessions, others } = match replies.get(1) {
            Some(list) => self.victims(list, &filter),
            None => self.victims_by_id(&filter),
        };
        let (sessions, me) = self.close(&sessions);
        if others.is_empty() {
            return self.killed(&to, sessions, form, me);
        }
        let ids: Vec<_> = others.iter().map(ToString::to_string).collect();
        let ask = |out: &mut Outgoing| {
            out.with(|tail| {
                ids.iter().for_each(|id| encode::command(tail, &[b"CLIENT", b"KILL", b"ID", id.as_bytes()]));
            });
        };
        self.ask_for(to, ids.len(), ask, Step::Killed { sessions, form, me });
    }

    fn kill_address(&mut self, to: ReplySlot, address: &[u8], refusal: Bytes) {
        let all = self.shared.clients.all();
        let sessions: Vec<_> =
            all.into_iter().filter(|session| session.ends.peer.as_bytes() == address).collect();
        let ours = |address: &str| self.shared.settings.upstream.ours.has_address(address);
        let is_ours = std::str::from_utf8(address).is_ok_and(ours);
        if sessions.is_empty() && is_ours {
            // No client, as the upstream has just said of nobody's address.
            return to.piece(refusal, true);
        }
        if sessions.is_empty() {
            let command: [&[u8]; 3] = [b"CLIENT", b"KILL", address];
            let write = |out: &mut Outgoing| out.with(|tail| encode::command(tail, &command));
            send_on(self.present_link(), self.now, write, Pending::Relay(to));
            return;
        }
        let (sessions, me) = self.close(&sessions);
        self.killed(&to, sessions, Form::Address, me);
    }

    fn victims_by_id(&self, filter: &Filter) -> Victims {
        let mut victims = Victims::default();
        for id in &filter.ids {
            match u64::try_from(*id).ok().and_then(|id| self.shared.clients.get(id)) {
                Some(session) if session.id == self.id && filter.skips_me == Some(true) => {}
                Some(session) => victims.sessions.push(session),
                None if self.shared.settings.upstream.ours.has_id(*id) => {}
                None => victims.others.push(*id),
            }
        }
        victims
    }

    fn victims(&self, list: &[u8], filter: &Filter) -> Victims {
        let mut victims = Victims::default();
        let lines = body(list).and_then(|text| merge(&self.shared, text, self.asker(), true));
        for line in lines.into_iter().flatten().filter(|line| filter.matches(line, self.id)) {
            let Some(id) = line.id() else { continue };
            match u64::try_from(id).ok().and_then(|id| self.shared.clients.get(id)) {
                Some(session) => victims.sessions.push(session),
                None => victims.others.push(id),
            }
        }
        victims
    }

    /// Closes these sessions; how many those were, and whether this one is among them, which is not closed yet.
    fn close(&self, sessions: &[Arc<Session>]) -> (usize, bool) {
        let me = sessions.iter().any(|session| session.id == self.id);
        let others = sessions.iter().filter(|session| session.id != self.id && session.kill()).count();
        self.shared.metrics.clients_killed.add((others + usize::from(me)) as u64);
        (others + usize::from(me), me)
    }

    fn killed(&mut self, to: &ReplySlot, count: usize, form: Form, me: bool) {
        match form {
            Form::Address => to.whole(b"+OK\r\n"),
            Form::Filters => to.whole(format!(":{count}\r\n").as_bytes()),
        }
        self.quit |= me;
    }
}

fn is_error(reply: &[u8]) -> bool {
    matches!(reply.first(), Some(b'-' | b'!'))
}

fn integer(reply: &[u8]) -> Option<usize> {
    std::str::from_utf8(reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?).ok()?.parse().ok()
}

/// The text of a bulk string, or of RESP3's verbatim string.
fn body(reply: &[u8]) -> Option<&[u8]> {
    let header = memchr::memchr(b'\n', reply)?;
    let text = reply[header + 1..].strip_suffix(b"\r\n")?;
    match reply[0] {
        b'$' => Some(text),
        b'=' => text.get(4..),
        _ => None,
    }
}

/// The reply with this text in the place of its own; as it is, if there is none.
fn answer(reply: &Bytes, text: Option<Vec<u8>>) -> Bytes {
    let Some(text) = text else { return reply.clone() };
    let mut out = BytesMut::new();
    let protocol = match reply[0] {
        b'=' => crate::resp::Protocol::Resp3,
        _ => crate::resp::Protocol::Resp2,
    };
    encode::verbatim(&mut out, protocol, b"txt", &text);
    out.freeze()
}
