//! Coverages: the promises that invalidations for an entry will reach us.
//!
//! Invariants:
//! - A [`CoverageId`] is used for one armed period of one slot. Ending or flushing the coverage changes the
//!   slot's generation, so every entry and every lease under the old id is void at once, in O(1) per slot.
//! - A child (a data link's tracking, which redirects to the feed) never outlives its parent (the feed):
//!   ending the parent ends its children, and a child cannot be armed under a parent that has ended. Both
//!   happen under one mutex, so there is no moment between the two.
//! - A watermark only grows within one armed period, and starts anew with each.
//!
//! `feed` and `upstream` arm, advance and end coverages; `cache` asks whether one stands and how fresh it is.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::slots::{Slot, Slots};

/// Microseconds since the process' start.
pub type Micros = u64;

/// One armed period of one coverage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoverageId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// A place for one coverage, held for as long as its connection's owner lives.
#[derive(Debug)]
pub struct CoverageSlot(u32);

/// All coverages of the process: one for each upstream node, which its feed proves, and one for each tracked link, a child
/// of its node's. So what ends or voids a node's coverage concerns the entries that were read from that node alone.
#[derive(Default)]
pub struct Coverages {
    slots: Slots,
    /// Slots that were given back. Held also while arming and ending, so that parent and child change together.
    free: Mutex<Vec<u32>>,
}

impl Coverages {
    /// Takes a slot; `None` if a million are taken, in which case the connection fills nothing.
    pub fn take(&self) -> Option<CoverageSlot> {
        let mut free = self.free.lock();
        free.pop().or_else(|| self.slots.add()).map(CoverageSlot)
    }

    /// Gives a slot back; its coverage ends.
    pub fn give_back(&self, slot: CoverageSlot, now: Micros) {
        let mut free = self.free.lock();
        self.end_locked(slot.0, now);
        free.push(slot.0);
    }

    /// Starts a new armed period, proven fresh up to `watermark`. An older period of the slot ends.
    /// `None` if `parent` has ended; that it was flushed since is no matter.
    pub fn arm(
        &self,
        slot: &CoverageSlot,
        parent: Option<CoverageId>,
        watermark: Micros,
    ) -> Option<CoverageId> {
        let _guard = self.free.lock();
        self.end_locked(slot.0, watermark);
        if parent.is_some_and(|parent| !self.goes_on(parent)) {
            return None;
        }
        let this = self.slots.get(slot.0);
        this.parent.store(parent.map_or(slot.0, |parent| parent.slot), Ordering::Relaxed);
        if let Some(parent) = parent {
            self.slots.get(parent.slot).has_children.store(true, Ordering::Relaxed);
        }
        this.watermark.store(watermark, Ordering::Relaxed);
        this.heard.store(if watermark == Micros::MAX { 0 } else { watermark }, Ordering::Relaxed);
        let generation = this.generation.load(Ordering::Relaxed).wrapping_add(1);
        this.began.store(generation, Ordering::Relaxed);
        this.generation.store(generation, Ordering::SeqCst);
        Some(CoverageId { slot: slot.0, generation })
    }

    /// Arms a coverage under which the upstream itself tells nothing: only announcements do, which `parent` hears. It is
    /// as fresh as that, and hears of what is not announced never.
    pub fn arm_untold(&self, slot: &CoverageSlot, parent: CoverageId) -> Option<CoverageId> {
        self.arm(slot, Some(parent), Micros::MAX)
    }

    /// Ends the slot's coverage and those of its children: all that was filled under them is void.
    pub fn end(&self, slot: &CoverageSlot, now: Micros) {
        let _guard = self.free.lock();
        self.end_locked(slot.0, now);
    }

    /// Ends the slot's coverage if it is still in the armed period of `id`.
    pub fn end_period(&self, slot: &CoverageSlot, id: CoverageId, now: Micros) {
        let _guard = self.free.lock();
        if id.slot == slot.0 && self.goes_on(id) {
            self.end_locked(slot.0, now);
        }
    }

    fn end_locked(&self, slot: u32, now: Micros) {
        for (ends, generation) in self.family(slot) {
            ends.ended.store(now, Ordering::Relaxed);
            ends.generation.store(generation.wrapping_add(1), Ordering::SeqCst);
        }
        self.slots.get(slot).has_children.store(false, Ordering::Relaxed);
    }

    /// Those that stand, with their numbers and generations.
    fn armed(&self) -> impl Iterator<Item = (u32, &Slot, u32)> {
        let all = self.slots.in_use();
        let with_generation = all.map(|(i, slot)| (i, slot, slot.generation.load(Ordering::Relaxed)));
        with_generation.filter(|(_, _, generation)| generation % 2 == 1)
    }

