//! The hash slots that are a node's own, as far as it is proven: by its own word, with each heartbeat of its feed, and as long
//! as no other node says otherwise with a newer epoch.
//!
//! Invariants:
//! - A hash slot is the node's own if the node has said so, it is not on its way to or from another, the node is a master, and
//!   it says that its cluster takes requests. Of a node that has not spoken yet nothing is. While the cluster takes none it
//!   keeps what it had if it hears most of the masters, and gets nothing: see [`ownership`](super::ownership).
//! - **The order in which it loses one**: first it has it no more, so no lease is given for its keys; then what was read of
//!   these keys is voided, beside whoever noticed; and until that is done nothing is proven of the node
//!   ([`Owned::is_voiding`]), so no watermark moves on over an entry that the loss concerns.
//! - What others say against a node stands until they say otherwise, or the node's own epoch is as new as what they told.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::node_id::NodeId;
use crate::cache::Micros;
use crate::resp::SlotSet;

/// See the [module](self).
#[derive(Default)]
pub struct Owned {
    /// What is its own now; `None` if nothing is.
    slots: ArcSwapOption<SlotSet>,
    said: Mutex<Said>,
    /// Losses of which the keys are not all void yet.
    voiding: AtomicU32,
    /// When what it said last was asked, at the earliest; 0 if it has said nothing.
    proven: AtomicU64,
}

/// What was said of it.
#[derive(Default)]
struct Said {
    /// The last account of its own, as far as that tells anything; empty if it is to be heard anew.
    heard: Vec<u8>,
    epoch: u64,
    /// What others say that it has no more, and with which epoch at least.
    against: HashMap<NodeId, (SlotSet, u64)>,
    /// Who does not know it for a master that is well.
    doubters: HashSet<NodeId>,
}

/// What a node has said of itself.
pub(super) struct Account {
    pub(super) slots: SlotSet,
    /// Of these it may have only what it had.
    pub(super) keeps: bool,
    pub(super) epoch: u64,
}

impl Owned {
    /// Whether the hash slot is its own.
    #[inline]
    pub fn has(&self, slot: u16) -> bool {
        self.slots.load().as_ref().is_some_and(|slots| slots.contains(slot))
    }

    /// How many are.
    pub fn len(&self) -> usize {
        self.slots.load().as_ref().map_or(0, |slots| slots.len())
    }

    /// Whether keys of hash slots that it has lost may still be cached: then nothing is proven.
    pub fn is_voiding(&self) -> bool {
        self.voiding.load(Ordering::SeqCst) > 0
    }

