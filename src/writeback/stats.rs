//! What a write-back namespace has done so far.

use crate::metrics::{Counter, Seldom};

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Stats {
    /// Writes that were taken here, and those of them whose key was dirty already.
    pub acknowledged: Counter,
    pub coalesced: Counter,
    /// Writes that could have been taken, and went through; and those that the journal had no room for.
    pub through: Counter,
    pub full: Counter,
    /// Flushes that were done, refused, and of which the reply was lost.
    pub flushes: Counter,
    pub refused: Counter,
    pub unknown: Counter,
    /// Flushes that found something else upstream, and those of them that went into the conflict log.
    pub conflicts: Counter,
    pub lost: Counter,
    /// Commits of the journal, how many keys were in them, and those that failed.
    pub commits: Counter,
    pub committed: Counter,
    pub journal_failures: Counter,
    /// Bytes that the journal takes on the disk.
    pub journal_bytes: Counter,
    pub refused_told: Seldom,
    pub conflicts_told: Seldom,
    pub full_told: Seldom,
    pub journal_told: Seldom,
}
