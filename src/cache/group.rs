//! Groups: keys that begin alike, and of which is counted apart. Group 0 is all others.
//!
//! Invariants:
//! - A key is always of the same group, so what an entry takes is given back to the group that it was taken for, and the
//!   groups' bytes come to those of all entries.
//! - A hit only adds to a number that stands beside its shard's entries, as it did before there were groups: who looks up
//!   knows the group, since it knows the key's namespace anyway. Fills and drops find it by the key.

use std::sync::Arc;

/// With what the keys of each group but group 0 begin; none of them with what another does.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups(Arc<[Box<[u8]>]>);

/// What lookups have come to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) hits: u64,
    pub(super) stale_hits: u64,
    pub(super) misses: u64,
}

/// A number of each group.
#[derive(Debug)]
pub(super) struct PerGroup<T> {
    others: T,
    apart: Box<[T]>,
}

impl Groups {
    pub(super) fn new<'p>(prefixes: impl IntoIterator<Item = &'p [u8]>) -> Self {
        Self(prefixes.into_iter().map(Box::from).collect())
    }

    /// The group of this key.
    pub(super) fn of(&self, key: &[u8]) -> usize {
        self.0.iter().position(|prefix| key.starts_with(prefix)).map_or(0, |i| i + 1)
    }

    pub(super) fn each<T: Clone + Default>(&self) -> PerGroup<T> {
        PerGroup { others: T::default(), apart: vec![T::default(); self.0.len()].into() }
    }
}

impl<T> PerGroup<T> {
    /// That of this group; one that there is not is group 0.
    #[inline(always)]
    pub(super) fn of(&mut self, group: usize) -> &mut T {
        match self.apart.get_mut(group.wrapping_sub(1)) {
            Some(one) => one,
            None => &mut self.others,
        }
    }

    /// Group 0 comes first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        [&self.others].into_iter().chain(&self.apart)
    }
}
