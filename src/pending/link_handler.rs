//! What is known of one link, shared or dedicated: whose it is, where it leads, whether it answers.
//!
//! What becomes of the replies that come on it stands in the files above.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use bytes::BytesMut;

use super::arming::Arming;
use super::astray::{Astray, Keeps};
use super::front::Front;
use super::place::Place;
use super::pushes::Pushes;
use super::told::Told;
use super::upcalls::{LinkEvent, Upcalls};
use crate::cache::{CoverageId, CoverageSlot, LinkId, Micros};
use crate::process::{Client, Digest, Node, Process};
use crate::reply::ReplyQueue;
use crate::resp::Protocol;
use crate::upstream::Pings;

/// The session that has a link for itself.
#[derive(Clone)]
pub struct Owner {
    pub queue: Rc<ReplyQueue>,
    pub client: Arc<Client>,
}

/// Where links come from.
#[derive(Clone)]
pub struct Origin {
    pub process: Arc<Process>,
    pub node: Arc<Node>,
    pub upcalls: Weak<dyn Upcalls>,
}

/// See the [module](self).
pub struct LinkHandler {
    pub process: Arc<Process>,
    /// Whose link it is.
    pub node: Arc<Node>,
    upcalls: Weak<dyn Upcalls>,
    /// The order of what comes on a link is known to itself. [`NO_LINK`] for a dedicated one.
    pub id: LinkId,
    /// The coverage of what is read on the link, from when it first stands; none for a dedicated link.
    pub coverage: RefCell<Option<CoverageSlot>>,
    /// The session of a dedicated link.
    pub(super) owner: RefCell<Option<Owner>>,
    /// What comes unasked on a dedicated link.
    pub pushes: Pushes,
    /// What of the session's requests is to be sent elsewhere.
    pub astray: Astray,
    /// What the upstream calls the connection, if it told.
    pub(super) upstream_id: Cell<Option<i64>>,
    /// What the connection is called upstream, if it was ever given a session's name.
    pub(super) name: RefCell<Option<Vec<u8>>>,
    /// It stands, and is counted as standing.
    pub(super) up: Cell<bool>,
    /// The session has asked for what may be long in coming.
    pub(super) patient: Cell<bool>,
    /// A reply of ours, as far as it has come.
    pub(super) read: RefCell<BytesMut>,
    /// Nothing is read for now, because a client does not take its replies.
    pub(super) held_up: Cell<bool>,
    /// When the bytes came that are handed over now.
    pub(super) heard: Cell<Micros>,
    /// The heartbeat of a shared link.
    pub pings: Pings,
    /// Since when it gives no answer, if it gave none in time.
    pub(super) silent: Cell<Option<Micros>>,
    /// When the server last said that it keeps nothing of the link waiting; 0 if it said otherwise.
    pub(super) doubted: Cell<Micros>,
    /// Another link has taken its place.
    pub(super) replaced: Cell<bool>,
    /// Where it leads.
    pub(super) place: Place,
    /// It may not look (`EVAL`) whether a key is there.
    pub(super) blind: Cell<bool>,
    /// A write that cannot fail by its arguments was refused: until one is not, what is announced waits for the reply.
    pub careful: Cell<bool>,
    pub(super) arming: Arming,
    /// Scripts that its server was told of.
    pub(super) told: Told,
    /// Whether what is at the front of a shared link is stuck.
    pub front: Front,
    /// It logs in as nearside itself.
    pub own: bool,
    /// Nearside's own login may not be said between this request of the session and the next.
    barred: Cell<bool>,
    /// The session has logged in here itself, perhaps as another user.
    estranged: Cell<bool>,
}

impl LinkHandler {
    pub fn new(origin: &Origin, id: LinkId, owner: Option<Owner>, protocol: Protocol) -> Self {
        let Origin { process, node, upcalls } = origin.clone();
        Self {
            process,
            node,
            upcalls,
            id,
            coverage: RefCell::default(),
            owner: RefCell::new(owner),
            pushes: Pushes::new(protocol),
            astray: Astray::default(),
            upstream_id: Cell::default(),
            name: RefCell::default(),
            up: Cell::default(),
            patient: Cell::default(),
            read: RefCell::default(),
            heard: Cell::default(),
            held_up: Cell::default(),
            pings: Pings::default(),
            silent: Cell::default(),
            doubted: Cell::default(),
            replaced: Cell::default(),
            place: Place::default(),
            blind: Cell::default(),
            careful: Cell::default(),
            arming: Arming::default(),
            told: Told::default(),
            front: Front::default(),
            own: false,
            barred: Cell::default(),
            estranged: Cell::default(),
        }
    }

