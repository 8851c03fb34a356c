//! What goes into the journal in one step, and what comes out of it at the start.

use bytes::Bytes;

use super::frame::Item;

/// What is written in one step: all of it, or nothing. In this order, should a key stand in two places.
#[derive(Debug, Default)]
pub struct Batch {
    /// Keys and their new records.
    pub puts: Vec<(Box<[u8]>, Bytes)>,
    /// Keys whose records are needed no more.
    pub removes: Vec<Box<[u8]>>,
    /// New entries of the conflict log, by id.
    pub conflicts: Vec<(u64, Bytes)>,
    /// Entries that are taken out of the conflict log.
    pub cleared: Vec<u64>,
}

impl Batch {
    pub(super) fn items(&self) -> impl Iterator<Item = Item<'_>> {
        let puts = self.puts.iter().map(|(key, record)| Item::Put { key, record });
        let removes = self.removes.iter().map(|key| Item::Remove { key });
        let conflicts = self.conflicts.iter().map(|(id, entry)| Item::Conflict { id: *id, entry });
        puts.chain(removes).chain(conflicts).chain(self.cleared.iter().map(|id| Item::Cleared { id: *id }))
    }
}

/// What the journal held, in the order in which it was written.
#[derive(Debug, Default)]
pub struct Loaded {
    pub records: Vec<(Box<[u8]>, Bytes)>,
    pub conflicts: Vec<(u64, Bytes)>,
    /// Bytes of a torn tail that were dropped.
    pub dropped: u64,
}

impl Loaded {
    /// Takes a copy of what is live.
    pub(super) fn push(&mut self, item: &Item<'_>) {
        match *item {
            Item::Put { key, record } => self.records.push((key.into(), Bytes::copy_from_slice(record))),
            Item::Conflict { id, entry } => self.conflicts.push((id, Bytes::copy_from_slice(entry))),
            Item::Remove { .. } | Item::Cleared { .. } => {}
        }
    }
}
