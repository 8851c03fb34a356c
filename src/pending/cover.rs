//! What a shared link's coverage depends on: its tracking, the feed, and whether it answers.

use std::time::Duration;

use tracing::{debug, warn};

use super::link_handler::LinkHandler;
use super::standing::Standing;
use super::upcalls::LinkEvent;
use crate::cache::{Cover, CoverageId, Micros, NO_LINK};
use crate::namespace::{Namespace, Tracking};
use crate::process::{Reports, Topology};
use crate::resp::key_slot;
use crate::resp::scanner::Kind;
use crate::upstream::{Pace, Said, backoff};

/// How long to wait before asking again what was answered by "not now".
const PUT_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// And what was refused; as for the feed, so that it stays one entry of the upstream's `ACL LOG`.
const REFUSED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(45));

/// By the topology of this epoch, the node of the link owns the key's hash slot.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub slot: u16,
    pub epoch: u64,
}

impl LinkHandler {
    /// Under what a read of `key` on this link would be filled now. Where the upstream tells of no changes of such keys, it is the
    /// coverage of the channels, which is for namespaces only.
    pub fn cover(&self, key: &[u8], namespace: Option<&Namespace>) -> Option<Cover> {
        self.cover_in(None, key, namespace)
    }

    /// Likewise, where it may be known why the key is asked for here.
    pub fn cover_in(&self, route: Option<Route>, key: &[u8], namespace: Option<&Namespace>) -> Option<Cover> {
        if self.arming.unsure.get() || self.is_of_old() || !self.is_owner(route, key) {
            return None;
        }
        let how = self.process.wanted_tracking(namespace);
        if how == Tracking::Keys && self.process.redirects() {
            let tracked = self.tracked();
            // Not by less while tracking is only not in place yet: then more was promised.
            if tracked.is_some() || self.arming.refusal.borrow().is_none() {
                return tracked.map(|coverage| self.under(coverage, false));
            }
        }
        let channels = || {
            let announced = self.process.cache.coverages().current(&self.node.announced);
            namespace.and(announced).map(|coverage| self.under(coverage, false))
        };
        let by_feed = self.cover_by_feed(how);
        by_feed.filter(|cover| !cover.registers || !self.node.registrar.is_refused(key)).or_else(channels)
    }

    /// Whether the key is the node's own: as requests are sent now, and of a node of a cluster by its own word too. Asked under
    /// the lock of the key's shard, so what was leased before a loss is there to be voided (see `Owned`).
    fn is_owner(&self, route: Option<Route>, key: &[u8]) -> bool {
        let (process, is_cluster) = (&self.process, self.process.cluster.is());
        if process.is_single() && !is_cluster {
            return true;
        }
        let slot = route.map_or_else(|| key_slot(key), |route| route.slot);
        // A topology is told of before anything is void because of it, and that is done under the same lock.
        let is_newest = route.is_some_and(|route| route.epoch == process.epoch());
        let owns =
            |topology: &Topology| topology.owner_of(slot).is_some_and(|owner| owner.id == self.node.id);
        (is_newest || owns(&process.topology())) && (!is_cluster || self.node.owned.has(slot))
    }

    /// Likewise where the upstream tells the feed for the feed's own sake. The feed cannot know where the link leads; so
    /// only once the link has said so.
    fn cover_by_feed(&self, how: Tracking) -> Option<Cover> {
        let coverages = self.process.cache.coverages();
        // First this, and then what the feed is told of: see `ReportsCell`.
        let feed = coverages.current(&self.node.feed)?;
        let reports = self.node.reports.get();
        let told = reports.tell_of(how) && self.arming.leads_to_feed(coverages);
        told.then(|| self.under(feed, reports == Reports::Registered))
    }

    /// Whether the upstream tells the feed, for the feed's own sake, of changes of keys that are tracked so.
    pub fn is_told_by_feed(&self, how: Tracking) -> bool {
        self.node.reports.get().tell_of(how)
    }

