//! What is in flight for each request: where its replies go, and what is held until they come.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::BytesMut;
use smallvec::SmallVec;

use super::answers::Answers;
use super::asked::Asked;
use super::assembly::MgetAssembly;
use super::audit::Audit;
use super::changed::Changed;
use super::fill::Fill;
use super::link_handler::LinkHandler;
use super::pushes::Awaited;
use super::said::Said;
use super::state::Leaves;
use super::transaction::Transaction;
use super::write::Write;
use crate::cache::{Ahead, CoverageId, EntryKey, EntryKeyBuf, LinkId, Micros};
use crate::process::{Digest, Ticket, Traced};
use crate::reply::ReplySlot;
use crate::upstream::ServerId;

/// What one request to the upstream expects.
pub struct InFlight {
    /// When the request was read.
    pub since: Micros,
    pub pending: Pending,
}

pub enum Pending {
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
    /// `ASKING`, in front of what is asked for at another node than its owner.
    Asking,
    /// The replies to announcements.
    Said(Box<Said>),
    Ping,
    Audit(Box<Audit>),
    /// `AUTH` of the link's own user, for a session that logs in.
    Login(Rc<Asked>),
    /// `CLIENT SETNAME`, of our own accord.
    Name,
    /// `SCRIPT LOAD`, of our own accord.
    Script(Digest),
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
    pub fn give_up(self) -> Option<ReplySlot> {
        match self {
            Pending::Relay(to)
            | Pending::Bypass(to, _)
            | Pending::Changed(to, ..)
            | Pending::Leave(to, _) => Some(to),
            Pending::Subscribe(to, _) | Pending::Monitor(to) | Pending::Multi(to, _) => Some(to),
            Pending::Fill(fill) => fill.into_to(),
            Pending::MgetAssembly(assembly) => assembly.window.map(|window| window.to),
            Pending::Write(mut write) => {
                write.fence = None;
                write.to.take()
            }
            Pending::Login(_) => None,
            Pending::Asking | Pending::Said(_) | Pending::Ping | Pending::Audit(_) => None,
            Pending::Name | Pending::Script(_) | Pending::Answers(_) => None,
            Pending::Server(..) | Pending::Arm(_) | Pending::Standing(_) => None,
        }
    }

    /// Where the reply goes as a whole, if the request can be sent again from the start.
    pub fn awaited(&self) -> Option<&ReplySlot> {
        match self {
            Pending::Relay(to) | Pending::Bypass(to, _) | Pending::Changed(to, _) => Some(to),
            Pending::Fill(fill) => fill.to(),
            Pending::MgetAssembly(assembly) => assembly.whole_to(),
            Pending::Write(write) => write.to.as_ref(),
            _ => None,
        }
    }

    /// Whether it is one request of a session, as it came; not one that only reads into the cache.
    pub(super) fn is_request(&self) -> bool {
        match self {
            Pending::Write(write) => write.to.is_some(),
            Pending::Relay(_) | Pending::Bypass(..) | Pending::Changed(..) | Pending::Leave(..) => true,
            Pending::Subscribe(..) => true,
            _ => false,
        }
    }

    /// Whether it is the `EXEC` of a transaction.
    pub(super) fn is_exec(&self) -> bool {
        match self {
            Pending::Write(write) => write.leaves.as_ref().is_some_and(|leaves| leaves.is_exec()),
            _ => false,
        }
    }

    /// Whether it is a question about the link itself: nobody misses the answer when the link is closed.
    pub fn is_of_the_link(&self) -> bool {
        matches!(self, Pending::Ping | Pending::Server(..) | Pending::Arm(_) | Pending::Standing(_))
    }

    /// The keys whose echoes the cache expects because of it.
    pub fn echoed(&self) -> Vec<&[u8]> {
        match self {
            Pending::Write(write) => write.echoed.iter().map(|key| &**key).collect(),
            Pending::Said(said) => said.keys.iter().map(|(key, _)| &**key).collect(),
            _ => Vec::new(),
        }
    }
}

/// A read past the cache.
#[derive(Default)]
pub struct Bypass {
    pub keys: SmallVec<[Box<[u8]>; 1]>,
    /// What the cache may serve instead if the upstream proves unreachable.
    pub instead: Option<EntryKeyBuf>,
    /// Whoever waits for the same, and the reply as far as it has come.
    pub ahead: Option<(Ahead<Ticket>, BytesMut)>,
    /// It is told of to a collector.
    pub traced: Option<Box<Traced>>,
}

impl Bypass {
    /// It is about to be sent on this link, for a request that was read at `since`, and may be sampled.
    #[cold]
    pub fn trace(&mut self, link: &LinkHandler, since: Micros, name: &EntryKey<'_>) {
        self.traced = Traced::begin(&link.process, &link.node, since, name, 1);
    }
}
