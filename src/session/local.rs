//! Commands that nearside answers: who the session is, and what it is called.
//!
//! Invariants: each is executed when all earlier replies are in, and no request behind it is looked
//! at before it is done. A login is checked by the upstream each time (see [`login`](super::login)), and what the
//! upstream says is passed on; unless nearside asks for a password itself (see [`gate`]).

use std::borrow::Cow;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use memchr::memmem;

use super::asking;
use super::clients::{Who, upstream_id};
use super::core::{Core, Raw};
use super::errors;
use super::expect::{Change, Changed, Pending};
use super::gate;
use super::idents::Ident;
use super::login::{Answer, Asked, ask, user_of};
use super::peer::LinkHandler;
use super::queue::ReplySlot;
use super::state::Became;
use crate::command::{Local, Row};
use crate::resp::number::string2ll;
use crate::resp::request::Request;
use crate::resp::{Protocol, encode};
use crate::upstream::{Link, Login};

/// The session is about to be somebody else, once that one's link stands.
pub(super) struct Changing {
    link: Link<LinkHandler>,
    /// The upstream is asked first whether the login is right.
    asked: Option<Rc<Asked>>,
    ident: Ident,
    login: Option<Login>,
    to: ReplySlot,
    then: Then,
}

enum Then {
    Ok,
    /// Sends `HELLO` on the link, and takes this name.
    Hello(Option<Vec<u8>>),
}

pub(super) fn answer(core: &mut Core, local: Local, request: &Request<'_>, raw: Raw<'_>) {
    match local {
        Local::Quit => {
            if !core.is_silent() {
                core.queue.reply(b"+OK\r\n");
            }
            core.quit = true;
        }
        Local::Http => turn_away(core),
        Local::Reset => {
            core.drop_dedicated();
            core.become_ident(core.worker.default_ident(Protocol::Resp2), core.shared.settings.login.clone());
            core.name.clear();
            core.publish();
            core.lock();
            core.queue.reply(b"+RESET\r\n");
        }
        Local::ClientId => core.queue.reply_with(|out| encode::integer(out, core.id as i64)),
        Local::ClientInfo => asking::info(core, raw),
        Local::ClientList => asking::list(core, request, raw),
        Local::ClientKill => asking::kill(core, request),
        Local::ClientGetName => core.queue.reply_with(|out| match core.name.is_empty() {
            true => encode::null(out, core.ident.protocol),
            false => encode::bulk(out, &core.name),
        }),
        Local::ClientSetName => match is_name(request.arg(2)) {
            true => {
                core.name = request.arg(2).to_vec();
                core.publish();
                core.queue.reply(b"+OK\r\n");
            }
            false => core.queue.reply(&errors::line(errors::BAD_NAME)),
        },
        // That the upstream knows it, and finds nothing wrong with the value, is its own to say.
        Local::ClientSetInfo => {
            let (attribute, value) = (request.arg(2).to_vec(), request.arg(3).to_vec());
            let change = Change::Library((*core.session).clone(), attribute, value);
            core.forward(raw, |to| Pending::Changed(to, Changed::by(change)));
        }
        Local::Select => match number(request.arg(1)) {
            Some(db) => {
                let ident = Ident { db, ..core.ident.clone() };
                change(core, ident, Then::Ok);
            }
            // No server takes it; ours says why.
            None => core.forward(raw, Pending::Relay),
        },
        Local::Auth => match (core.password(), gate::login_of(request)) {
            (Some(password), _) => gate::auth(core, &password, request),
            (None, Some(login)) => log_in(core, login, core.ident.protocol, Then::Ok),
            // Too many arguments: an error on any link.
            (None, None) => core.forward(raw, Pending::Relay),
        },
        Local::Hello => hello(core, request),
        Local::Nearside => super::nearside::answer(core, request),
    }
}

/// A health check that means the admin port, or a browser that was made to speak to a Redis: nothing is said to it, and
/// what stands behind is not looked at.
fn turn_away(core: &mut Core) {
    core.quit = true;
    // As from Redis, not even what is only just answered.
    core.queue.cut();
    core.shared.metrics.clients_http.inc();
    if let Some(untold) = core.shared.metrics.http_told.now() {
        tracing::warn!(
            client = core.id,
            untold,
            "closed: a client speaks HTTP; /livez, /readyz and /metrics are on the admin port"
        );
    }
}