    /// Whether what is read on it now is read from the server of the feed that stands.
    pub fn is_at_feed(&self) -> bool {
        !self.arming.unsure.get()
            && !self.is_of_old()
            && self.arming.leads_to_feed(self.process.cache.coverages())
    }

    fn under(&self, coverage: CoverageId, registers: bool) -> Cover {
        Cover { coverage, link: self.id, registers }
    }

    /// Nobody can tell whether the link leads to the server of this feed: it is taken to.
    pub fn may_lead_to(&self, feed: CoverageId) {
        self.lead_to(Some(feed));
    }

    /// The coverage by the upstream's tracking.
    pub fn tracked(&self) -> Option<CoverageId> {
        self.coverage.borrow().as_ref().and_then(|slot| self.process.cache.coverages().current(slot))
    }

    /// Finds a place for the coverage of a shared link that stands. Without one it serves, and fills nothing.
    pub fn take_place(&self) {
        if self.id == NO_LINK || self.coverage.borrow().is_some() {
            return;
        }
        match self.process.cache.coverages().take() {
            Some(slot) => drop(self.coverage.replace(Some(slot))),
            None => self.process.metrics.links_uncovered.inc(),
        }
    }

    /// The link is closed, and nothing that was read on it is served any more, not even while the upstream is away.
    pub fn leave_place(&self) {
        if let Some(slot) = self.coverage.take() {
            self.process.cache.coverages().give_back(slot, self.process.now());
        }
    }

    /// Whether a barrier asks for a newer proof that the link's tracking stands.
    pub fn is_behind_barrier(&self) -> bool {
        let coverages = self.process.cache.coverages();
        let coverage = self.coverage.borrow();
        let slot = coverage.as_ref().filter(|_| self.tracked().is_some());
        slot.is_some_and(|slot| coverages.heard_by(slot) <= self.process.cache.barrier())
    }

    /// No answer came in time: what was read on the link is void.
    pub fn mark_unresponsive(&self) {
        if !self.is_silent() {
            self.silent.set(Some(self.process.now()));
            if let Some(untold) = self.process.metrics.unanswered_told.now() {
                warn!(
                    link = self.id.0,
                    untold,
                    "a link gave no answer within max-staleness: what was read on it is void; if the upstream, or the way \
                     there, is that slow, raise max-staleness"
                );
            }
            self.disarm();
            // Whoever waits for a read on it, on any worker, reads for himself.
            self.process.cache.let_go(self.id, |_| false);
        }
    }

    /// How long its answer may still be in coming; `None` if none is awaited. A long reply that is coming is an answer,
    /// and so is one that is not read because its client does not take it.
    pub fn left(&self, pace: Pace, now: Micros) -> Option<Duration> {
        let left = self.pings.left(pace, now)?;
        if self.held_up.get() {
            return Some(pace.patience);
        }
        let quiet = Duration::from_micros(now.saturating_sub(self.heard.get()));
        Some(left.max(pace.patience.saturating_sub(quiet)))
    }

    /// Whether the link is dark, for the server has now said twice in a row that it keeps nothing of it waiting, and
    /// nothing came in between.
    pub fn is_doubted(&self, standing: Standing, now: Micros) -> bool {
        let before = self.doubted.replace(if standing == Standing::Unheard { now } else { 0 });
        standing == Standing::Unheard && before > 0 && self.heard.get() < before
    }

    pub fn is_silent(&self) -> bool {
        self.silent.get().is_some()
    }

    /// For how long it has been known that it gives no answer.
    pub fn silent_for(&self, now: Micros) -> Option<Micros> {
        self.silent.get().map(|since| now.saturating_sub(since))
    }

    pub fn be_replaced(&self) {
        self.replaced.set(true);
        self.front.pass();
    }

    pub fn is_replaced(&self) -> bool {
        self.replaced.get()
    }

    /// A `PING` of the heartbeat was answered.
    pub fn answered(&self) {
        self.pings.answered();
        self.front.become_ready(true);
        self.tell(LinkEvent::Changed);
        if self.silent.take().is_some() {
            self.tell(LinkEvent::Up);
        }
        if self.is_behind_barrier() {
            self.tell(LinkEvent::BehindBarrier);
        }
    }

