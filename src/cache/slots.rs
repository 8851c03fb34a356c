//! The table behind the coverages. It grows, and a slot that is there never moves, so it is read without a lock.
//!
//! Invariants: the slots below [`Slots::in_use`]'s end are there for good. The first ones are found by their number alone,
//! as in a table of fixed size; those that few processes ever need cost a hit some instructions more.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Slots that are there from the start, 40 bytes each.
const FIRST: usize = 1024;

/// How often they may be doubled.
const DOUBLINGS: usize = 10;

/// How many there can be.
pub(super) const MOST: usize = FIRST << DOUBLINGS;

/// What is known of one coverage.
pub(super) struct Slot {
    /// Odd while armed.
    pub(super) generation: AtomicU32,
    /// What it was when the present armed period began; flushes have moved it on since.
    pub(super) began: AtomicU32,
    /// The slot of the parent, or this slot itself.
    pub(super) parent: AtomicU32,
    /// Others may have it for a parent, and stand.
    pub(super) has_children: AtomicBool,
    pub(super) watermark: AtomicU64,
    /// Up to when what the upstream told of changes is applied; it may be ahead of the watermark, which stands for more.
    /// 0 while nothing is told.
    pub(super) heard: AtomicU64,
    /// When the last armed period ended.
    pub(super) ended: AtomicU64,
}

impl Slot {
    const fn new() -> Self {
        Self {
            generation: AtomicU32::new(0),
            began: AtomicU32::new(0),
            parent: AtomicU32::new(0),
            has_children: AtomicBool::new(false),
            watermark: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        }
    }
}

/// See the [module](self).
pub(super) struct Slots {
    first: Box<[Slot]>,
    /// Each as large as all before it together.
    more: [OnceLock<Box<[Slot]>>; DOUBLINGS],
    /// How many were ever in use at once.
    used: AtomicUsize,
}

impl Default for Slots {
    fn default() -> Self {
        Self { first: table(FIRST), more: [const { OnceLock::new() }; DOUBLINGS], used: AtomicUsize::new(0) }
    }
}

fn table(len: usize) -> Box<[Slot]> {
    (0..len).map(|_| Slot::new()).collect()
}

/// In which of the further tables the slot is, and where it begins.
fn further(slot: usize) -> (usize, usize) {
    let doubling = (slot / FIRST).ilog2() as usize;
    (doubling, FIRST << doubling)
}

impl Slots {
    #[inline(always)]
    pub(super) fn get(&self, slot: u32) -> &Slot {
        self.first.get(slot as usize).unwrap_or_else(|| self.get_further(slot as usize))
    }

    #[cold]
    fn get_further(&self, slot: usize) -> &Slot {
        /// Of a number that was never given out.
        static NEVER_ARMED: Slot = Slot::new();
        let (doubling, begin) = further(slot);
        let table = self.more.get(doubling).and_then(OnceLock::get);
        table.and_then(|table| table.get(slot - begin)).unwrap_or(&NEVER_ARMED)
    }

    /// Another slot; `None` if there are as many as there can be. Precondition: called by one at a time.
    pub(super) fn add(&self) -> Option<u32> {
        let slot = self.used.load(Ordering::SeqCst);
        if slot >= MOST {
            return None;
        }
        if slot >= FIRST {
            let (doubling, begin) = further(slot);
            self.more[doubling].get_or_init(|| table(begin));
        }
        self.used.store(slot + 1, Ordering::SeqCst);
        Some(slot as u32)
    }

    /// All that ever were, in the order of their numbers.
    pub(super) fn in_use(&self) -> impl Iterator<Item = (u32, &Slot)> {
        let all = self.first.iter().chain(self.more.iter().map_while(OnceLock::get).flatten());
        (0..).zip(all).take(self.used.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_slot_of_its_own_that_never_moves() {
        let slots = Slots::default();
        let address = |slot: u32| std::ptr::from_ref(slots.get(slot)) as usize;
        let early = [0, 5].map(address);
        for number in 0..10 * FIRST as u32 {
            assert_eq!(slots.add(), Some(number));
            slots.get(number).began.store(number, Ordering::Relaxed);
        }
        assert_eq!([0, 5].map(address), early);
        assert_eq!(slots.in_use().count(), 10 * FIRST);
        for (number, slot) in slots.in_use() {
            assert_eq!(slot.began.load(Ordering::Relaxed), number);
            assert_eq!(address(number), std::ptr::from_ref(slot) as usize);
        }
    }

    #[test]
    fn tables_come_only_when_they_are_needed() {
        let slots = Slots::default();
        let tables = || slots.more.iter().filter(|table| table.get().is_some()).count();
        for (in_use, expected) in [(FIRST, 0), (FIRST + 1, 1), (2 * FIRST, 1), (2 * FIRST + 1, 2)] {
            while slots.in_use().count() < in_use {
                slots.add().unwrap();
            }
            assert_eq!(tables(), expected, "{in_use}");
        }
    }

    #[test]
    fn the_last_number_has_a_slot_and_there_is_no_other() {
        assert_eq!(further(FIRST), (0, FIRST));
        assert_eq!(further(MOST - 1), (DOUBLINGS - 1, MOST / 2));
        let slots = Slots::default();
        slots.used.store(MOST - 1, Ordering::SeqCst);
        assert_eq!(slots.add(), Some(MOST as u32 - 1));
        slots.get(MOST as u32 - 1).began.store(7, Ordering::Relaxed);
        assert_eq!(slots.get(MOST as u32 - 1).began.load(Ordering::Relaxed), 7);
        assert_eq!(slots.add(), None);
        assert_eq!(slots.get(u32::MAX).generation.load(Ordering::Relaxed), 0, "it is not armed");
    }
}
