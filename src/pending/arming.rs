//! What stands between a link and its tracking.

use std::cell::{Cell, RefCell};

use crate::cache::{CoverageId, Coverages};

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Arming {
    /// The upstream's refusal to track it, if that was its last word.
    pub refusal: RefCell<Option<Box<str>>>,
    /// Whether it leads to the feed's server is not known: the answer was put off.
    pub unsure: Cell<bool>,
    /// The feed whose server it leads to, as far as that can be known.
    pub leads_to: Cell<Option<CoverageId>>,
    /// How often in a row it was asked in vain.
    pub turns: Cell<u32>,
    /// It is going to be asked again.
    pub due: Cell<bool>,
}

impl Arming {
    /// The connection is gone, and what was put off with it.
    pub fn forget(&self) {
        self.unsure.set(false);
        self.turns.set(0);
    }

    /// Whether it leads to the server of the feed that stands now.
    pub fn leads_to_feed(&self, coverages: &Coverages) -> bool {
        self.leads_to.get().is_some_and(|feed| coverages.goes_on(feed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_off_is_forgotten_with_its_connection_and_a_refusal_is_not() {
        let arming = Arming::default();
        arming.unsure.set(true);
        arming.turns.set(3);
        arming.refusal.replace(Some("no".into()));
        arming.forget();
        assert!(!arming.unsure.get() && arming.turns.get() == 0 && arming.refusal.borrow().is_some());
    }
}
