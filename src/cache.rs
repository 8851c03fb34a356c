//! The near cache: replies under their keys, and the rules by which they may be served.
//!
//! It sees bytes, never RESP. Invariants:
//!
//! - **Fill race closed.** A [`Lease`] remembers its coverage and its key's invalidation generation, and a
//!   reply fills the cache only if both are unchanged. An invalidation bumps the generation even when
//!   the key is not cached. A write executes upstream before the leased read (the reply has the new value)
//!   or after it (the invalidation voids the lease, or drops the entry). Generations are striped: a
//!   collision costs one refill, never a stale entry.
//! - **Fences.** From [`Cache::fence`] until the [`Fence`] is dropped, its keys have no entry, no hit and no
//!   new lease but that of the write's own read, sent behind it. All this is done under the shard's lock, so no lookup sees half of it.
//! - **Barrier.** What was read before something that may have changed any key is not served until the upstream
//!   has told what that was. See [`barrier`].
//! - **Coverage.** An entry is served only while its coverage stands and its watermark is not older than
//!   `max-staleness`. See [`coverage`].
//! - **Single flight.** Lookups of a reply that is being fetched join its flight; the fill serves them all.
//!   Waiters are handed back (`released`) when the lease is voided or dropped: nobody is forgotten.
//! - **Registration.** Where the upstream tells of changes of registered keys only, the lease is taken before its key is
//!   registered, and the read is sent after: see [`Lease::is_registered`].
//! - **Echoes.** Our own announcements, coming back, do not void what was read after the write. See [`echo`].
//! - **Monotonic.** When a reply was read past the cache, older entries and older flights of its key go
//!   ([`Cache::note_bypass`]).
//! - Memory: the sum of the entries' costs stays within `max_bytes`, except for the one entry being added; when it
//!   is set to less, it comes down bit by bit.
//!
//! `request` looks up, leases and fences; `pending` fills; `feed` invalidates.
//!
//! Locks: one short mutex for each shard. Nothing of ours is called while one is held, except the two
//! closures of [`Cache::lookup`], which must not call back. Waiters are told after the lock is released.

mod barrier;
mod budget;
mod cover;
mod coverage;
mod echo;
mod entry;
mod entry_key;
mod evict;
mod fence;
mod flights;
mod group;
mod hear;
mod id;
mod invalidate;
mod lease;
mod lookup;
mod reason;
mod refresh;
mod shards;
mod show;
mod slots;
mod standing;
mod store;
mod stripe;
#[cfg(test)]
mod tests;
mod void;

pub use cover::Cover;
pub use coverage::{CoverageId, CoverageSlot, Coverages, Micros, ValidUnder};
pub use entry::Expiry;
pub use entry_key::{By, EntryKey, EntryKeyBuf, MAX_ARGS, MAX_KEY};
pub use fence::Fence;
pub use flights::Waiter;
pub use id::{IdentId, LinkId, NO_IDENT, NO_LINK};
pub use lease::{Ahead, Lease};
pub use lookup::{Bounds, Lookup};
pub use reason::{Class, Reason};
pub use refresh::Wanted;
pub use shards::Cache;
pub use show::{CachedReply, Description, GroupStats, Sample, Stats};