    /// Of a slot and its children those that stand, with their generations. Only a parent's are searched for.
    fn family(&self, of: u32) -> impl Iterator<Item = (&Slot, u32)> {
        let own = self.slots.get(of);
        let generation = own.generation.load(Ordering::Relaxed);
        let is_child =
            move |(i, slot, _): &(u32, &Slot, u32)| *i != of && slot.parent.load(Ordering::Relaxed) == of;
        let children = own.has_children.load(Ordering::Relaxed).then(|| self.armed().filter(is_child));
        let children = children.into_iter().flatten().map(|(_, slot, generation)| (slot, generation));
        (generation % 2 == 1).then_some((own, generation)).into_iter().chain(children)
    }

    /// Voids all that was filled so far, under every coverage, while the coverages go on.
    pub fn flush(&self) {
        let _guard = self.free.lock();
        self.armed().for_each(|(_, slot, generation)| void(slot, generation));
    }

    /// Likewise of what was filled under this slot and its children: what was read from one node.
    pub fn flush_of(&self, slot: &CoverageSlot) {
        let _guard = self.free.lock();
        self.family(slot.0).for_each(|(slot, generation)| void(slot, generation));
    }

    /// Whether the armed period of `id` goes on, though what was filled under `id` may be void by a flush.
    pub fn goes_on(&self, id: CoverageId) -> bool {
        let slot = self.slots.get(id.slot);
        let generation = slot.generation.load(Ordering::SeqCst);
        let began = slot.began.load(Ordering::Relaxed);
        // Counted backwards from now, so that the numbers may wrap.
        let (age, id_age) = (generation.wrapping_sub(began), generation.wrapping_sub(id.generation));
        generation % 2 == 1 && id_age <= age
    }

    /// The slot's present armed period, if it is armed. What is leased next is filled under it.
    pub fn current(&self, slot: &CoverageSlot) -> Option<CoverageId> {
        let generation = self.slots.get(slot.0).generation.load(Ordering::SeqCst);
        (generation % 2 == 1).then_some(CoverageId { slot: slot.0, generation })
    }

    /// Says that a request sent at `sent` was answered: what the upstream had sent before is applied.
    pub fn advance(&self, slot: &CoverageSlot, sent: Micros) {
        let slot = self.slots.get(slot.0);
        slot.watermark.fetch_max(sent, Ordering::Release);
        slot.heard.fetch_max(sent, Ordering::Release);
    }

    /// Says only that what the upstream had told of changes by `sent` is applied.
    pub fn hear(&self, slot: &CoverageSlot, sent: Micros) {
        self.slots.get(slot.0).heard.fetch_max(sent, Ordering::Release);
    }

    /// Whether the armed period goes on.
    pub fn stands(&self, id: CoverageId) -> bool {
        self.slots.get(id.slot).generation.load(Ordering::SeqCst) == id.generation
    }

    /// The oldest watermark of those that stand; `None` if none does.
    pub fn oldest_watermark(&self) -> Option<Micros> {
        self.armed().map(|(_, slot, _)| slot.watermark.load(Ordering::Acquire)).min()
    }

    /// How many children stand: tracked data links.
    pub fn children(&self) -> usize {
        let is_tracked = |(i, slot, _): &(u32, &Slot, u32)| {
            slot.heard.load(Ordering::Relaxed) > 0 && slot.parent.load(Ordering::Relaxed) != *i
        };
        self.armed().filter(is_tracked).count()
    }

    /// Whether the upstream itself tells of changes of what was read under `id`.
    pub fn is_told(&self, id: CoverageId) -> bool {
        self.slots.get(id.slot).heard.load(Ordering::Relaxed) > 0
    }

    /// Like [`Coverages::heard`], of the slot alone.
    pub fn heard_by(&self, slot: &CoverageSlot) -> Micros {
        self.slots.get(slot.0).heard.load(Ordering::Acquire)
    }

    /// Up to when the changes of which the upstream told are applied to the entries under `id`; 0 if it tells of none.
    #[inline(always)]
    pub fn heard(&self, id: CoverageId) -> Micros {
        let slot = self.slots.get(id.slot);
        let parent = self.slots.get(slot.parent.load(Ordering::Relaxed));
        slot.heard.load(Ordering::Acquire).min(parent.heard.load(Ordering::Acquire))
    }