    /// Notes that the server is told of a script; false if it was already.
    pub fn tell_script(&self, script: Digest) -> bool {
        self.told.add(script, self.process.scripts.era())
    }

    /// Whoever is above, as long as that is there.
    pub(super) fn upcalls(&self) -> Option<Rc<dyn Upcalls>> {
        self.upcalls.upgrade()
    }

    pub(super) fn tell(&self, event: LinkEvent) {
        if let Some(upcalls) = self.upcalls() {
            upcalls.link(self.id, event);
        }
    }

    /// A reply for `key` was read past the cache on this link.
    pub fn past(&self, key: &[u8], now: Micros) {
        self.process.cache.note_bypass(key, self.id, now);
    }

    /// From now on a reply may be long in coming.
    pub fn exempt_from_timeout(&self) {
        self.patient.set(true);
    }

    /// Whether nearside's own login must not be said now: a transaction is open, say.
    pub fn bar_login(&self, barred: bool) {
        self.barred.set(barred);
    }

    /// The session logs in here itself: nearside's own login is not said any more.
    pub fn estrange(&self) {
        self.estranged.set(true);
    }

    /// Whether `AUTH` of the link's own user is answered like any request now, and changes nothing.
    pub(super) fn takes_login(&self) -> bool {
        let says_little = self.pushes.is_raw() || self.pushes.is_restricted();
        !self.barred.get() && !self.estranged.get() && !says_little
    }

    /// It is this session's from now on.
    pub fn own(&self, owner: Owner) {
        self.patient.set(false);
        self.astray.keeps(Keeps::Nothing);
        self.barred.set(false);
        self.place.change_hands();
        self.owner.replace(Some(owner));
    }

    /// It is nobody's.
    pub fn disown(&self) {
        self.owner.replace(None);
    }

    /// What the upstream calls the connection, if it told.
    pub fn upstream_id(&self) -> Option<i64> {
        self.upstream_id.get()
    }

    /// Notes that the connection is called `name` from now on; false if it is already.
    pub fn call(&self, name: &[u8]) -> bool {
        let known = self.name.borrow().as_deref() == Some(name);
        if !known {
            self.name.replace(Some(name.to_vec()));
        }
        !known
    }

    /// Whether the upstream may be asked to look whether a key is there.
    pub fn may_look(&self) -> bool {
        !self.blind.get()
    }

    pub fn forbid_looks(&self) {
        self.blind.set(true);
    }

    /// Its server was left since the connection was begun.
    pub fn is_of_old(&self) -> bool {
        self.place.era.get() != self.node.role.era()
    }

    /// It has said that its server takes no writes.
    pub fn is_readonly(&self) -> bool {
        self.place.readonly.get()
    }

    /// Notes whether it stands, where connections are counted.
    pub(super) fn note_standing(&self, stands: bool) {
        if self.up.replace(stands) == stands {
            return;
        }
        for gauge in [&self.process.metrics.upstream_links, &self.node.links] {
            if stands { gauge.inc() } else { gauge.dec() }
        }
    }

    /// Notes whose server it leads to, or that this is not known.
    pub(super) fn lead_to(&self, feed: Option<CoverageId>) {
        let gauge = &self.process.metrics.feed_links;
        match (self.arming.leads_to.replace(feed), feed) {
            (None, Some(_)) => gauge.inc(),
            (Some(_), None) => gauge.dec(),
            _ => {}
        }
    }

    /// The connection is gone, and what was known of it.
    pub(super) fn forget_connection(&self) {
        self.name.replace(None);
        self.upstream_id.set(None);
        self.read.take();
        self.pings.forget();
        self.silent.set(None);
        self.doubted.set(0);
        self.lead_to(None);
        self.arming.forget();
        let _ = self.told.forget();
        self.front.become_ready(false);
    }

    /// A reply to what was read at `since` is whole.
    pub(super) fn observe(&self, since: Micros) {
        let micros = self.heard.get().saturating_sub(since);
        self.front.took(micros);
        self.process.metrics.upstream_latency.observe(micros, 1);
        self.node.latency.observe(micros, 1);
    }
}
