//! A session that asks about clients: what it asks for, and what it does with the answers.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::asking::{Asking, Form, Kill, Step, Victims, of_nobody};
use super::command::Command;
use super::listing::{Asker, Filter, merge, own_line, written};
use super::redirect::Redirecting;
use super::state::Session;
use crate::command::Table;
use crate::io::Outgoing;
use crate::pending::{Answers, Pending, send};
use crate::process::{Client, errors};
use crate::reply::ReplySlot;
use crate::request::Raw;
use crate::resp::encode;
use crate::resp::framer::{Frame, RequestFramer};
use crate::resp::request::Request;

const LIST: [&[u8]; 2] = [b"CLIENT", b"LIST"];

impl Session {
    /// Asks the upstream for `wanted` replies, which `step` is then done with.
    fn ask(&mut self, wanted: usize, write: impl FnOnce(&mut Outgoing), step: Step) {
        let to = self.cx.open();
        self.ask_for(to, wanted, write, step);
    }

    fn ask_for(&mut self, to: ReplySlot, wanted: usize, write: impl FnOnce(&mut Outgoing), step: Step) {
        let answers = Answers::new(wanted, &self.cx.queue);
        send(self.present_link(), self.cx.now, write, Pending::Answers(answers.clone()));
        self.asking = Some(Asking::Upstream(to, answers, step));
    }

    /// Goes on with a command about clients. Says whether anything was done.
    pub(super) fn poll_asking(&mut self, table: &Table) -> bool {
        let (to, answers, step) = match self.asking.take_if(|asking| asking.is_answered()) {
            None => return false,
            Some(Asking::Redirect(redirecting)) => {
                self.redirect(redirecting, table);
                return true;
            }
            Some(Asking::Upstream(to, answers, step)) => (to, answers, step),
        };
        let replies = answers.whole();
        match step {
            Step::Info => {
                let line =
                    body(&replies[0]).and_then(|text| own_line(&self.cx.process, text, &self.cx.client));
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
        {
            let link = self.present_link().client();
            Asker { session: self.cx.client.id, link: link.upstream_id(), node: link.node.id }
        }
    }

    fn listed(&self, replies: &[Bytes], filter: &Filter) -> Bytes {
        let (first, last) = (&replies[0], &replies[replies.len() - 1]);
        if is_error(first) {
            return first.clone();
        }
        // A filter that we cannot apply the upstream has applied, as far as it can.
        let reply = if filter.odd { first } else { last };
        let lines = body(reply).and_then(|text| merge(&self.cx.process, text, self.asker(), !filter.odd));
        let text = lines.map(|mut lines| {
            lines.retain(|line| filter.odd || filter.matches(line, self.cx.client.id));
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
        let all = self.cx.process.clients.all();
        let sessions: Vec<_> =
            all.into_iter().filter(|session| session.ends.peer.as_bytes() == address).collect();
        let ours = |address: &str| self.cx.process.settings.upstream.ours.has_address(address);
        let is_ours = std::str::from_utf8(address).is_ok_and(ours);
        if sessions.is_empty() && is_ours {
            // No client, as the upstream has just said of nobody's address.
            return to.piece(refusal, true);
        }
        if sessions.is_empty() {
            let command: [&[u8]; 3] = [b"CLIENT", b"KILL", address];
            let write = |out: &mut Outgoing| out.with(|tail| encode::command(tail, &command));
            send(self.present_link(), self.cx.now, write, Pending::Relay(to));
            return;
        }
        let (sessions, me) = self.close(&sessions);
        self.killed(&to, sessions, Form::Address, me);
    }

    fn victims_by_id(&self, filter: &Filter) -> Victims {
        let mut victims = Victims::default();
        for id in &filter.ids {
            match u64::try_from(*id).ok().and_then(|id| self.cx.process.clients.get(id)) {
                Some(session) if session.id == self.cx.client.id && filter.skips_me == Some(true) => {}
                Some(session) => victims.sessions.push(session),
                None if self.cx.process.settings.upstream.ours.has_id(*id) => {}
                None => victims.others.push(*id),
            }
        }
        victims
    }

    fn victims(&self, list: &[u8], filter: &Filter) -> Victims {
        let mut victims = Victims::default();
        let lines = body(list).and_then(|text| merge(&self.cx.process, text, self.asker(), true));
        for line in lines.into_iter().flatten().filter(|line| filter.matches(line, self.cx.client.id)) {
            let Some(id) = line.id() else { continue };
            match u64::try_from(id).ok().and_then(|id| self.cx.process.clients.get(id)) {
                Some(session) => victims.sessions.push(session),
                None => victims.others.push(id),
            }
        }
        victims
    }

    /// Closes these sessions; how many those were, and whether this one is among them, which is not closed yet.
    fn close(&self, sessions: &[Arc<Client>]) -> (usize, bool) {
        let me = sessions.iter().any(|session| session.id == self.cx.client.id);
        let others =
            sessions.iter().filter(|session| session.id != self.cx.client.id && session.kill()).count();
        self.cx.process.metrics.clients_killed.add((others + usize::from(me)) as u64);
        (others + usize::from(me), me)
    }

    fn killed(&mut self, to: &ReplySlot, count: usize, form: Form, me: bool) {
        match form {
            Form::Address => to.whole(b"+OK\r\n"),
            Form::Filters => to.whole(format!(":{count}\r\n").as_bytes()),
        }
        self.quit |= me;
    }

    pub(super) fn ask_info(&mut self, raw: Raw<'_>) {
        self.ask(1, |out| raw.write(out), Step::Info);
    }

    pub(super) fn ask_list(&mut self, request: &Request<'_>, raw: Raw<'_>) {
        let filter = Filter::parse(request);
        if request.len() == 2 {
            return self.ask(1, |out| raw.write(out), Step::List(filter));
        }
        // The filter is for the upstream to check, and not to apply: it does not know the sessions.
        let ask = |out: &mut Outgoing| {
            raw.write(out);
            out.with(|tail| encode::command(tail, &LIST));
        };
        self.ask(2, ask, Step::List(filter));
    }

    pub(super) fn ask_kill(&mut self, request: &Request<'_>) {
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
        self.ask(1 + usize::from(lists), ask, Step::Kill(Kill { form, filter, address }));
    }

    /// Carries a `CLIENT TRACKING` out whose redirection is known.
    fn redirect(&mut self, redirecting: Redirecting, table: &Table) {
        let (bytes, (id, target), lead) = redirecting.into_parts();
        let mut framer = RequestFramer::new(self.cx.process.settings.limits);
        let Ok(Frame::Request(_)) = framer.next(&bytes) else { return };
        let request = framer.request(&bytes);
        let Some(row) = table.lookup(&request) else { return };
        self.cx.client.change(|who| who.redirects = Some((id, target)));
        let command = Command { row: Some(row), kind: row.kind(&request), request: &request };
        self.on_dedicated(command, Raw::Own(bytes.clone()));
        self.lead(lead);
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
