//! Commands that nearside answers: who the session is, and what it is called.
//!
//! Invariants: each is executed when all earlier replies are in, and no request behind it is looked
//! at before it is done; but for `CLIENT REPLY`, which is the queue's to follow in the order of the replies.

use super::about;
use super::changing::Then;
use super::gate;
use super::hello::{is_name, login_of, number, wanted_replies};
use super::state::Session;
use crate::command::Local;
use crate::pending::{Change, Changed, Pending, send};
use crate::process::{Ident, errors};
use crate::request::Raw;
use crate::resp::request::Request;
use crate::resp::{Protocol, encode};

/// Changes nothing upstream, where replies are always on.
const REPLY_ON: &[u8] = b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$2\r\nON\r\n";

impl Session {
    pub(super) fn answer_here(&mut self, local: Local, request: &Request<'_>, raw: Raw<'_>) {
        match local {
            Local::Quit => {
                self.cx.queue.reply(b"+OK\r\n");
                self.quit = true;
            }
            Local::Http => self.turn_away(),
            Local::Reset => {
                self.drop_dedicated();
                self.become_ident(self.cx.outbound.router.default_key(Protocol::Resp2));
                self.cx.name.clear();
                self.publish();
                self.lock();
                self.cx.queue.end_off();
                self.cx.queue.reply(b"+RESET\r\n");
            }
            Local::ClientId => self.cx.queue.reply_with(|out| encode::integer(out, self.cx.client.id as i64)),
            Local::ClientInfo => self.ask_info(raw),
            Local::ClientList => self.ask_list(request, raw),
            Local::ClientKill => self.ask_kill(request),
            Local::ClientGetName => self.cx.queue.reply_with(|out| match self.cx.name.is_empty() {
                true => encode::null(out, self.ident_here().protocol),
                false => encode::bulk(out, &self.cx.name),
            }),
            Local::ClientSetName => match is_name(request.arg(2)) {
                true => {
                    self.cx.name = request.arg(2).to_vec();
                    self.publish();
                    self.cx.queue.reply(b"+OK\r\n");
                }
                false => self.cx.queue.reply(&errors::line(errors::BAD_NAME)),
            },
            // That the upstream knows it, and finds nothing wrong with the value, is its own to say.
            Local::ClientSetInfo => {
                let (attribute, value) = (request.arg(2).to_vec(), request.arg(3).to_vec());
                let change = Change::Library((*self.cx.client).clone(), attribute, value);
                self.cx.forward(raw, |to| Pending::Changed(to, Changed::by(change)));
            }
            Local::ClientReply => self.switch_replies(request, raw),
            Local::Select => match number(request.arg(1)) {
                Some(db) => {
                    let ident = Ident { db, ..self.cx.key.ident.clone() };
                    self.change(ident, Then::Ok);
                }
                // No server takes it; ours says why.
                None => self.cx.forward(raw, Pending::Relay),
            },
            Local::Auth => self.auth(request, raw),
            Local::Hello => self.hello(request),
            Local::Nearside => about::answer(&self.cx, &self.ident_here(), request),
        }
    }

    /// `CLIENT REPLY`. Whether the user may say it is for the upstream to tell; what the client does not want it is asked for
    /// all the same, and what becomes of that is then the queue's.
    fn switch_replies(&mut self, request: &Request<'_>, raw: Raw<'_>) {
        let cx = &self.cx;
        let Some(replies) = wanted_replies(request) else {
            return cx.forward_on(self.present_link(), raw, Pending::Relay);
        };
        let to = cx.slot(cx.queue.open_switch(replies));
        let _ = send(self.present_link(), cx.now, |out| out.copy(REPLY_ON), Pending::Relay(to));
    }

    fn auth(&mut self, request: &Request<'_>, raw: Raw<'_>) {
        match (&self.cx.process.settings.password, login_of(request)) {
            (Some(password), _) => match gate::auth(password, request) {
                Ok(()) => {
                    self.set_locked(false);
                    self.cx.queue.reply(b"+OK\r\n");
                }
                Err(text) => self.cx.queue.reply(&errors::line(text)),
            },
            (None, Some(login)) => self.log_in(login, self.cx.key.ident.protocol, Then::Ok),
            // Too many arguments: an error on any link.
            (None, None) => self.cx.forward(raw, Pending::Relay),
        }
    }

    /// A client that speaks TLS where there is none: no word of ours would be one to it.
    pub fn turn_away_tls(&mut self) {
        self.quit = true;
        self.cx.queue.cut();
        self.cx.process.metrics.clients_tls.inc();
        if let Some(untold) = self.cx.process.metrics.tls_told.now() {
            tracing::warn!(
                client = self.cx.client.id,
                untold,
                "closed: a client speaks TLS on an address without; let it connect by redis://, or listen on tls://"
            );
        }
    }

    /// A health check that means the admin port, or a browser that was made to speak to a Redis: nothing is said to it, and
    /// what stands behind is not looked at.
    fn turn_away(&mut self) {
        self.quit = true;
        // As from Redis, not even what is only just answered.
        self.cx.queue.cut();
        self.cx.process.metrics.clients_http.inc();
        if let Some(untold) = self.cx.process.metrics.http_told.now() {
            tracing::warn!(
                client = self.cx.client.id,
                untold,
                "closed: a client speaks HTTP; /livez, /readyz and /metrics are on the admin port"
            );
        }
    }
}
