//! Where in the file each thing stands that is still needed.

use std::collections::HashMap;

use super::frame::{FRAME_HEAD, Item};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Live {
    records: HashMap<Box<[u8]>, Place>,
    conflicts: HashMap<u64, Place>,
    bytes: u64,
}

/// Where an item stands, and what it takes in a frame of its own.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: u64,
    length: u64,
}

impl Live {
    /// What a file would take that holds nothing else, in bytes, but for its head.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Notes an item that stands at `at`.
    pub fn apply(&mut self, item: &Item<'_>, at: u64) {
        let place = Place { at, length: FRAME_HEAD as u64 + item.length() };
        let gone = match *item {
            Item::Put { key, .. } => match self.records.get_mut(key) {
                Some(old) => Some(std::mem::replace(old, place)),
                None => self.records.insert(key.into(), place),
            },
            Item::Conflict { id, .. } => self.conflicts.insert(id, place),
            Item::Remove { key } => self.records.remove(key),
            Item::Cleared { id } => self.conflicts.remove(&id),
        };
        self.bytes -= gone.map_or(0, |gone| gone.length);
        if matches!(item, Item::Put { .. } | Item::Conflict { .. }) {
            self.bytes += place.length;
        }
    }

    /// Whether the item at `at` is still needed.
    pub fn needs(&self, item: &Item<'_>, at: u64) -> bool {
        let place = match *item {
            Item::Put { key, .. } => self.records.get(key),
            Item::Conflict { id, .. } => self.conflicts.get(&id),
            Item::Remove { .. } | Item::Cleared { .. } => None,
        };
        place.is_some_and(|place| place.at == at)
    }
}
