//! Links that log in, for those who have just given a login.

use super::key::LinkKey;
use crate::pending::Link;

/// See the [module](self).
#[derive(Default)]
pub struct Fresh(Vec<(LinkKey, Link)>);

impl Fresh {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// One that logs in with the very same, and has not failed.
    pub fn get(&mut self, key: &LinkKey) -> Option<Link> {
        // Nobody waits any more for one that nobody else holds.
        self.0.retain(|(_, link)| link.is_shared());
        let found = self.0.iter().find(|(known, link)| known.is(key) && !link.is_down());
        found.map(|(_, link)| link.clone())
    }

    pub fn put(&mut self, key: &LinkKey, link: &Link) {
        self.0.push((key.clone(), link.clone()));
    }

    pub fn forget(&mut self, link: &Link) {
        self.0.retain(|(_, known)| !known.is(link));
    }

    /// Whoever waits for one is to go to another link then.
    pub fn be_replaced(&mut self) {
        self.0.drain(..).for_each(|(_, link)| link.client().be_replaced());
    }
}
