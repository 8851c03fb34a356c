//! What a session leaves on a connection of its own, as the server's replies tell.
//!
//! Invariants: state counts from when the request that may leave it is sent, and for good only if the server
//! has accepted that. What the server refuses leaves nothing; what it takes away again is gone. So a session stays on
//! its own connection just as long as something is there.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::local::{number, parse_hello};
use super::pushes::Pushes;
use super::{gate, idents::Ident};
use crate::command::{Local, Row};
use crate::resp::Protocol;
use crate::resp::request::Request;
use crate::resp::scanner::{Kind, ReplyScanner, Scan};
use crate::upstream::{At, Login};

/// What may stand on a connection, one bit each.
pub(super) type Flags = u16;

pub(super) const WATCH: Flags = 1;
const TRACKING: Flags = 1 << 1;
const NO_EVICT: Flags = 1 << 2;
const NO_TOUCH: Flags = 1 << 3;
const IMPORT: Flags = 1 << 4;
const MAINTENANCE: Flags = 1 << 5;
const READONLY: Flags = 1 << 6;
pub(super) const DEBUG: Flags = 1 << 7;
const REPLICA: Flags = 1 << 8;
/// What is not followed here: it stays until the session ends or is reset.
const OTHER: Flags = 1 << 9;

/// The longest element of a transaction's reply that is looked into, in bytes.
const HELD: usize = 64 << 10;

/// Who the session has become there.
#[derive(Clone, Default)]
pub(super) struct Became {
    pub(super) db: Option<u32>,
    pub(super) protocol: Option<Protocol>,
    pub(super) login: Option<Login>,
    pub(super) name: Option<Vec<u8>>,
}

/// What an accepted request does to the state.
#[derive(Clone)]
pub(super) enum Effect {
    Set(Flags),
    Clear(Flags),
    /// Holds for the request behind the one of this number.
    Once(u64),
    /// Binds nobody, but the connection is not the next session's.
    Wear,
    Become(Box<Became>),
    /// In a transaction, a subscription: its reply is a confirmation.
    Confirm,
}

