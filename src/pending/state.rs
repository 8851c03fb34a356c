//! What a session leaves on a connection of its own, as the server's replies tell.
//!
//! Invariants: state counts from when the request that may leave it is sent, and for good only if the server
//! has accepted that. What the server refuses leaves nothing; what it takes away again is gone. So a session stays on
//! its own connection just as long as something is there.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::elements::Elements;
use super::pushes::Pushes;
use crate::process::Ident;
use crate::reply::ReplySlot;
use crate::resp::Protocol;
use crate::resp::scanner::Kind;
use crate::upstream::{At, Login};

/// What may stand on a connection, one bit each.
pub type Flags = u16;

pub const WATCH: Flags = 1;
pub const TRACKING: Flags = 1 << 1;
pub const NO_EVICT: Flags = 1 << 2;
pub const NO_TOUCH: Flags = 1 << 3;
pub const IMPORT: Flags = 1 << 4;
pub const MAINTENANCE: Flags = 1 << 5;
pub const READONLY: Flags = 1 << 6;
pub const DEBUG: Flags = 1 << 7;
pub const REPLICA: Flags = 1 << 8;
/// What is not followed here: it stays until the session ends or is reset.
pub const OTHER: Flags = 1 << 9;
/// Binds nobody; but the connection is not fit for the next session.
const WORN: Flags = 1 << 10;

/// Who the session has become there.
#[derive(Clone, Default)]
pub struct Became {
    pub db: Option<u32>,
    pub protocol: Option<Protocol>,
    pub login: Option<Login>,
    pub name: Option<Vec<u8>>,
}

/// What an accepted request does to the state.
#[derive(Clone)]
pub enum Effect {
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

/// See the [module](self).
#[derive(Default)]
pub struct State {
    flags: Cell<Flags>,
    /// Requests that may leave something and are not answered, and what.
    open: Cell<u32>,
    asked: Cell<Flags>,
    /// Requests sent so far, and which of them holds for the next.
    sent: Cell<u64>,
    once: Cell<u64>,
    became: RefCell<Became>,
}

impl State {
    /// Whether the connection holds any, or may.
    pub fn holds(&self) -> bool {
        let once = self.once.get();
        self.flags.get() & !WORN != 0 || self.open.get() > 0 || once > 0 && once == self.sent.get()
    }

    pub fn may_have(&self, flag: Flags) -> bool {
        (self.flags.get() | self.asked.get()) & flag != 0
    }

    /// Counts a request; gives its number.
    pub fn count(&self) -> u64 {
        self.sent.set(self.sent.get() + 1);
        self.sent.get()
    }

    /// Whether it was never other than as it was made, but for the database.
    pub fn is_clean(&self) -> bool {
        self.flags.get() & WORN == 0
    }

    /// Whether the session speaks there as it did when it came.
    pub fn is_as_before(&self) -> bool {
        let became = self.became.borrow();
        became.db.is_none() && became.protocol.is_none() && became.login.is_none()
    }

    pub fn is_named(&self) -> bool {
        self.became.borrow().name.is_some()
    }

    pub fn became(&self) -> Became {
        self.became.borrow().clone()
    }

    fn set(&self, flags: Flags) {
        self.flags.set(self.flags.get() | flags);
    }

    fn apply(&self, effect: &Effect, pushes: &Pushes) {
        match effect {
            // A connection that only watched is as it was.
            Effect::Set(WATCH) => self.set(WATCH),
            Effect::Set(flag) => self.set(flag | WORN),
            Effect::Clear(flag) => self.flags.set(self.flags.get() & !flag),
            Effect::Once(seq) => self.once.set(*seq),
            Effect::Wear => self.set(WORN),
            Effect::Become(became) => {
                let Became { db, protocol, login, name } = &**became;
                if protocol.is_some() || login.is_some() || name.is_some() {
                    self.set(WORN);
                }
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
    pub fn ident(&self, before: &Ident) -> Ident {
        let (db, protocol) = (self.db.unwrap_or(before.db), self.protocol.unwrap_or(before.protocol));
        Ident { db, protocol, user: before.user.clone() }
    }
}

/// What one request leaves, from when it is sent until it is answered. If the answer is lost it counts as left.
pub struct Leaves {
    state: Rc<State>,
    of: Of,
}

enum Of {
    One(Effect),
    /// `EXEC`, and what its commands leave, with their places.
    Exec(Vec<(usize, Effect)>, Elements),
}

impl Leaves {
    pub fn one(state: &Rc<State>, effect: Effect) -> Box<Self> {
        if let Effect::Set(flag) = effect {
            state.asked.set(state.asked.get() | flag);
        }
        Self::new(state, Of::One(effect))
    }

    pub fn exec(state: &Rc<State>, effects: Vec<(usize, Effect)>) -> Box<Self> {
        Self::new(state, Of::Exec(effects, Elements::default()))
    }

    fn new(state: &Rc<State>, of: Of) -> Box<Self> {
        state.open.set(state.open.get() + 1);
        Box::new(Self { state: state.clone(), of })
    }

    pub(super) fn is_exec(&self) -> bool {
        matches!(self.of, Of::Exec(..))
    }

    /// A piece of the reply came.
    pub fn reply(&mut self, chunk: &[u8], at: At, pushes: &Pushes, to: &ReplySlot) {
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
                                to.confirmed_within(element);
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

#[cfg(test)]
mod tests;
