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
use super::mget::MgetAssembly;
use super::pushes::Awaited;
use super::queue::ReplySlot;
use super::read::Fill;
use super::shared::Shared;
use super::state::{Effect, Leaves};
use super::write::WriteSet;
use crate::cache::{CoverageId, EntryKeyBuf, Fence, Lease, LinkId, Micros, NO_LINK};
use crate::command::{Kind, Say};
use crate::upstream::ServerId;

pub(super) type CacheFence = Fence<super::worker::Ticket>;
pub(super) type CacheLease = Lease<super::worker::Ticket>;

/// What one request to the upstream expects.
pub(super) struct InFlight {
    /// When the request was read.
    pub(super) since: Micros,
    pub(super) pending: Pending,
}

pub(super) enum Pending {
    /// One reply, passed on.
    Relay(ReplySlot),
    /// One reply, passed on; older entries of the keys go.
    Bypass(ReplySlot, Box<Bypass>),
    Write(Box<Write>),
    Fill(Box<Fill>),
    MgetAssembly(Box<MgetAssembly>),
    /// One reply, passed on when it is whole and changed.
    /// Boxed, for it is rare: what is expected is moved for every request.
    Changed(ReplySlot, Box<Changed>),
    /// One reply, passed on; if it is no error, the request has left something on its connection.
    Leave(ReplySlot, Box<Leaves>),
    /// Confirmations, or one reply of another kind.
    Subscribe(ReplySlot, Awaited),
    /// `MULTI`: one reply, and if that is an error there is no transaction.
    Multi(ReplySlot, Rc<RefCell<Transaction>>),
    /// `MONITOR`: one reply, and from then on whatever comes.
    Monitor(ReplySlot),
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

impl Pending {
    /// Whoever waits for the reply, if it will not come because nothing was sent. What is held is let go.
    pub(super) fn give_up(self) -> Option<ReplySlot> {
        match self {
            Pending::Relay(to)
            | Pending::Bypass(to, _)
            | Pending::Changed(to, ..)
            | Pending::Leave(to, _) => Some(to),
            Pending::Subscribe(to, _) | Pending::Monitor(to) | Pending::Multi(to, _) => Some(to),
            Pending::Fill(fill) => fill.into_to(),
            Pending::MgetAssembly(gather) => Some(gather.into_to()),
            Pending::Write(mut write) => {
                write.fence = None;
                write.to.take()
            }
            Pending::Login(_) => None,
            Pending::Said(_) | Pending::Ping | Pending::Audit(_) | Pending::Name | Pending::Answers(_) => {
                None
            }
            Pending::Server(..) | Pending::Arm(_) | Pending::Standing(_) => None,
        }
    }

    /// Whether it is a question about the link itself: nobody misses the answer when the link is closed.
    pub(super) fn is_of_the_link(&self) -> bool {
        matches!(self, Pending::Ping | Pending::Server(..) | Pending::Arm(_) | Pending::Standing(_))
    }

    /// The keys whose echoes the cache expects because of it.
    pub(super) fn echoed(&self) -> Vec<&[u8]> {
        match self {
            Pending::Write(write) => write.echoed.iter().map(|key| &**key).collect(),
            Pending::Said(said) => said.keys.iter().map(|(key, _)| &**key).collect(),
            _ => Vec::new(),
        }
    }
}

/// A read past the cache.
pub(super) struct Bypass {
    pub(super) keys: SmallVec<[Box<[u8]>; 1]>,
    /// What the cache may serve instead if the upstream proves unreachable.
    pub(super) instead: Option<EntryKeyBuf>,
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
    pub(super) to: Option<ReplySlot>,
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
    pub(super) fn new(to: Option<ReplySlot>) -> Self {
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
    pub(super) fn queued(to: ReplySlot, barrier: Option<Barrier>, leaves: Option<Box<Leaves>>) -> Self {
        Self { barrier, leaves, ..Self::new(Some(to)) }
    }
}

/// A transaction, from its `MULTI` on.
#[derive(Default)]
pub(super) struct Transaction {
    pub(super) write_set: WriteSet,
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

    pub(super) fn into_parts(self) -> (WriteSet, Vec<(usize, Effect)>) {
        (self.write_set, self.effects)
    }

    /// The reply to `MULTI` has come; those to what came behind it are not yet delivered.
    pub(super) fn answer(&mut self, refused: bool, shared: &Shared) {
        self.answered = true;
        if refused {
            self.refused = Some(self.write_set.fence(shared, shared.now()));
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