/// What a `HELLO` asks for.
pub(super) struct Hello {
    pub(super) protocol: Option<Protocol>,
    pub(super) login: Option<Login>,
    pub(super) name: Option<Vec<u8>>,
}

/// `HELLO [version [AUTH user password] [SETNAME name]]`, with the checks in the order of Redis'
/// `helloCommand`; what is wrong is an error's text.
pub(super) fn parse_hello(request: &Request<'_>) -> Result<Hello, Cow<'static, str>> {
    let protocol = match request.get(1).map(string2ll) {
        None => None,
        Some(Some(2)) => Some(Protocol::Resp2),
        Some(Some(3)) => Some(Protocol::Resp3),
        Some(Some(_)) => return Err(errors::NOPROTO.into()),
        Some(None) => return Err(errors::BAD_VERSION.into()),
    };
    let (mut login, mut name) = (None, None);
    let mut i = 2;
    while let Some(option) = request.get(i) {
        match (request.get(i + 1), request.get(i + 2)) {
            (Some(user), Some(password)) if option.eq_ignore_ascii_case(b"auth") => {
                login = Some(Login { user: Some(user.to_vec()), password: password.to_vec() });
                i += 3;
            }
            (Some(chosen), _) if option.eq_ignore_ascii_case(b"setname") => {
                if !is_name(chosen) {
                    return Err(errors::BAD_NAME.into());
                }
                name = Some(chosen.to_vec());
                i += 2;
            }
            _ => return Err(errors::hello_option(option).into()),
        }
    }
    Ok(Hello { protocol, login, name })
}

fn hello(core: &mut Core, request: &Request<'_>) {
    let refuse = |core: &Core, text: &str| core.queue.reply(&errors::line(text));
    let Hello { protocol, mut login, name } = match parse_hello(request) {
        Ok(hello) => hello,
        Err(text) => return refuse(core, &text),
    };
    let protocol = protocol.unwrap_or(core.ident.protocol);
    if let Some(password) = core.password()
        && let Err(text) = gate::hello(core, &password, login.take())
    {
        return refuse(core, text);
    }
    match login {
        Some(login) => log_in(core, login, protocol, Then::Hello(name)),
        None => {
            let ident = Ident { protocol, ..core.ident.clone() };
            change(core, ident, Then::Hello(name));
        }
    }
}

/// Becomes the user of `login`, if the upstream takes it.
fn log_in(core: &mut Core, login: Login, protocol: Protocol, then: Then) {
    let (user, new) = user_of(&core.shared, login.clone());
    let ident = Ident { db: core.ident.db, protocol, user };
    let (link, asked) = match core.worker.link_to_ask(&ident, &new) {
        Some(link) => {
            let asked = ask(&link, &login, &core.queue, core.now);
            (link, Some(asked))
        }
        None => (core.worker.fresh_link(&ident, &new), None),
    };
    let to = core.to(core.queue.open());
    core.changing = Some(Changing { link, asked, ident, login: new, to, then });
    // Taken up by the session's next turn.
    core.queue.wake();
}

/// Becomes another of the same user.
fn change(core: &mut Core, ident: Ident, then: Then) {
    let login = core.login.clone();
    let link = core.worker.candidate(&ident, &login);
    let to = core.to(core.queue.open());
    core.changing = Some(Changing { link, asked: None, ident, login, to, then });
    core.queue.wake();
}

impl Core {
    /// Lets others know as whom the session speaks.
    pub(super) fn publish(&self) {
        let own = || self.shared.settings.login.as_ref().and_then(|login| login.user.clone());
        let user = self.ident.user.clone().or_else(own).unwrap_or_else(|| b"default".to_vec());
        self.session.change(|who| {
            *who = Who {
                name: self.name.clone(),
                user,
                db: self.ident.db,
                protocol: self.ident.protocol,
                ..std::mem::take(who)
            }
        });
    }

    /// Is who the session has become on its own connection.
    pub(super) fn follow(&mut self, became: Became) {
        if let Some(name) = became.name.clone() {
            self.name = name;
            self.publish();
        }
        let mut ident = became.ident(&self.ident);
        let mut login = self.login.clone();
        if let Some(new) = became.login {
            (ident.user, login) = user_of(&self.shared, new);
        }
        if ident == self.ident && login == self.login {
            return;
        }
        let number = self.shared.idents.number(&ident);
        if login != self.login && !self.worker.has_link(number, &login) {
            // The upstream has just let it in.
            let link = self.worker.link_of_login(&ident, &login);
            self.worker.settle(&ident, &login, &link);
        }
        self.become_ident(ident, login);
    }

    /// Goes on with a change of identity. Says whether it came to an end.
    pub(super) fn poll_changing(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(changing) = &mut self.changing else { return false };
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
                    changing.link = self.worker.link_of_login(&changing.ident, &changing.login);
                }
                Some(Answer::Lost) => {
                    // Nobody has said that it is right: only a link that logs in now does.
                    changing.asked = None;
                    changing.link = self.worker.fresh_link(&changing.ident, &changing.login);
                }
            }
        }
        let Poll::Ready(ready) = changing.link.poll_ready(cx) else { return false };
        let Some(Changing { link, ident, login, to, then, .. }) = self.changing.take() else { return false };
        if let Err(loss) = ready {
            to.whole(&errors::refused(&self.shared.settings.upstream.address, &loss));
            return true;
        }
        self.worker.settle(&ident, &login, &link);
        self.become_ident(ident, login);
        match then {
            Then::Ok => to.whole(b"+OK\r\n"),
            Then::Hello(name) => {
                self.name = name.unwrap_or_else(|| std::mem::take(&mut self.name));
                self.publish();
                let version = version(self.ident.protocol);
                let pending = Pending::Changed(to, Changed::by(Change::HelloId(self.id, None)));
                self.send(|out| out.with(|tail| encode::command(tail, &[b"HELLO", version])), pending);
            }
        }
        true
    }
}

