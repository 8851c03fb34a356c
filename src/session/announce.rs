//! Announcements: what is said of a write's keys on the channels of the namespaces.
//!
//! Invariants: `update` is said of a key only where it was there after its write, `delete` only where it was
//! not, unless nobody may look. A peer of redis-pubsub-dict fetches a key that was updated, and one that it does not find
//! ends its listener. Whether a key is there is told by the write's reply, or else by the upstream, in one step with the
//! message. What was written, or may have been, and could not be said is made up for by a `delete` once the upstream is
//! there again: that makes everybody read anew.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::BytesMut;
use tracing::warn;

use super::expect::{InFlight, Pending};
use super::idents::Ident;
use super::peer::LinkHandler;
use super::shared::Shared;
use super::worker::Worker;
use crate::cache::{LinkId, NO_LINK};
use crate::command::{KeyUse, Say, Tells};
use crate::namespace::Event;
use crate::resp::scanner::{Kind, elements};
use crate::resp::{Protocol, encode};
use crate::upstream::{At, Chunk, Link};

/// Says of one key whether it is there: its name in `KEYS`, so that it goes to its node in a cluster; the two channels and
/// what is said are the arguments.
const LOOK: &[u8] =
    b"return redis.call('publish',redis.call('exists',KEYS[1])==1 and ARGV[1] or ARGV[2],ARGV[3])";

/// Keys of which a `delete` is owed, at most.
const MAX_OWED: usize = 1 << 14;

/// A key in a namespace.
pub(super) type Key = Box<[u8]>;

/// What one command writes in the namespaces, and what its reply will tell of that.
#[derive(Clone)]
pub(super) struct Saying {
    pub(super) tells: Tells,
    pub(super) keys: Vec<(Key, KeyUse)>,
    /// Its place in the reply to the transaction.
    pub(super) place: Option<usize>,
}

/// What the beginning of a reply, or all of it, says of the keys that were written.
pub(super) fn decide(sayings: Vec<Saying>, reply: &[u8], at: At) -> Vec<(Key, Say)> {
    let mut said: Vec<(Key, Say)> = Vec::new();
    let replies = if at.last { elements(reply) } else { None };
    let nothing = matches!(at.kind, Kind::Error | Kind::Null);
    for saying in sayings {
        let (reply, kind) = match saying.place {
            None => (reply, at.kind),
            // It was not carried out.
            Some(_) if nothing => continue,
            Some(place) => match replies.as_ref().and_then(|all| all.get(place).cloned()) {
                Some(element) if reply[element.start] == b'-' => (&reply[element], Kind::Error),
                Some(element) => (&reply[element], Kind::Aggregate),
                // Too long to be looked into.
                None => (&b"+"[..], Kind::Simple),
            },
        };
        let unseen = saying.place.is_some() && replies.is_none();
        for (key, usage) in saying.keys {
            let say = if unseen { Say::Look } else { saying.tells.say(&key, usage, reply, kind) };
            match said.iter_mut().find(|(known, _)| *known == key) {
                // Of two commands the later one counts, if it did anything; within one it is not known which was last.
                Some((_, known)) if saying.place.is_some() => {
                    *known = if say == Say::Nothing { *known } else { say };
                }
                Some((_, known)) => *known = known.and(say),
                None => said.push((key, say)),
            }
        }
    }
    said.retain(|(_, say)| *say != Say::Nothing);
    said
}

/// Writes what says that of `key`; false if it is in no namespace.
pub(super) fn write(out: &mut BytesMut, shared: &Shared, key: &[u8], say: Say) -> bool {
    let Some(namespace) = shared.namespaces.find(key) else { return false };
    let Some(bare) = namespace.bare(key) else { return false };
    let [update, delete] = [Event::Update, Event::Delete].map(|event| namespace.channel(event));
    match say {
        Say::Update => encode::command(out, &[b"PUBLISH", update, bare]),
        Say::Delete => encode::command(out, &[b"PUBLISH", delete, bare]),
        Say::Look => encode::command(out, &[b"EVAL", LOOK, b"1", key, update, delete, bare]),
        Say::Nothing => return false,
    }
    true
}

/// Announcements under way.
pub(super) struct Said {
    pub(super) keys: VecDeque<(Key, Say)>,
    db: u32,
}