    /// Whether the armed period was the last one of its slot, and ended at most `grace` ago.
    pub fn ended_within(&self, id: CoverageId, grace: Micros, now: Micros) -> bool {
        let slot = self.slots.get(id.slot);
        slot.generation.load(Ordering::SeqCst) == id.generation.wrapping_add(1)
            && now.saturating_sub(slot.ended.load(Ordering::Relaxed)) <= grace
    }

    /// Up to when entries under `id` are proven to reflect the upstream: the older watermark of the slot
    /// and its parent.
    pub fn watermark(&self, id: CoverageId) -> Micros {
        let slot = self.slots.get(id.slot);
        let parent = self.slots.get(slot.parent.load(Ordering::Relaxed));
        slot.watermark.load(Ordering::Acquire).min(parent.watermark.load(Ordering::Acquire))
    }
}

/// What was filled under the slot so far is void; it goes on.
fn void(slot: &Slot, generation: u32) {
    slot.generation.store(generation.wrapping_add(2), Ordering::SeqCst);
}

/// Something that was seen under a coverage, and holds as long as that stands.
#[derive(Debug, Default)]
pub struct ValidUnder(AtomicU64);

impl ValidUnder {
    const EVER: u64 = 1 << 63;

    pub fn note(&self, under: CoverageId) {
        let id = Self::EVER | u64::from(under.slot) << 32 | u64::from(under.generation);
        self.0.store(id, Ordering::Release);
    }

