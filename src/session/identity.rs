//! As whom a session speaks: logins, databases, `HELLO`, and what it has become on its own connection.
//!
//! Invariants: a login is checked by the upstream each time, and what the upstream says is passed on; unless nearside asks
//! for a password itself (see [`gate`](super::gate)). No request behind it is looked at before it is done.

use std::task::{Context as Task, Poll};

use bytes::Bytes;

use super::changing::{Changing, Then, ask, user_of};
use super::gate;
use super::hello::{Hello, parse_hello, version};
use super::state::{Mode, Session};
use crate::pending::{Answer, Became, Change, Changed, Pending, with_id};
use crate::process::{Ident, errors};
use crate::resp::request::Request;
use crate::resp::{Protocol, encode};
use crate::router::LinkKey;
use crate::upstream::{ConnectError, Login, Loss};

impl Session {
    /// From now on the session is this one.
    pub(super) fn become_ident(&mut self, key: LinkKey) {
        self.cx.link = self.cx.outbound.router.link(&key);
        self.cx.ident = self.cx.process.idents.number(&key.ident);
        self.cx.key = key;
        self.publish();
    }

    pub(super) fn hello(&mut self, request: &Request<'_>) {
        let refuse = |session: &Self, text: &str| session.cx.queue.reply(&errors::line(text));
        let Hello { protocol, mut login, name } = match parse_hello(request) {
            Ok(hello) => hello,
            Err(text) => return refuse(self, &text),
        };
        let protocol = protocol.unwrap_or(self.cx.key.ident.protocol);
        if let Some(password) = &self.cx.process.settings.password {
            match gate::hello(password, login.take().as_ref(), self.locked) {
                Ok(given) => self.set_locked(self.locked && !given),
                Err(text) => return refuse(self, text),
            }
        }
        match login {
            Some(login) => self.log_in(login, protocol, Then::Hello(name)),
            None => {
                let ident = Ident { protocol, ..self.cx.key.ident.clone() };
                self.change(ident, Then::Hello(name));
            }
        }
    }

    /// Becomes the user of `login`, if the upstream takes it.
    pub(super) fn log_in(&mut self, login: Login, protocol: Protocol, then: Then) {
        let cx = &self.cx;
        let (user, new) = user_of(&cx.process, login.clone());
        let ident = Ident { db: cx.key.ident.db, protocol, user };
        let key = LinkKey { node: cx.key.node.clone(), ident, login: new };
        let (link, asked) = match cx.outbound.router.link_to_ask(&key) {
            Some(link) => {
                let asked = ask(&link, &login, &cx.queue, cx.now);
                (link, Some(asked))
            }
            None => (cx.outbound.router.fresh_link(&key), None),
        };
        let to = cx.open();
        self.changing = Some(Changing { link, asked, key, to, then });
        // Taken up by the session's next turn.
        self.cx.queue.wake();
    }

    /// Becomes another of the same user.
    pub(super) fn change(&mut self, ident: Ident, then: Then) {
        let key = LinkKey { ident, ..self.cx.key.clone() };
        let link = self.cx.outbound.router.candidate(&key);
        let to = self.cx.open();
        self.changing = Some(Changing { link, asked: None, key, to, then });
        self.cx.queue.wake();
    }

    /// As whom the session speaks where it is now: on its own connection, whom it has become there.
    pub(super) fn ident_here(&self) -> Ident {
        let Mode::Dedicated(dedicated) = &self.mode else { return self.cx.key.ident.clone() };
        let became = dedicated.became();
        let ident = became.ident(&self.cx.key.ident);
        match became.login {
            Some(login) => Ident { user: user_of(&self.cx.process, login).0, ..ident },
            None => ident,
        }
    }

    /// Is who the session has become on its own connection.
    pub(super) fn follow(&mut self, became: Became) {
        if let Some(name) = became.name.clone() {
            self.cx.name = name;
            self.publish();
        }
        let mut ident = became.ident(&self.cx.key.ident);
        let mut login = self.cx.key.login.clone();
        if let Some(new) = became.login {
            (ident.user, login) = user_of(&self.cx.process, new);
        }
        let key = LinkKey { node: self.cx.key.node.clone(), ident, login };
        if key.is(&self.cx.key) {
            return;
        }
        let (router, ident) = (&self.cx.outbound.router, self.cx.process.idents.number(&key.ident));
        if key.login != self.cx.key.login && !router.has_link(ident, &key) {
            // The upstream has just let it in.
            let link = router.link_of_login(&key);
            router.settle(&key, &link);
        }
        self.become_ident(key);
    }

    /// While the upstream is away, what it said last to a `HELLO`: a client that connects now is nearside's own user all the same,
    /// and what nearside can do for it needs no upstream.
    fn remembered_hello(&self, key: &LinkKey, loss: &Loss) -> Option<Bytes> {
        let process = &self.cx.process;
        let helps = process.writes_back() || process.settings.stale_if_error.get();
        let is_away = matches!(loss.cause, ConnectError::Io(_));
        if !helps || !is_away || key.ident.user.is_some() {
            return None;
        }
        process.hello_said(key.ident.protocol).map(|reply| with_id(reply, self.cx.client.id))
    }

    /// Goes on with a change of identity. Says whether it came to an end.
    pub(super) fn poll_changing(&mut self, task: &mut Task<'_>) -> bool {
        let Some(changing) = &mut self.changing else { return false };
        let router = &self.cx.outbound.router;
        if let Some(asked) = &changing.asked {
            match asked.take() {
                None => return false,
                Some(Answer::Refused(said)) => {
                    changing.to.whole(&said);
                    self.changing = None;
                    return true;
                }
                Some(Answer::Accepted) => {
                    changing.asked = None;
                    changing.link = router.link_of_login(&changing.key);
                }
                Some(Answer::Lost) => {
                    // Nobody has said that it is right: only a link that logs in now does.
                    changing.asked = None;
                    changing.link = router.fresh_link(&changing.key);
                }
            }
        }
        let Poll::Ready(ready) = changing.link.poll_ready(task) else { return false };
        let Some(Changing { link, key, to, then, .. }) = self.changing.take() else { return false };
        if let Err(loss) = ready {
            if let Then::Hello(name) = then
                && let Some(reply) = self.remembered_hello(&key, &loss)
            {
                self.cx.name = name.unwrap_or_else(|| std::mem::take(&mut self.cx.name));
                self.become_ident(key);
                to.whole(&reply);
                return true;
            }
            to.whole(&errors::refused(&key.node.upstream.address, &loss));
            return true;
        }
        self.cx.outbound.router.settle(&key, &link);
        self.become_ident(key);
        match then {
            Then::Ok => to.whole(b"+OK\r\n"),
            Then::Hello(name) => {
                self.cx.name = name.unwrap_or_else(|| std::mem::take(&mut self.cx.name));
                self.publish();
                let version = version(self.cx.key.ident.protocol);
                let pending = Pending::Changed(to, Changed::by(Change::HelloId(self.cx.client.id, None)));
                self.cx.send(|out| out.with(|tail| encode::command(tail, &[b"HELLO", version])), pending);
            }
        }
        true
    }
}