impl Worker {
    /// Announces what is said of these keys of the database: on the link of this number, if it is a shared one of
    /// nearside's own, so that they come behind their write; else on another of nearside's own.
    pub(super) fn say(self: &Rc<Self>, number: LinkId, db: u32, said: Vec<(Key, Say)>) {
        if said.is_empty() {
            return;
        }
        let link = if number == NO_LINK { None } else { self.link_of(number) };
        let own = || {
            let ident = Ident { db, protocol: Protocol::Resp2, user: None };
            self.link(&ident, &self.shared.settings.login)
        };
        self.say_on(&link.unwrap_or_else(own), db, said);
    }

    fn say_on(self: &Rc<Self>, link: &Link<LinkHandler>, db: u32, said: Vec<(Key, Say)>) {
        let (shared, peer, mut out) = (&self.shared, link.client(), BytesMut::new());
        let mut keys = VecDeque::with_capacity(said.len());
        for (key, say) in said {
            let say = if say == Say::Look && !peer.may_look() { Say::Delete } else { say };
            if write(&mut out, shared, &key, say) {
                shared.cache.expect_echo(&key, peer.number);
                keys.push_back((key, say));
            }
        }
        shared.metrics.announcements.add(keys.len() as u64);
        let expect = InFlight { since: shared.now(), pending: Pending::Said(Box::new(Said { keys, db })) };
        if let Err((expect, _)) = link.send(|to| to.append(out.freeze()), expect)
            && let Pending::Said(said) = expect.pending
        {
            let now = shared.now();
            said.keys.iter().for_each(|(key, _)| shared.cache.no_echo(key, now));
            self.owe(said.keys.into_iter().map(|(key, _)| key));
        }
    }

    /// These keys may have been written, and nothing was said of them.
    pub(super) fn owe(self: &Rc<Self>, keys: impl Iterator<Item = Key>) {
        let mut owed = self.owed.borrow_mut();
        for key in keys.filter(|key| self.shared.namespaces.find(key).is_some()) {
            self.shared.metrics.announcements_owed.inc();
            if owed.len() == MAX_OWED {
                owed.pop_front();
                self.shared.metrics.announcements_failed.inc();
            }
            owed.push_back(key);
        }
        drop(owed);
        self.pay();
    }

    /// Says what is owed, if nearside's own link stands.
    pub(super) fn pay(self: &Rc<Self>) {
        if self.owed.borrow().is_empty() {
            return;
        }
        let link = self.own_link();
        if link.is_up() {
            let owed = std::mem::take(&mut *self.owed.borrow_mut());
            self.say_on(
                &link,
                self.shared.settings.db,
                owed.into_iter().map(|key| (key, Say::Delete)).collect(),
            );
        }
    }
}

impl LinkHandler {
    /// A reply to an announcement.
    pub(super) fn said(&self, mut said: Box<Said>, chunk: &Chunk<'_>, at: At) -> Option<Pending> {
        if at.first
            && at.kind == Kind::Error
            && let Some((key, say)) = said.keys.front()
        {
            self.not_said(key, *say, said.db, chunk);
        }
        if at.last {
            said.keys.pop_front();
        }
        (!said.keys.is_empty()).then_some(Pending::Said(said))
    }

    /// An announcement was refused.
    pub(super) fn not_said(&self, key: &[u8], say: Say, db: u32, reply: &[u8]) {
        let (cache, now) = (&self.shared.cache, self.shared.now());
        cache.no_echo(key, now);
        if say != Say::Look {
            return self.count_failed(reply);
        }
        self.shared.metrics.looks_refused.inc();
        let is = |text: &[u8]| reply.get(..text.len()).is_some_and(|said| said.eq_ignore_ascii_case(text));
        if is(b"-NOPERM") || is(b"-ERR") {
            self.forbid_looks();
        }
        if let Some(untold) = self.shared.metrics.looks_refused_told.now() {
            let said = String::from_utf8_lossy(reply);
            warn!(
                reply = said.trim_end(),
                untold,
                "the upstream does not let nearside look (EVAL) whether a key is still there: `delete` is announced instead"
            );
        }
        if let Some(worker) = self.worker.upgrade() {
            worker.say(NO_LINK, db, vec![(key.into(), Say::Delete)]);
        }
    }
}
