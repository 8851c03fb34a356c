//! `auth = "password"`: nearside itself asks its clients for a password, as Redis does with `requirepass`.
//!
//! Invariants:
//! - A client that has not given it is locked: nothing that it says goes upstream, and it is refused in the words
//!   and in the order of Redis' `processCommand`. `AUTH`, `HELLO`, `QUIT` and `RESET` are allowed,
//!   and HTTP ends the connection.
//! - Whoever has given it acts with the rights of nearside's own login; there is one user, `default`. No `AUTH` of a
//!   client reaches the upstream, on a connection of its own neither.

use bytes::BytesMut;

use super::hello::{Hello, login_of, parse_hello, version};
use super::phase::Phase;
use crate::command::{Local, Row};
use crate::process::{Password, errors};
use crate::request::{Context, Raw};
use crate::resp::encode;
use crate::resp::request::Request;
use crate::upstream::Login;

/// Whether a locked client may say this.
pub fn allows(row: &Row) -> bool {
    matches!(&*row.name, "auth" | "hello" | "quit" | "reset" | "post" | "host:")
}

/// What a locked client is told that says anything else.
pub fn refusal(row: Option<&Row>, request: &Request<'_>) -> String {
    match row {
        None => errors::unknown_command(request),
        Some(row) if row.is_container() && request.len() > 1 => errors::unknown_subcommand(request),
        Some(row) if !row.takes(request.len()) => errors::wrong_arity(&row.name),
        Some(_) => errors::NOAUTH.into(),
    }
}

/// `AUTH`: whether it is right; if not, what is wrong.
pub fn auth(password: &Password, request: &Request<'_>) -> Result<(), &'static str> {
    match login_of(request) {
        Some(login) if password.lets_in(&login) => Ok(()),
        Some(_) => Err(errors::WRONGPASS),
        None => Err(errors::SYNTAX),
    }
}

/// Lets a `HELLO` pass whose login, if it has one, is right; says whether it had one, or what is wrong.
pub fn hello(password: &Password, login: Option<&Login>, locked: bool) -> Result<bool, &'static str> {
    match login {
        Some(login) if password.lets_in(login) => Ok(true),
        Some(_) => Err(errors::WRONGPASS),
        None if locked => Err(errors::NOAUTH_HELLO),
        None => Ok(false),
    }
}

/// What goes upstream for an `AUTH` or a `HELLO` on a session's own connection in this phase: without the login if that is
/// for nearside, which has looked at it. `None` if it was answered.
pub fn on_dedicated<'a>(
    cx: &Context,
    local: Local,
    phase: Phase,
    request: &Request<'_>,
    raw: Raw<'a>,
) -> Option<Raw<'a>> {
    let Some(password) = &cx.process.settings.password else { return Some(raw) };
    let is_auth = local == Local::Auth;
    if phase == Phase::Subscriber {
        // The server refuses it whatever stands behind it.
        return Some(if is_auth { command(&[b"AUTH", b""]) } else { command(&[b"HELLO"]) });
    }
    let parsed = match is_auth {
        true => login_of(request)
            .map(|login| Hello { protocol: None, login: Some(login), name: None })
            .ok_or(errors::SYNTAX.into()),
        false => parse_hello(request),
    };
    let checked = parsed.and_then(|hello| match &hello.login {
        Some(_) if phase == Phase::Transaction => Err(errors::AUTH_IN_MULTI.into()),
        Some(login) if !password.lets_in(login) => Err(errors::WRONGPASS.into()),
        _ => Ok(hello),
    });
    match checked {
        Err(text) => {
            cx.queue.reply(&errors::line(&text));
            None
        }
        Ok(_) if is_auth => {
            cx.queue.reply(b"+OK\r\n");
            None
        }
        Ok(hello) => {
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
