//! Which scripts the server of a link was told of on it.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use crate::process::Digest;

/// How many are noted; beyond that all may be told once more.
const MOST: usize = 4096;

/// See the [module](self).
#[derive(Default)]
pub struct Told {
    scripts: RefCell<HashSet<Digest>>,
    /// When all were flushed last.
    era: Cell<u64>,
}

impl Told {
    /// Notes one in this era; false if it was already.
    pub fn add(&self, script: Digest, era: u64) -> bool {
        let mut scripts = self.scripts.borrow_mut();
        if self.era.replace(era) != era || scripts.len() == MOST {
            scripts.clear();
        }
        scripts.insert(script)
    }

    /// The server was not told, or has forgotten it.
    pub fn forget_one(&self, script: &Digest) {
        self.scripts.borrow_mut().remove(script);
    }

    /// Likewise of all. False if it was told of none.
    pub fn forget(&self) -> bool {
        !std::mem::take(&mut *self.scripts.borrow_mut()).is_empty()
    }
}