/// A `CLIENT UNBLOCK` with the id that the upstream has for the session that is meant; `None` of any other
/// request, and if the id is none of ours.
pub(super) fn unblocking(core: &Core, row: Option<&Row>, request: &Request<'_>) -> Option<Bytes> {
    row.filter(|row| row.name == "client|unblock")?;
    let id = string2ll(request.get(2)?).and_then(|id| u64::try_from(id).ok())?;
    let id = upstream_id(&core.shared, id)?.to_string();
    let args: Vec<_> =
        (0..request.len()).map(|i| if i == 2 { id.as_bytes() } else { request.arg(i) }).collect();
    let mut out = BytesMut::new();
    encode::command(&mut out, &args);
    Some(out.freeze())
}

/// As `HELLO` takes it.
pub(super) fn version(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Resp2 => b"2",
        Protocol::Resp3 => b"3",
    }
}

/// A database number as Redis takes it.
pub(super) fn number(arg: &[u8]) -> Option<u32> {
    let number = string2ll(arg)?;
    u32::try_from(number).ok().filter(|number| *number <= i32::MAX as u32)
}

/// As Redis' `validateClientName`.
fn is_name(name: &[u8]) -> bool {
    name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

/// A reply with another number in the place of the one behind `field`.
pub(super) fn with_number(reply: BytesMut, field: &[u8], change: impl FnOnce(i64) -> i64) -> BytesMut {
    let Some(start) = memmem::find(&reply, field).map(|found| found + field.len()) else { return reply };
    let Some(len) = memchr::memchr(b'\r', &reply[start..]) else { return reply };
    let Some(number) = string2ll(&reply[start..start + len]) else { return reply };
    let mut changed = BytesMut::with_capacity(reply.len() + 20);
    changed.extend_from_slice(&reply[..start]);
    changed.extend_from_slice(change(number).to_string().as_bytes());
    changed.extend_from_slice(&reply[start + len..]);
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_id_is_changed() {
        let reply = BytesMut::from(&b"%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:77\r\n"[..]);
        let changed = with_number(reply, b"$2\r\nid\r\n:", |id| id - 72);
        assert_eq!(&changed[..], b"%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:5\r\n");
    }

    #[test]
    fn database_numbers() {
        assert_eq!(number(b"15"), Some(15));
        for wrong in [&b"-1"[..], b"01", b"+1", b"x", b"", b"4294967296"] {
            assert_eq!(number(wrong), None);
        }
    }
}
