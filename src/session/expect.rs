//! What is expected of the upstream for each request: where its replies go, and what is held until they come.
//!
//! Whoever sends a request says it here; [`peer`](super::peer) does it when the replies come.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use smallvec::SmallVec;

use super::announce::{Key, Said, Saying};
use super::asking::Answers;
use super::audit::Audit;
use super::clients::Session;
use super::login::Asked;
use super::mget::Gather;
use super::outbox::To;
use super::pushes::Awaited;
use super::read::Fill;
use super::shared::Shared;
use super::state::{Effect, Leaves};
use super::write::Touched;
use crate::cache::{CoverageId, Fence, Lease, LinkId, Micros, NO_LINK, NameBuf};
use crate::command::{Kind, Say};
use crate::upstream::ServerId;

pub(super) type CacheFence = Fence<super::worker::Ticket>;
pub(super) type CacheLease = Lease<super::worker::Ticket>;

/// What one request to the upstream expects.
pub(super) struct Expect {
    /// When the request was read.
    pub(super) since: Micros,
    pub(super) what: What,
}

pub(super) enum What {
    /// One reply, passed on.
    Relay(To),
    /// One reply, passed on; older entries of the keys go.
    ReadPast(To, Box<Past>),
    Write(Box<Write>),
    Fill(Box<Fill>),
    Gather(Box<Gather>),
    /// One reply, passed on when it is whole and changed.
    /// Boxed, for it is rare: what is expected is moved for every request.
    Changed(To, Box<Changed>),
    /// One reply, passed on; if it is no error, the request has left something on its connection.
    Leave(To, Box<Leaves>),
    /// Confirmations, or one reply of another kind.
    Subscribe(To, Awaited),
    /// `MULTI`: one reply, and if that is an error there is no transaction.
    Multi(To, Rc<RefCell<Transaction>>),
    /// `MONITOR`: one reply, and from then on whatever comes.
    Monitor(To),
    /// The replies to announcements.
    Said(Box<Said>),
    Ping,
    Audit(Box<Audit>),
    /// `AUTH` of the link's own user, for a session that logs in.
    Login(Rc<Asked>),
    /// `CLIENT SETNAME`, of our own accord.
    Name,
    /// Replies that the session itself wants.
    Answers(Rc<Answers>),
    /// Which server the link is on; the feed is on this one.
    Server(CoverageId, ServerId),
    /// `CLIENT TRACKING`, under which feed.
    Arm(CoverageId),
    /// How the server says that it stands with another link.
    Standing(LinkId),
}

impl What {
    /// Whoever waits for the reply, if it will not come because nothing was sent. What is held is let go.
    pub(super) fn give_up(self) -> Option<To> {
        match self {
            What::Relay(to) | What::ReadPast(to, _) | What::Changed(to, ..) | What::Leave(to, _) => Some(to),
            What::Subscribe(to, _) | What::Monitor(to) | What::Multi(to, _) => Some(to),
            What::Fill(fill) => fill.into_to(),
            What::Gather(gather) => Some(gather.into_to()),
            What::Write(mut write) => {
                write.fence = None;
                write.to.take()
            }
            What::Login(_) => None,
            What::Said(_) | What::Ping | What::Audit(_) | What::Name | What::Answers(_) => None,
            What::Server(..) | What::Arm(_) | What::Standing(_) => None,
        }
    }

    /// Whether it is a question about the link itself: nobody misses the answer when the link is closed.
    pub(super) fn is_of_the_link(&self) -> bool {
        matches!(self, What::Ping | What::Server(..) | What::Arm(_) | What::Standing(_))
    }

    /// The keys whose echoes the cache expects because of it.
    pub(super) fn echoed(&self) -> Vec<&[u8]> {
        match self {
            What::Write(write) => write.echoed.iter().map(|key| &**key).collect(),
            What::Said(said) => said.keys.iter().map(|(key, _)| &**key).collect(),
            _ => Vec::new(),
        }
    }
}

/// A read past the cache.
pub(super) struct Past {
    pub(super) keys: SmallVec<[Box<[u8]>; 1]>,
    /// What the cache may serve instead if the upstream proves unreachable.
    pub(super) instead: Option<NameBuf>,
}

/// What a request may have done to keys that are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Barrier {
    /// Written some.
    Keys,
    /// Anything: nobody knows the command.
    Anything,
}