    /// A reply came to a request that was sent after `since`.
    pub fn proven(&self, since: Micros) {
        if let Some(slot) = &*self.coverage.borrow() {
            self.process.cache.coverages().advance(slot, since);
        }
    }

    pub fn disarm(&self) {
        if let Some(slot) = &*self.coverage.borrow() {
            self.process.cache.coverages().end(slot, self.process.now());
        }
    }

    /// The feed has just gone, or it is on another server than this link: a name or a proxy that leads
    /// elsewhere since. Either way it is of no more use, and connects anew.
    pub fn leave_feed(&self, feed: CoverageId) {
        self.process.cache.coverages().end_period(&self.node.feed, feed, self.process.now());
    }

    /// What became of the link's tracking.
    pub fn armed(&self, feed: CoverageId, since: Micros, reply: &[u8], kind: Kind) {
        let coverage = self.coverage.borrow();
        let Some(slot) = &*coverage else { return };
        match Said::of(kind, reply) {
            Said::NotNow => return self.put_off("CLIENT TRACKING", reply),
            Said::Refused => {
                let said = String::from_utf8_lossy(reply);
                if said.contains("does not exist") {
                    return self.leave_feed(feed);
                }
                self.refuse(said.trim_end());
                return self.again(REFUSED);
            }
            // Asked again together with what was put off.
            Said::Answer if self.arming.unsure.get() => return,
            Said::Answer => {}
        }
        self.arming.turns.set(0);
        self.arming.refusal.replace(None);
        if self.own {
            self.node.own_refusal.lock().take();
            self.process.tell_form(&self.node);
        }
        if self.process.cache.coverages().arm(slot, Some(feed), since).is_none() {
            debug!("the feed went before tracking was in place");
        }
    }

    /// The upstream does not track what is read on this link.
    pub fn refuse(&self, said: &str) {
        self.process.metrics.tracking_refused.inc();
        if self.own {
            self.node.own_refusal.lock().replace(said.into());
            self.process.tell_form(&self.node);
        }
        let is_new = self.arming.refusal.replace(Some(said.into())).is_none();
        if !is_new {
            return;
        }
        if let Some(untold) = self.process.metrics.tracking_refused_told.now() {
            let who = if self.own { "nearside's own user" } else { "a client's user" };
            warn!(
                reply = said,
                untold,
                "the upstream does not allow CLIENT TRACKING with REDIRECT to {who}: another form is taken where one is allowed, see \
                 nearside check --connect"
            );
        }
    }

    /// Why the upstream does not track what is read on this link.
    pub fn refusal(&self) -> Option<Box<str>> {
        self.arming.refusal.borrow().clone()
    }

    pub fn put_off(&self, question: &str, reply: &[u8]) {
        let metrics = &self.process.metrics;
        metrics.put_off.inc();
        if let Some(untold) = metrics.put_off_told.now() {
            let reply = String::from_utf8_lossy(reply);
            warn!(
                question,
                reply = reply.trim_end(),
                untold,
                "the upstream does not answer now: it is asked again, and nothing is served from the cache without proof; see \
                 what keeps it busy"
            );
        }
        self.again(PUT_OFF);
    }

    fn again(&self, between: (Duration, Duration)) {
        if self.arming.due.replace(true) {
            return;
        }
        let turns = self.arming.turns.get();
        self.arming.turns.set(turns.saturating_add(1));
        self.tell(LinkEvent::AskLater(backoff(between, turns)));
    }

    /// The time has come to ask again: whether that is still of use.
    pub fn is_due(&self) -> bool {
        self.arming.due.set(false);
        self.lacks_tracking()
    }

    /// Whether something is still to be asked.
    pub fn lacks_tracking(&self) -> bool {
        let untracked = self.process.redirects() && self.tracked().is_none();
        self.arming.unsure.get() || untracked
    }
}