    pub fn stands(&self, coverages: &Coverages) -> bool {
        let id = self.0.load(Ordering::Acquire);
        let under = CoverageId { slot: ((id & !Self::EVER) >> 32) as u32, generation: id as u32 };
        id & Self::EVER != 0 && coverages.stands(under)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_holds_while_its_coverage_stands() {
        let coverages = Coverages::default();
        let (slots, seen) = ((coverages.take().unwrap(), coverages.take().unwrap()), ValidUnder::default());
        assert!(!seen.stands(&coverages));
        for slot in [&slots.0, &slots.1] {
            let id = coverages.arm(slot, None, 1).unwrap();
            seen.note(id);
            assert!(seen.stands(&coverages));
            coverages.flush();
            assert!(!seen.stands(&coverages));
            seen.note(coverages.current(slot).unwrap());
            assert!(seen.stands(&coverages));
            coverages.end(slot, 2);
            assert!(!seen.stands(&coverages));
        }
    }

    #[test]
    fn ending_the_parent_ends_its_children() {
        let coverages = Coverages::default();
        let (feed, link) = (coverages.take().unwrap(), coverages.take().unwrap());
        let parent = coverages.arm(&feed, None, 1).unwrap();
        let child = coverages.arm(&link, Some(parent), 2).unwrap();
        assert!(coverages.stands(child));
        coverages.end(&feed, 9);
        assert!(!coverages.stands(parent) && !coverages.stands(child));
        assert_eq!(coverages.arm(&link, Some(parent), 3), None, "a child of an ended parent");
        let again = coverages.arm(&feed, None, 4).unwrap();
        assert!(!coverages.stands(child), "arming the parent anew must not revive the child");
        assert!(coverages.arm(&link, Some(again), 5).is_some());
    }

    #[test]
    fn the_older_watermark_of_a_pair_counts() {
        let coverages = Coverages::default();
        let (feed, link) = (coverages.take().unwrap(), coverages.take().unwrap());
        let parent = coverages.arm(&feed, None, 10).unwrap();
        let child = coverages.arm(&link, Some(parent), 20).unwrap();
        assert_eq!(coverages.watermark(child), 10);
        coverages.advance(&feed, 30);
        assert_eq!(coverages.watermark(child), 20);
        coverages.advance(&feed, 25);
        assert_eq!(coverages.watermark(parent), 30, "a watermark never goes back");
    }

    #[test]
    fn what_the_upstream_does_not_tell_is_never_heard() {
        let coverages = Coverages::default();
        let (feed, untold) = (coverages.take().unwrap(), coverages.take().unwrap());
        let parent = coverages.arm(&feed, None, 10).unwrap();
        let child = coverages.arm_untold(&untold, parent).unwrap();
        coverages.advance(&feed, 20);
        coverages.hear(&feed, 30);
        assert_eq!((coverages.watermark(parent), coverages.heard(parent)), (20, 30));
        assert_eq!((coverages.watermark(child), coverages.heard(child)), (20, 0));
        assert!(coverages.is_told(parent) && !coverages.is_told(child));
        assert_eq!(coverages.children(), 0, "it is no tracked link");
        coverages.end(&feed, 40);
        assert!(!coverages.stands(child));
    }

    #[test]
    fn a_flush_voids_and_goes_on() {
        let coverages = Coverages::default();
        let feed = coverages.take().unwrap();
        let before = coverages.arm(&feed, None, 1).unwrap();
        coverages.flush();
        assert!(!coverages.stands(before));
        assert!(coverages.stands(coverages.current(&feed).unwrap()));
        coverages.end(&feed, 9);
        coverages.flush();
        assert_eq!(coverages.current(&feed), None);
    }

    #[test]
    fn an_ended_period_is_remembered_until_the_next_is_armed() {
        let coverages = Coverages::default();
        let feed = coverages.take().unwrap();
        let first = coverages.arm(&feed, None, 1).unwrap();
        assert!(!coverages.ended_within(first, 100, 5), "it goes on");
        coverages.end(&feed, 10);
        assert!(coverages.ended_within(first, 5, 15));
        assert!(!coverages.ended_within(first, 5, 16));
        coverages.arm(&feed, None, 15).unwrap();
        assert!(!coverages.ended_within(first, 100, 15));
    }

    #[test]
    fn a_child_can_be_armed_under_a_parent_that_was_flushed() {
        let coverages = Coverages::default();
        let (feed, link) = (coverages.take().unwrap(), coverages.take().unwrap());
        let parent = coverages.arm(&feed, None, 1).unwrap();
        coverages.flush();
        assert!(coverages.arm(&link, Some(parent), 2).is_some());
        coverages.end(&feed, 3);
        coverages.arm(&feed, None, 3).unwrap();
        assert_eq!(coverages.arm(&link, Some(parent), 4), None, "a later period of the same slot");
        coverages.end_period(&feed, parent, 4);
        assert!(coverages.current(&feed).is_some(), "the period that goes on is another");
    }

    #[test]
    fn what_voids_one_node_s_voids_none_of_another_s() {
        let coverages = Coverages::default();
        let node = |watermark| {
            let (feed, link) = (coverages.take().unwrap(), coverages.take().unwrap());
            let parent = coverages.arm(&feed, None, watermark).unwrap();
            let child = coverages.arm(&link, Some(parent), watermark).unwrap();
            (feed, link, parent, child)
        };
        let (a, b) = (node(1), node(2));
        coverages.flush_of(&a.0);
        assert!(!coverages.stands(a.2) && !coverages.stands(a.3), "its children's too");
        assert!(coverages.stands(b.2) && coverages.stands(b.3));
        let again = [&a.0, &a.1].map(|slot| coverages.current(slot).unwrap());
        assert!(again.iter().all(|id| coverages.stands(*id)), "both go on");
        coverages.flush_of(&a.1);
        assert!(coverages.stands(again[0]) && !coverages.stands(again[1]), "a link's own alone");
        coverages.end(&a.0, 3);
        assert!(coverages.current(&a.1).is_none());
        coverages.flush_of(&a.0);
        assert!(coverages.current(&a.0).is_none(), "a flush arms nothing");
        assert!(coverages.stands(b.2) && coverages.stands(b.3));
    }

    #[test]
    fn many_slots_are_as_good_as_few() {
        const MANY: usize = 5_000;
        let coverages = Coverages::default();
        let feed = coverages.take().unwrap();
        let parent = coverages.arm(&feed, None, 1).unwrap();
        let mut links: Vec<_> = (0..MANY).map(|_| coverages.take().unwrap()).collect();
        let ids: Vec<_> = links.iter().map(|l| coverages.arm(l, Some(parent), 7).unwrap()).collect();
        assert_eq!(coverages.children(), MANY);
        coverages.end(&links[MANY - 1], 8);
        assert_eq!(ids.iter().filter(|id| coverages.stands(**id)).count(), MANY - 1);
        let seen = ValidUnder::default();
        seen.note(ids[MANY - 2]);
        assert!(seen.stands(&coverages));
        coverages.advance(&links[MANY - 2], 20);
        coverages.advance(&feed, 30);
        assert_eq!(coverages.watermark(ids[MANY - 2]), 20);
        assert_eq!(coverages.watermark(ids[MANY - 3]), 7);
        coverages.give_back(links.pop().unwrap(), 9);
        coverages.give_back(links.pop().unwrap(), 9);
        assert!(!coverages.stands(ids[MANY - 2]) && !seen.stands(&coverages));
        for _ in 0..2 {
            let back = coverages.take().unwrap();
            assert!((MANY as u32 - 1..=MANY as u32).contains(&back.0), "what was given back comes first");
        }
        coverages.end(&feed, 10);
        assert!(!ids.iter().any(|id| coverages.stands(*id)));
    }
}
