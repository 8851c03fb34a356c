//! `auth = "password"`: nearside itself asks its clients for a password, as Redis does with `requirepass`.
//!
//! Invariants:
//! - A client that has not given it is locked: nothing that it says goes upstream, and it is refused in the words
//!   and in the order of Redis' `processCommand`. `AUTH`, `HELLO`, `QUIT` and `RESET` are allowed,
//!   and HTTP ends the connection.
//! - Whoever has given it acts with the rights of nearside's own login; there is one user, `default`. No `AUTH` of a
//!   client reaches the upstream, on a connection of its own neither.

use std::fmt;
use std::hint::black_box;

use bytes::BytesMut;

use super::core::{Core, Raw};
use super::errors;
use super::local::{Hello, parse_hello, version};
use crate::command::{Local, Row};
use crate::resp::encode;
use crate::resp::request::Request;
use crate::upstream::Login;

/// What clients have to give.
#[derive(Clone)]
pub struct Password(Box<[u8]>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Password {
    /// Precondition: it is not empty.
    pub fn new(password: &[u8]) -> Self {
        Self(password.into())
    }

    /// Compares in a time that depends on the length of what was given and on nothing else.
    fn is(&self, given: &[u8]) -> bool {
        let mut different = usize::from(given.len() != self.0.len());
        for (i, byte) in given.iter().enumerate() {
            let known = self.0.get(i % self.0.len().max(1)).copied().unwrap_or_default();
            different |= usize::from(black_box(known ^ byte));
        }
        black_box(different) == 0
    }

    fn lets_in(&self, login: &Login) -> bool {
        let named = login.user.as_deref().is_none_or(|user| user == b"default");
        self.is(&login.password) && named
    }
}

/// Whether a locked client may say this.
pub(super) fn allows(row: &Row) -> bool {
    matches!(&*row.name, "auth" | "hello" | "quit" | "reset" | "post" | "host:")
}

/// Refuses what a locked client has said.
pub(super) fn refuse(core: &mut Core, row: Option<&Row>, request: &Request<'_>) {
    let text = match row {
        None => errors::unknown_command(request),
        Some(row) if row.is_container() && request.len() > 1 => errors::unknown_subcommand(request),
        Some(row) if !row.takes(request.len()) => errors::wrong_arity(&row.name),
        Some(_) => errors::NOAUTH.into(),
    };
    core.queue.reply(&errors::line(&text));
}

/// `AUTH`: says what became of it.
pub(super) fn auth(core: &mut Core, password: &Password, request: &Request<'_>) {
    let said = match login_of(request) {
        Some(login) if password.lets_in(&login) => {
            core.unlock();
            b"+OK\r\n".to_vec()
        }
        Some(_) => errors::line(errors::WRONGPASS),
        None => errors::line(errors::SYNTAX),
    };
    core.queue.reply(&said);
}

/// The login that an `AUTH` of a valid length gives.
pub(super) fn login_of(request: &Request<'_>) -> Option<Login> {
    match request.len() {
        2 => Some(Login { user: None, password: request.arg(1).to_vec() }),
        3 => Some(Login { user: Some(request.arg(1).to_vec()), password: request.arg(2).to_vec() }),
        _ => None,
    }
}

/// Lets a `HELLO` pass whose login, if it has one, is right; or says what is wrong.
pub(super) fn hello(core: &mut Core, password: &Password, login: Option<Login>) -> Result<(), &'static str> {
    match login {
        Some(login) if password.lets_in(&login) => {
            core.unlock();
            Ok(())
        }
        Some(_) => Err(errors::WRONGPASS),
        None if core.is_locked() => Err(errors::NOAUTH_HELLO),
        None => Ok(()),
    }
}

/// In what state the connection of its own is on which a session says `AUTH` or `HELLO`.
pub(super) enum Within {
    Nothing,
    Transaction,
    /// A RESP2 subscriber, who may say neither.
    Subscription,
    /// The client wants no replies.
    Silence,
}

/// What goes upstream for an `AUTH` or a `HELLO` on a session's own connection: without the login if that is
/// for nearside, which has looked at it. `None` if it was answered.
pub(super) fn on_dedicated<'a>(
    core: &mut Core,
    local: Local,
    within: &Within,
    request: &Request<'_>,
    raw: Raw<'a>,
) -> Option<Raw<'a>> {
    let Some(password) = core.password() else { return Some(raw) };
    let is_auth = local == Local::Auth;
    if matches!(within, Within::Subscription) {
        // The server refuses it whatever stands behind it.
        return Some(if is_auth { command(&[b"AUTH", b""]) } else { command(&[b"HELLO"]) });
    }
    let parsed = match is_auth {
        true => login_of(request)
            .map(|login| Hello { protocol: None, login: Some(login), name: None })
            .ok_or(errors::SYNTAX.into()),
        false => parse_hello(request),
    };
    let in_transaction = matches!(within, Within::Transaction);
    let checked = parsed.and_then(|hello| match &hello.login {
        Some(_) if in_transaction => Err(errors::AUTH_IN_MULTI.into()),
        Some(login) if !password.lets_in(login) => Err(errors::WRONGPASS.into()),
        _ => Ok(hello),
    });
    match (within, checked) {
        (Within::Silence, Err(_)) => Some(command(&[b"PING"])),
        (Within::Silence, Ok(_)) if is_auth => Some(command(&[b"PING"])),
        (_, Err(text)) => {
            core.queue.reply(&errors::line(&text));
            None
        }
        (_, Ok(_)) if is_auth => {
            core.queue.reply(b"+OK\r\n");
            None
        }
        (_, Ok(hello)) => {
            let mut args = vec![&b"HELLO"[..]];
            args.extend(hello.protocol.map(version));
            if let Some(name) = &hello.name {
                args.extend([&b"SETNAME"[..], name]);
            }
            Some(command(&args))
        }
    }
}

fn command(args: &[&[u8]]) -> Raw<'static> {
    let mut out = BytesMut::new();
    encode::command(&mut out, args);
    Raw::Own(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_itself_is_right() {
        let password = Password::new(b"sesame");
        assert!(password.is(b"sesame"));
        for wrong in [&b""[..], b"s", b"sesam", b"sesamf", b"sesamesesame", b"Sesame", b"sesame\0"] {
            assert!(!password.is(wrong), "{}", wrong.escape_ascii());
        }
        let login = |user: Option<&[u8]>| Login { user: user.map(Into::into), password: b"sesame".to_vec() };
        assert!(password.lets_in(&login(None)) && password.lets_in(&login(Some(b"default"))));
        assert!(!password.lets_in(&login(Some(b"DEFAULT"))) && !password.lets_in(&login(Some(b""))));
        assert_eq!(format!("{password:?}"), "***");
    }
}