impl Effect {
    /// What a request leaves behind if the server accepts it. It is the `seq`th on its connection.
    pub(super) fn of(row: Option<&Row>, request: &Request<'_>, seq: u64) -> Option<Self> {
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
    pub(super) fn of_local(local: Local, request: &Request<'_>, own_password: bool) -> Option<Self> {
        let became = match local {
            Local::Select => Became { db: Some(number(request.get(1)?)?), ..Became::default() },
            Local::Auth if own_password => return None,
            Local::Auth => Became { login: gate::login_of(request), ..Became::default() },
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
}

/// See the [module](self).
#[derive(Default)]
pub(super) struct State {
    flags: Cell<Flags>,
    /// Requests that may leave something and are not answered, and what.
    open: Cell<u32>,
    asked: Cell<Flags>,
    /// Requests sent so far, and which of them holds for the next.
    sent: Cell<u64>,
    once: Cell<u64>,
    /// Not fit for the next session, though nothing may be left.
    worn: Cell<bool>,
    became: RefCell<Became>,
}

impl State {
    /// Whether the connection holds any, or may.
    pub(super) fn holds(&self) -> bool {
        let once = self.once.get();
        self.flags.get() != 0 || self.open.get() > 0 || once > 0 && once == self.sent.get()
    }

    pub(super) fn may_have(&self, flag: Flags) -> bool {
        (self.flags.get() | self.asked.get()) & flag != 0
    }

    /// Counts a request; gives its number.
    pub(super) fn count(&self) -> u64 {
        self.sent.set(self.sent.get() + 1);
        self.sent.get()
    }

    /// Whether it was never other than as it was made, but for the database.
    pub(super) fn is_clean(&self) -> bool {
        !self.worn.get()
    }

    pub(super) fn is_named(&self) -> bool {
        self.became.borrow().name.is_some()
    }

    pub(super) fn became(&self) -> Became {
        self.became.borrow().clone()
    }

    /// Nobody says whether the server has accepted it: what it would set counts, what it would take away stays.
    pub(super) fn assume(&self, effect: &Effect, pushes: &Pushes) {
        match effect {
            Effect::Clear(_) | Effect::Once(_) | Effect::Confirm => {}
            Effect::Become(_) => {
                self.apply(effect, pushes);
                self.apply(&Effect::Set(OTHER), pushes);
            }
            Effect::Set(_) | Effect::Wear => self.apply(effect, pushes),
        }
    }

    fn apply(&self, effect: &Effect, pushes: &Pushes) {
        match effect {
            Effect::Set(flag) => {
                self.flags.set(self.flags.get() | flag);
                self.worn.set(self.worn.get() || *flag != WATCH);
            }
            Effect::Clear(flag) => self.flags.set(self.flags.get() & !flag),
            Effect::Once(seq) => self.once.set(*seq),
            Effect::Wear => self.worn.set(true),
            Effect::Become(became) => {
                let Became { db, protocol, login, name } = &**became;
                let more_than_db = protocol.is_some() || login.is_some() || name.is_some();
                self.worn.set(self.worn.get() || more_than_db);
                protocol.iter().for_each(|protocol| pushes.speak(*protocol));
                let mut known = self.became.borrow_mut();
                known.db = db.or(known.db);
                known.protocol = protocol.or(known.protocol);
                known.login = login.clone().or(known.login.take());
                known.name = name.clone().or(known.name.take());
            }
            Effect::Confirm => {}
        }
    }
}

impl Became {
    /// The identity that it makes of this one. The user is for whoever knows logins.
    pub(super) fn ident(&self, before: &Ident) -> Ident {
        let (db, protocol) = (self.db.unwrap_or(before.db), self.protocol.unwrap_or(before.protocol));
        Ident { db, protocol, user: before.user.clone() }
    }
}

/// What one request leaves, from when it is sent until it is answered. If the answer is lost it counts as left.
pub(super) struct Leaves {
    state: Rc<State>,
    of: Of,
}

enum Of {
    One(Effect),
    /// `EXEC`, and what its commands leave, with their places.
    Exec(Vec<(usize, Effect)>, Elements),
}

impl Leaves {
    pub(super) fn one(state: &Rc<State>, effect: Effect) -> Box<Self> {
        if let Effect::Set(flag) = effect {
            state.asked.set(state.asked.get() | flag);
        }
        Self::new(state, Of::One(effect))
    }

    pub(super) fn exec(state: &Rc<State>, effects: Vec<(usize, Effect)>) -> Box<Self> {
        Self::new(state, Of::Exec(effects, Elements::default()))
    }

    fn new(state: &Rc<State>, of: Of) -> Box<Self> {
        state.open.set(state.open.get() + 1);
        Box::new(Self { state: state.clone(), of })
    }

    /// A piece of the reply came.
    pub(super) fn reply(&mut self, chunk: &[u8], at: At, pushes: &Pushes) {
        match &mut self.of {
            // `QUEUED` is for `EXEC` to tell.
            Of::One(effect) if at.first && at.kind != Kind::Error && chunk != b"+QUEUED\r\n" => {
                self.state.apply(effect, pushes);
            }
            Of::One(_) => {}
            Of::Exec(effects, elements) => {
                // With any other error there was no transaction.
                if at.first && (at.kind != Kind::Error || chunk.starts_with(b"-EXECABORT")) {
                    self.state.apply(&Effect::Clear(WATCH), pushes);
                }
                if at.kind == Kind::Aggregate && !effects.is_empty() {
                    elements.scan(chunk, at.first, |i, kind, element| {
                        for (_, effect) in effects.iter().filter(|(at, _)| *at == i && kind != Kind::Error) {
                            self.state.apply(effect, pushes);
                            if matches!(effect, Effect::Confirm) {
                                pushes.listen();
                                pushes.note(element);
                            }
                        }
                    });
                }
            }
        }
        if at.last {
            self.state.open.set(self.state.open.get() - 1);
            if self.state.open.get() == 0 {
                self.state.asked.set(0);
            }
        }
    }
}

/// Cuts an array that comes in pieces into its elements.
#[derive(Default)]
struct Elements {
    scanner: ReplyScanner,
    /// The present one's number, and what has come of it if that is not much.
    i: usize,
    held: Vec<u8>,
}

impl Elements {
    fn scan(&mut self, chunk: &[u8], first: bool, mut found: impl FnMut(usize, Kind, &[u8])) {
        // The first piece holds at least the array's header.
        let header = if first { memchr::memchr(b'\n', chunk).map_or(chunk.len(), |end| end + 1) } else { 0 };
        let mut rest = &chunk[header..];
        while !rest.is_empty() {
            match self.scanner.scan(rest) {
                Ok(Scan::Done { used, kind }) => {
                    let (element, behind) = rest.split_at(used);
                    match self.held.is_empty() {
                        true => found(self.i, kind, element),
                        false => {
                            self.held.extend_from_slice(element);
                            found(self.i, kind, &self.held);
                            self.held = Vec::new();
                        }
                    }
                    self.i += 1;
                    rest = behind;
                }
                Ok(Scan::More) => {
                    if self.held.len() + rest.len() <= HELD {
                        self.held.extend_from_slice(rest);
                    }
                    return;
                }
                // The link's own scanner has seen the same bytes.
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_however_they_are_cut() {
        let reply = b"*4\r\n+OK\r\n*2\r\n$7\r\nmessage\r\n:1\r\n-ERR x\r\n$-1\r\n";
        let expected = [
            (0, Kind::Simple, &b"+OK\r\n"[..]),
            (1, Kind::Aggregate, b"*2\r\n$7\r\nmessage\r\n:1\r\n"),
            (2, Kind::Error, b"-ERR x\r\n"),
            (3, Kind::Null, b"$-1\r\n"),
        ];
        for cut in 4..reply.len() {
            let (mut elements, mut all) = (Elements::default(), Vec::new());
            let (a, b) = reply.split_at(cut);
            for (first, piece) in [(true, a), (false, b)] {
                elements.scan(piece, first, |i, kind, bytes| all.push((i, kind, bytes.to_vec())));
            }
            let all: Vec<_> = all.iter().map(|(i, kind, bytes)| (*i, *kind, &bytes[..])).collect();
            assert_eq!(all, expected, "cut at {cut}");
        }
    }
}
