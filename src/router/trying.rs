//! Links of identities that the upstream has not taken yet.

use std::num::NonZeroUsize;

use lru::LruCache;

use super::key::LinkKey;
use crate::pending::Link;
use crate::process::{Ident, NodeId};

/// Identities that are tried at a time, or were just refused. One that was is not tried again before its link's delay is
/// over.
const MAX_TRIED: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// See the [module](self).
pub struct Trying(LruCache<(NodeId, Ident), (LinkKey, Link)>);

impl Default for Trying {
    fn default() -> Self {
        Self(LruCache::new(MAX_TRIED))
    }
}

impl Trying {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whoever waits for one is to go to another link then.
    pub fn be_replaced(&mut self) {
        self.0.iter().for_each(|(_, (_, link))| link.client().be_replaced());
        self.0.clear();
    }

    pub fn get(&mut self, key: &LinkKey) -> Option<Link> {
        let tried = self.0.get(&(key.node.id, key.ident.clone()))?;
        Some(tried).filter(|(known, _)| known.is(key)).map(|(_, link)| link.clone())
    }

    pub fn put(&mut self, key: &LinkKey, link: &Link) {
        self.0.put((key.node.id, key.ident.clone()), (key.clone(), link.clone()));
    }

    pub fn forget(&mut self, link: &Link) {
        self.forget_if(|known| known.is(link));
    }

    /// Closes those that stand though nobody waits for that any more.
    pub fn drop_unused(&mut self) {
        self.forget_if(|link| link.is_up() && !link.is_shared());
    }

    fn forget_if(&mut self, is: impl Fn(&Link) -> bool) {
        let found = self.0.iter().filter(|(_, (_, link))| is(link)).map(|(of, _)| of.clone());
        for of in found.collect::<Vec<_>>() {
            self.0.pop(&of);
        }
    }
}