    /// The keys of a loss are void.
    pub(super) fn voided(&self) {
        self.voiding.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether this is what it said last. If not, it is remembered.
    pub(super) fn has_said(&self, heard: &[u8]) -> bool {
        let mut said = self.said.lock();
        let same = said.heard == heard;
        if !same {
            said.heard.clear();
            said.heard.extend_from_slice(heard);
        }
        same
    }

    /// Notes its own account. Gives what it lost: the keys of that are to be voided, and [`Owned::voided`] said then.
    pub(super) fn account(&self, account: Account) -> Option<SlotSet> {
        let mut said = self.said.lock();
        said.epoch = account.epoch;
        said.against.retain(|_, (slots, epoch)| {
            // It knows itself, or it has got them anew.
            *slots = slots.and(&account.slots);
            *epoch > account.epoch && !slots.is_empty()
        });
        let mut slots = said.against.values().fold(account.slots, |slots, (lost, _)| slots.without(lost));
        if account.keeps {
            slots = self.slots.load().as_ref().map(|had| had.and(&slots)).unwrap_or_default();
        }
        self.become_owner_of(slots)
    }

    /// Its epoch, by its own last account.
    pub(super) fn epoch(&self) -> u64 {
        self.said.lock().epoch
    }

    /// Notes all that another node says against it, by that one's newest word. Likewise.
    pub(super) fn contradict(&self, by: NodeId, lost: SlotSet, epoch: u64) -> Option<SlotSet> {
        let mut said = self.said.lock();
        if lost.is_empty() {
            // What is not against it any more is its own again when it has said so itself.
            if said.against.remove(&by).is_some() {
                said.heard.clear();
            }
            return None;
        }
        said.heard.clear();
        let left = self.slots.load().as_ref().map(|slots| slots.without(&lost)).unwrap_or_default();
        said.against.insert(by, (lost, epoch));
        self.become_owner_of(left)
    }

    /// It has spoken for itself, up to then.
    pub(super) fn prove(&self, at: Micros) {
        self.proven.fetch_max(at, Ordering::SeqCst);
    }

    pub(super) fn proven(&self) -> Micros {
        self.proven.load(Ordering::SeqCst)
    }

    /// Whether another knows it for a master that is well.
    pub(super) fn doubt(&self, by: NodeId, doubts: bool) {
        let doubters = &mut self.said.lock().doubters;
        let _ = if doubts { doubters.insert(by) } else { doubters.remove(&by) };
    }

    pub(super) fn doubters(&self) -> HashSet<NodeId> {
        self.said.lock().doubters.clone()
    }

    /// Whether others contradict it.
    pub(super) fn is_contradicted(&self) -> bool {
        !self.said.lock().against.is_empty()
    }

    /// Forgets what was said by those that `is_gone` accepts.
    pub(super) fn forget(&self, is_gone: impl Fn(NodeId) -> bool) {
        let mut said = self.said.lock();
        let before = said.against.len();
        said.against.retain(|by, _| !is_gone(*by));
        if said.against.len() < before {
            said.heard.clear();
        }
    }

    /// The topology says that these are not its own; until it says itself again that they are. Likewise.
    pub(super) fn lose(&self, slots: &SlotSet) -> Option<SlotSet> {
        let mut said = self.said.lock();
        said.heard.clear();
        let left = self.slots.load().as_ref().map(|mine| mine.without(slots)).unwrap_or_default();
        self.become_owner_of(left)
    }

    /// The caller holds the lock.
    fn become_owner_of(&self, slots: SlotSet) -> Option<SlotSet> {
        // Counted before they are lost: whoever sees no loss sees the count, or that all is done.
        self.voiding.fetch_add(1, Ordering::SeqCst);
        let slots = (!slots.is_empty()).then(|| std::sync::Arc::new(slots));
        let before = self.slots.swap(slots.clone());
        let lost = before.map(|before| match slots {
            Some(slots) => before.without(&slots),
            None => (*before).clone(),
        });
        let lost = lost.filter(|lost| !lost.is_empty());
        if lost.is_none() {
            self.voided();
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<const N: usize>(slots: [u16; N]) -> SlotSet {
        slots.into_iter().collect()
    }

    fn says<const N: usize>(owned: &Owned, slots: [u16; N], epoch: u64) -> Option<SlotSet> {
        owned.account(Account { slots: set(slots), keeps: false, epoch })
    }

    #[test]
    fn what_is_lost_is_told_once_and_nothing_is_proven_until_it_is_void() {
        let owned = Owned::default();
        assert!(!owned.has(1) && !owned.is_voiding());
        assert_eq!(says(&owned, [1, 2, 3], 1), None);
        assert!(owned.has(1) && !owned.has(4) && !owned.is_voiding());
        assert_eq!(says(&owned, [2, 3, 4], 1), Some(set([1])));
        assert!(!owned.has(1) && owned.is_voiding());
        assert_eq!(says(&owned, [2, 3, 4], 1), None);
        assert!(owned.is_voiding());
        owned.voided();
        assert!(!owned.is_voiding());
        assert_eq!(owned.lose(&set([4, 5])), Some(set([4])));
        let keeps = Account { slots: set([1, 3]), keeps: true, epoch: 1 };
        assert_eq!(owned.account(keeps), Some(set([2])));
        assert!(owned.has(3) && !owned.has(1));
        assert_eq!(says(&owned, [], 1), Some(set([3])));
    }

    #[test]
    fn who_is_contradicted_has_it_not_until_the_other_says_so_or_it_has_a_newer_epoch() {
        let (owned, other) = (Owned::default(), NodeId(1));
        says(&owned, [1, 2], 5);
        assert_eq!(owned.contradict(other, set([2]), 6), Some(set([2])));
        assert_eq!(says(&owned, [1, 2], 5), None, "it does not know yet");
        assert!(owned.has(1) && !owned.has(2) && owned.is_contradicted());
        assert_eq!(owned.contradict(other, set([]), 0), None);
        says(&owned, [1, 2], 5);
        assert!(owned.has(2) && !owned.is_contradicted());
        owned.contradict(other, set([2]), 6);
        says(&owned, [1, 2], 6);
        assert!(owned.has(2), "it has got it anew");
        owned.contradict(other, set([2]), 7);
        says(&owned, [1], 6);
        says(&owned, [1, 2], 6);
        assert!(owned.has(2), "it has lost it, and got it back");
        owned.contradict(other, set([1, 2]), 7);
        owned.forget(|by| by == other);
        says(&owned, [1, 2], 6);
        assert!(owned.has(1) && owned.has(2), "who is gone contradicts nobody");
    }

    #[test]
    fn what_was_said_is_heard_anew_when_something_else_took_from_it() {
        let owned = Owned::default();
        assert!(!owned.has_said(b"a") && owned.has_said(b"a") && !owned.has_said(b"b"));
        owned.lose(&set([1]));
        assert!(!owned.has_said(b"b"));
        owned.contradict(NodeId(1), set([]), 0);
        assert!(owned.has_said(b"b"), "nothing was");
        owned.contradict(NodeId(1), set([1]), 9);
        assert!(!owned.has_said(b"b") && owned.has_said(b"b"));
        owned.contradict(NodeId(1), set([]), 9);
        assert!(!owned.has_said(b"b"));
    }
}
