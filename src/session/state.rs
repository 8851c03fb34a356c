//! One client's session, without its socket: who it is, what it waits for, and where its requests go.
//!
//! Invariants:
//! - A session has at most one link in use. It goes to another (a dedicated one, another database) only when
//!   all its earlier replies are in, so the order of its requests is the upstream's order.
//! - A request that waits for another's flight is not on any link yet; until it is answered, only reads that
//!   may be cached follow it. So no later write can overtake it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::asking::Asking;
use super::changing::Changing;
use super::claims::Claims;
use super::dedicated::Dedicated;
use super::resending::Resending;
use super::tunnel::Wanted;
use super::turn::Turn;
use crate::pending::Link;
use crate::process::{Present, Who};
use crate::reply::ReplyQueue;
use crate::request::mget::Unfinished;
use crate::request::{Context, Gathers, Outbound};
use crate::resp::Protocol;

/// Where a session's requests go.
pub(super) enum Mode {
    Shared,
    Dedicated(Box<Dedicated>),
}

/// See the [module](self).
pub struct Session {
    pub cx: Context,
    /// Another identity, which is tried.
    pub(super) changing: Option<Changing>,
    /// What is asked about clients.
    pub(super) asking: Option<Asking>,
    /// What the session is to become once all is answered.
    pub tunnel: Option<Wanted>,
    pub(super) quit: bool,
    /// An `MGET` that is answered bit by bit.
    pub(super) unfinished: Option<Box<Unfinished>>,
    /// The session's link is not the one that it would choose anew, or its topology not the newest: see
    /// [`Session::settle`].
    pub(super) unsettled: bool,
    pub(super) resending: Resending,
    /// How many links were left by others when the session last had nothing open, in front of a cluster.
    pub(super) links_left: u64,
    /// The last request that may write keys which nobody can name.
    pub(super) barrier: Cell<Option<u64>>,
    /// The client has not given the password that nearside asks for.
    pub(super) locked: bool,
    /// Writes of some namespaces are acknowledged before they are upstream.
    pub(super) minds_dirty: bool,
    /// One of both.
    pub(super) guarded: bool,
    pub(super) claims: Claims,
    pub(super) mode: Mode,
    pub turn: Turn,
}

impl Session {
    pub fn new(outbound: Rc<Outbound>, client: Present, queue: Rc<ReplyQueue>) -> Self {
        let process = outbound.process.clone();
        let key = outbound.router.default_key(Protocol::Resp2);
        let minds_dirty = process.writes_back() && !client.is_own;
        let locked = process.settings.password.is_some() && !client.is_own;
        let session = Self {
            locked,
            minds_dirty,
            guarded: locked || minds_dirty,
            claims: Claims::default(),
            cx: Context {
                ident: process.idents.number(&key.ident),
                link: outbound.router.link(&key),
                now: process.now(),
                topology: process.present_topology(),
                process,
                outbound,
                queue,
                client,
                name: Vec::new(),
                gathers: Gathers::default(),
                key,
                again: None,
                crowded: RefCell::default(),
            },
            changing: None,
            tunnel: None,
            asking: None,
            quit: false,
            unfinished: None,
            unsettled: false,
            resending: Resending::default(),
            links_left: 0,
            barrier: Cell::new(None),
            mode: Mode::Shared,
            turn: Turn::default(),
        };
        session.publish();
        session
    }

    /// Lets others know as whom the session speaks.
    pub(super) fn publish(&self) {
        let (cx, ident) = (&self.cx, &self.cx.key.ident);
        let user = ident.user.clone().unwrap_or_else(|| cx.process.settings.upstream.own.user().to_vec());
        cx.client.change(|who| {
            *who = Who {
                name: cx.name.clone(),
                user,
                db: ident.db,
                protocol: ident.protocol,
                ..std::mem::take(who)
            }
        });
    }

    /// Where the session's requests go now.
    #[inline]
    pub(super) fn present_link(&self) -> &Link {
        match &self.mode {
            Mode::Shared => &self.cx.link,
            Mode::Dedicated(dedicated) => dedicated.link(),
        }
    }

    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// As at the start: the password has to be given anew, if there is one.
    pub(super) fn lock(&mut self) {
        self.set_locked(self.cx.process.settings.password.is_some());
    }

    pub(super) fn set_locked(&mut self, locked: bool) {
        self.locked = locked;
        self.guarded = locked || self.minds_dirty;
    }

    pub fn wants_to_quit(&self) -> bool {
        self.quit
    }

    /// Whether the session may be ended between two requests. An open transaction dies with it, as with a server that
    /// is shut down.
    pub fn may_leave(&self) -> bool {
        self.changing.is_none() && self.asking.is_none()
    }
}