/// A write and its announcements.
pub(super) struct Write {
    pub(super) to: Option<To>,
    pub(super) fence: Option<CacheFence>,
    /// Keys without a fence, which the reply invalidates.
    pub(super) popped: Vec<Box<[u8]>>,
    /// Its reply raises a barrier, unless that says that nothing was done.
    pub(super) barrier: Option<Barrier>,
    /// Announcements behind the write on the same link.
    pub(super) announced: usize,
    /// The keys of these, as far as they are in namespaces.
    pub(super) echoed: Vec<Box<[u8]>>,
    /// What is said behind the write of `echoed`.
    pub(super) say: Say,
    /// What is to be said once the reply has come, and what that then is.
    pub(super) sayings: Vec<Saying>,
    pub(super) said: Vec<(Key, Say)>,
    /// On which link, and of which database.
    pub(super) via: LinkId,
    pub(super) db: u32,
    /// What it leaves on its connection.
    pub(super) leaves: Option<Box<Leaves>>,
}

impl Write {
    /// One that holds nothing and says nothing.
    pub(super) fn new(to: Option<To>) -> Self {
        Self {
            to,
            fence: None,
            popped: Vec::new(),
            barrier: None,
            announced: 0,
            echoed: Vec::new(),
            say: Say::Nothing,
            sayings: Vec::new(),
            said: Vec::new(),
            via: NO_LINK,
            db: 0,
            leaves: None,
        }
    }

    /// One reply that nobody wants.
    pub(super) fn unwanted() -> Self {
        Self { barrier: Some(Barrier::Anything), announced: 1, ..Self::new(None) }
    }

    /// A command in a transaction that may write keys which are not known, or that nobody knows. If it was not
    /// queued, because there is no transaction, it was carried out.
    pub(super) fn queued(to: To, barrier: Option<Barrier>, leaves: Option<Box<Leaves>>) -> Self {
        Self { barrier, leaves, ..Self::new(Some(to)) }
    }
}

/// A transaction, from its `MULTI` on.
#[derive(Default)]
pub(super) struct Transaction {
    pub(super) touched: Touched,
    /// The server has answered the `MULTI`.
    pub(super) answered: bool,
    /// Commands that the server has queued, or has refused and will refuse the transaction for.
    queued: usize,
    /// What they leave on the connection, with their places among them.
    effects: Vec<(usize, Effect)>,
    /// The server refused the `MULTI`, so what came behind it was carried out: fenced until all is answered.
    pub(super) refused: Option<CacheFence>,
}

impl Transaction {
    /// The place of the next command in the reply to `EXEC`.
    pub(super) fn place(&self) -> usize {
        self.queued
    }

    /// Another command, which leaves this if it is carried out.
    pub(super) fn add(&mut self, kind: Kind, effect: Option<Effect>) {
        // These are answered at once, with an error.
        if matches!(kind, Kind::Multi | Kind::Watch) {
            return;
        }
        self.effects.extend(effect.map(|effect| (self.queued, effect)));
        self.queued += 1;
    }

    pub(super) fn into_parts(self) -> (Touched, Vec<(usize, Effect)>) {
        (self.touched, self.effects)
    }

    /// The reply to `MULTI` has come; those to what came behind it are not yet delivered.
    pub(super) fn answer(&mut self, refused: bool, shared: &Shared) {
        self.answered = true;
        if refused {
            self.refused = Some(self.touched.fence(shared, shared.now()));
        }
    }
}

/// A reply that is changed, as far as it has come.
pub(super) struct Changed {
    pub(super) held: BytesMut,
    pub(super) change: Change,
}

impl Changed {
    pub(super) fn by(change: Change) -> Box<Self> {
        Box::new(Self { held: BytesMut::new(), change })
    }
}

/// What is changed in a reply, or done after it.
pub(super) enum Change {
    /// `INFO` gains our section.
    Info,
    /// `HELLO`: the connection's id is the session's; on a connection of its own it may leave something.
    HelloId(u64, Option<Box<Leaves>>),
    /// `CLIENT SETINFO`: this attribute of the session has this value.
    Library(Arc<Session>, Vec<u8>, Vec<u8>),
    /// Where tracking redirects to: a session's connection is the session.
    Redirect,
}
