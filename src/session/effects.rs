//! What a request leaves on a connection of its session's own, if the server accepts it.

use super::hello::{login_of, number, parse_hello};
use crate::command::{Local, Row};
use crate::pending::{
    Became, DEBUG, Effect, IMPORT, MAINTENANCE, NO_EVICT, NO_TOUCH, OTHER, READONLY, REPLICA, TRACKING, WATCH,
};
use crate::resp::request::Request;

/// What a request leaves behind if the server accepts it. It is the `seq`th on its connection.
pub fn effect_of(row: Option<&Row>, request: &Request<'_>, seq: u64) -> Option<Effect> {
    // Unknown, it may be anything under another name.
    let Some(row) = row else { return Some(Effect::Set(OTHER)) };
    let word = |word: &[u8]| request.get(2).is_some_and(|arg| arg.eq_ignore_ascii_case(word));
    let switch = |flag| if word(b"off") { Effect::Clear(flag) } else { Effect::Set(flag) };
    Some(match &*row.name {
        "watch" => Effect::Set(WATCH),
        "unwatch" | "discard" => Effect::Clear(WATCH),
        "client|tracking" => switch(TRACKING),
        "client|no-evict" => switch(NO_EVICT),
        "client|no-touch" => switch(NO_TOUCH),
        "client|import-source" => switch(IMPORT),
        "client|maint_notifications" => switch(MAINTENANCE),
        "script|debug" if word(b"no") => Effect::Clear(DEBUG),
        "script|debug" => Effect::Set(DEBUG),
        "readonly" => Effect::Set(READONLY),
        "readwrite" => Effect::Clear(READONLY),
        "replconf" => Effect::Set(REPLICA),
        "asking" | "client|caching" => Effect::Once(seq),
        // What a client could do asks nothing of the server, so the session goes on as one that cannot.
        "client|capa" => Effect::Wear,
        _ => Effect::Set(OTHER),
    })
}

/// Likewise of a command that nearside answers as a rule; `own_password` if it asks for one itself.
pub fn effect_of_local(local: Local, request: &Request<'_>, own_password: bool) -> Option<Effect> {
    let became = match local {
        Local::Select => Became { db: Some(number(request.get(1)?)?), ..Became::default() },
        Local::Auth if own_password => return None,
        Local::Auth => Became { login: login_of(request), ..Became::default() },
        Local::Hello => {
            let hello = parse_hello(request).ok()?;
            let login = hello.login.filter(|_| !own_password);
            Became { db: None, protocol: hello.protocol, login, name: hello.name }
        }
        Local::ClientSetName => Became { name: Some(request.get(2)?.to_vec()), ..Became::default() },
        Local::ClientSetInfo => return Some(Effect::Wear),
        _ => return None,
    };
    Some(Effect::Become(Box::new(became)))
}
