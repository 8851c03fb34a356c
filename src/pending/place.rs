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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_is_forgotten_by_another_connection_and_another_session() {
        let place = Place::default();
        for forget in [|place: &Place| place.change_hands(), |place: &Place| place.attempt(7)] {
            place.readonly.set(true);
            forget(&place);
            assert!(!place.readonly.get());
        }
        place.reach(9);
        assert_eq!((place.era.get(), place.since.get()), (7, 9));
    }
}
