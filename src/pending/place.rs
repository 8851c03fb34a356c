//! Where a connection leads, as far as it is known.

use std::cell::Cell;

use crate::cache::Micros;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Place {
    /// When the connection was made.
    pub since: Cell<Micros>,
    /// The era in which that was begun: see [`Role`](crate::process::Role).
    pub era: Cell<u64>,
    /// It has said that its server takes no writes.
    pub readonly: Cell<bool>,
}

impl Place {
    /// A connection is about to be made.
    pub fn attempt(&self, era: u64) {
        self.era.set(era);
        self.readonly.set(false);
    }

    /// It stands.
    pub fn reach(&self, now: Micros) {
        self.since.set(now);
    }

    /// Another session has it now: what it hears is not yet said.
    pub fn change_hands(&self) {
        self.readonly.set(false);
    }
}
