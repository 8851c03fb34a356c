//! One of the upstream's nodes: the one server there is as a rule, or a master of a cluster.
//!
//! Invariants: what is known of one node says nothing of another: each has its own feed, coverage, rights and era. What was
//! read on a node's links is filled under coverages that are children of its feed's, so losing one node voids its entries alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::warn;

use super::node_id::NodeId;
use super::owned::Owned;
use super::registrar::Registrar;
use super::reports::{Form, Reports, ReportsCell};
use super::role::Role;
use crate::cache::{By, Cache, CoverageId, CoverageSlot, Micros, Reason, ValidUnder, Waiter};
use crate::io::Address;
use crate::metrics::{Counter, Histogram};
use crate::namespace::Tracking;
use crate::upstream::{self, Location, ServerId};

/// The feed of a node is subscribed: what a data link needs to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedUp {
    pub coverage: CoverageId,
    /// The connection to which tracking redirects; `None` if the node has no tracking.
    pub client_id: Option<i64>,
    /// The server that it is on, if that is known.
    pub server: Option<ServerId>,
    /// When it was said.
    pub since: Micros,
}

/// One server of the upstream.
pub struct Node {
    pub id: NodeId,
    /// What its cluster calls it, if it is known as a node of one.
    pub name: Option<Box<str>>,
    /// How it is reached.
    pub upstream: upstream::Settings,
    /// The coverage of its feed, the parent of those of its links.
    pub feed: CoverageSlot,
    /// The coverage of what is announced only: it depends on the feed, and is told of nothing else.
    pub announced: CoverageSlot,
    pub feed_up: watch::Sender<Option<FeedUp>>,
    /// Why it does not track what is read with nearside's own login, if it does not.
    pub own_refusal: Mutex<Option<Box<str>>>,
    /// Of which changes its feed is told.
    pub reports: ReportsCell,
    /// Keys that wait to be registered with its feed.
    pub registrar: Registrar,
    /// Connections for requests to it that stand now.
    pub links: Counter,
    /// Which hash slots are its own, in front of a cluster.
    pub owned: Owned,
    /// The form that was told last.
    told: Mutex<Option<Form>>,
    /// Whether it is still the server that it was.
    pub role: Role,
    /// Changes of users and their rules are seen; not yet known is no.
    users_watched: AtomicBool,
    /// That they are not was told.
    unwatched_told: AtomicBool,
    /// Nearside's own login was given a reply to `GET`, and to `MGET`; and was refused one of them.
    said: [ValidUnder; 2],
    refused: ValidUnder,
    /// How long its replies took.
    pub latency: Histogram,
}

impl Node {
    /// `None` if there is no room for its coverages.
    pub fn new<W: Waiter>(id: NodeId, upstream: upstream::Settings, cache: &Cache<W>) -> Option<Self> {
        let coverages = cache.coverages();
        Some(Self {
            id,
            name: None,
            upstream,
            feed: coverages.take()?,
            announced: coverages.take()?,
            feed_up: watch::Sender::new(None),
            own_refusal: Mutex::default(),
            reports: ReportsCell::default(),
            registrar: Registrar::default(),
            links: Counter::default(),
            owned: Owned::default(),
            told: Mutex::default(),
            role: Role::default(),
            users_watched: AtomicBool::new(false),
            unwatched_told: AtomicBool::new(false),
            said: Default::default(),
            refused: ValidUnder::default(),
            latency: Histogram::default(),
        })
    }

    /// This, as the node of this name of a cluster.
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// Where it is; `None` while sentinels have not said it.
    pub fn address(&self) -> Option<Arc<Address>> {
        match &self.upstream.address {
            Location::Fixed(address) => Some(address.clone()),
            Location::Member(member) => Some(member.address().clone()),
            Location::Elected(elected) => elected.address(),
        }
    }

    /// What it is called where there are others: its address, or the service for which sentinels name the master, whichever
    /// server that is.
    pub fn place(&self) -> String {
        match &self.upstream.address {
            Location::Elected(elected) => elected.service().to_owned(),
            fixed => fixed.to_string(),
        }
    }

    /// Whether its feed stands.
    pub fn is_up(&self) -> bool {
        self.feed_up.borrow().is_some()
    }

    /// It is a node no more: what was read from it is void.
    pub(super) fn retire<W: Waiter>(&self, cache: &Cache<W>, now: Micros) {
        self.feed_up.send_replace(None);
        cache.coverages().end(&self.feed, now);
    }

    /// Ends what is left of the connections to it: what they still wait for may never come.
    pub fn leave(&self) {
        if let Location::Member(member) = &self.upstream.address {
            member.leave();
        }
    }

    /// Gives back what it had in the cache, once nobody else has it any more.
    pub fn give_back<W: Waiter>(self, cache: &Cache<W>, now: Micros) {
        cache.coverages().give_back(self.announced, now);
        cache.coverages().give_back(self.feed, now);
    }

    /// Whether it is seen when somebody changes users or their rules there. If not, the replies of those who log
    /// in as another are not cached.
    pub fn watches_users(&self) -> bool {
        self.users_watched.load(Ordering::Relaxed)
    }

    pub fn watch_users(&self, sees: bool) {
        self.users_watched.store(sees, Ordering::Relaxed);
        if !sees && !self.unwatched_told.swap(true, Ordering::Relaxed) {
            warn!(
                "the upstream does not tell nearside of changed users (INFO): replies to other users are not cached; let its user \
                 say it (+info)"
            );
        }
    }

    /// In which form it tells of changes of keys that are tracked so, to nearside's own login; `None` if in none.
    /// `redirects` is whether links are to be tracked where it allows that.
    pub fn form(&self, how: Tracking, redirects: bool) -> Option<Form> {
        if how == Tracking::Keys && redirects && self.own_refusal.lock().is_none() {
            return Some(Form::Redirect);
        }
        let reports = self.reports.get();
        let form = if reports == Reports::Registered { Form::Register } else { Form::Broadcast };
        reports.tell_of(how).then_some(form)
    }

    /// Notes that this form is in use now; says whether it is another than before.
    pub fn note_form(&self, form: Form) -> bool {
        self.told.lock().replace(form) != Some(form)
    }

    /// A reply to `GET`, or an element of `MGET`, was had with nearside's own login: by what it may be had besides.
    ///
    /// That login may say both of all keys if it is the server's default user, which has all rights where nobody took
    /// them away, or once it was seen to say each of them; and as long as it was not refused one.
    pub fn shared_by<W: Waiter>(&self, cache: &Cache<W>, is_default: bool, by: By) -> By {
        let coverages = cache.coverages();
        let seen = &self.said[usize::from(by == By::MGET)];
        if !seen.stands(coverages) {
            coverages.current(&self.feed).into_iter().for_each(|id| seen.note(id));
        }
        let seen = is_default || self.said.iter().all(|said| said.stands(coverages));
        let both = seen && !self.refused.stands(coverages);
        if both { By::GET.and(By::MGET) } else { By::ITSELF }
    }

    /// Nearside's own login was refused a `GET` or an `MGET`: what was shared goes. It is shared again when users or
    /// their rules have changed.
    pub fn note_refusal<W: Waiter>(&self, cache: &Cache<W>) {
        let coverages = cache.coverages();
        if !self.refused.stands(coverages) && coverages.current(&self.feed).is_some() {
            cache.flush_of(&self.feed, Reason::Users);
            coverages.current(&self.feed).into_iter().for_each(|id| self.refused.note(id));
        }
    }
}
