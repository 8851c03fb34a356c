//! A set of hash slots.

use super::slot::SLOTS;

const WORDS: usize = SLOTS / 64;

/// See the [module](self). 2 KB, wherever it stands.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotSet(Box<[u64; WORDS]>);

impl Default for SlotSet {
    fn default() -> Self {
        Self(Box::new([0; WORDS]))
    }
}

impl SlotSet {
    fn place(slot: u16) -> (usize, u64) {
        (usize::from(slot) / 64 % WORDS, 1 << (slot % 64))
    }

    pub fn insert(&mut self, slot: u16) {
        let (word, bit) = Self::place(slot);
        self.0[word] |= bit;
    }

    pub fn remove(&mut self, slot: u16) {
        let (word, bit) = Self::place(slot);
        self.0[word] &= !bit;
    }

    pub fn contains(&self, slot: u16) -> bool {
        let (word, bit) = Self::place(slot);
        self.0[word] & bit != 0
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Those that are in both.
    pub fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.0.iter_mut().zip(other.0.iter()).for_each(|(word, other)| *word &= other);
        both
    }

    /// Adds those of `other`.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(word, other)| *word |= other);
    }

    /// Those that are not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        let mut left = self.clone();
        left.0.iter_mut().zip(other.0.iter()).for_each(|(word, other)| *word &= !other);
        left
    }
}

impl FromIterator<u16> for SlotSet {
    fn from_iter<I: IntoIterator<Item = u16>>(slots: I) -> Self {
        let mut set = Self::default();
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }
}

impl std::fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} slots", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_is_in_it_or_not() {
        let mut set: SlotSet = [0, 63, 64, 16_383].into_iter().collect();
        assert_eq!(set.len(), 4);
        assert!([0, 63, 64, 16_383].iter().all(|slot| set.contains(*slot)));
        assert!([1, 62, 65, 16_382].iter().all(|slot| !set.contains(*slot)));
        set.remove(63);
        assert_eq!(set.without(&[0].into_iter().collect()), [64, 16_383].into_iter().collect());
        assert_eq!(set.and(&[0, 1].into_iter().collect()), [0].into_iter().collect());
        let mut both = set.clone();
        both.add(&[1, 64].into_iter().collect());
        assert_eq!(both, [0, 1, 64, 16_383].into_iter().collect());
        assert!(SlotSet::default().is_empty() && !set.is_empty());
    }
}
