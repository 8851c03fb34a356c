//! Identities: for whom a reply is read, and the number by which the cache knows them.
//!
//! Invariants: a number is never given twice, so what was cached for one identity is never another's, however many
//! there were in between. As many are known as were lately in use, up to a bound; one that was forgotten gets a new number
//! when it comes back, and what is cached under its old one is found by nobody and makes room like any entry.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;

use crate::cache::{IdentId, NO_IDENT};
use crate::resp::Protocol;

/// How many are known at a time.
const MAX: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// For whom a reply was read: a part of its name in the cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ident {
    pub db: u32,
    pub protocol: Protocol,
    /// `None` is nearside's own login.
    pub user: Option<Vec<u8>>,
}

/// Numbers for [`Ident`]s.
pub struct Idents(Mutex<Known>);

struct Known {
    numbers: LruCache<Ident, IdentId>,
    idents: HashMap<IdentId, Ident>,
    next: u32,
}

impl Default for Idents {
    fn default() -> Self {
        Self(Mutex::new(Known { numbers: LruCache::new(MAX), idents: HashMap::new(), next: 0 }))
    }
}

impl Idents {
    /// The identity's number; [`NO_IDENT`], under which nothing is cached, once there are none left.
    pub fn number(&self, ident: &Ident) -> IdentId {
        let mut known = self.0.lock();
        if let Some(number) = known.numbers.get(ident) {
            return *number;
        }
        let number = IdentId(known.next);
        if number == NO_IDENT {
            return NO_IDENT;
        }
        known.next += 1;
        if let Some((_, forgotten)) = known.numbers.push(ident.clone(), number) {
            known.idents.remove(&forgotten);
        }
        known.idents.insert(number, ident.clone());
        number
    }

    /// The number of an identity that has one.
    pub fn known(&self, ident: &Ident) -> Option<IdentId> {
        self.0.lock().numbers.get(ident).copied()
    }

    pub fn get(&self, number: IdentId) -> Option<Ident> {
        self.0.lock().idents.get(&number).cloned()
    }

    /// How many are known.
    pub fn count(&self) -> usize {
        self.0.lock().numbers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ident(db: u32) -> Ident {
        Ident { db, protocol: Protocol::Resp2, user: None }
    }

    #[test]
    fn every_identity_has_its_own_number() {
        let idents = Idents::default();
        let base = Ident { db: 0, protocol: Protocol::Resp2, user: None };
        let others = [
            Ident { db: 1, ..base.clone() },
            Ident { protocol: Protocol::Resp3, ..base.clone() },
            Ident { user: Some(b"alice".to_vec()), ..base.clone() },
            Ident { user: Some(b"bob".to_vec()), ..base.clone() },
        ];
        let first = idents.number(&base);
        for (i, other) in others.iter().enumerate() {
            let number = IdentId(i as u32 + 1);
            assert_eq!(idents.number(other), number);
            assert_eq!(idents.get(number).as_ref(), Some(other));
        }
        assert_eq!(idents.number(&base), first);
    }

    #[test]
    fn they_are_bounded_and_no_number_comes_again() {
        let idents = Idents::default();
        let first = idents.number(&ident(0));
        let most = MAX.get() as u32;
        for db in 1..2 * most {
            // One that is in use all the time is not forgotten.
            assert_eq!((idents.number(&ident(db)), idents.number(&ident(0))), (IdentId(db), first));
        }
        assert_eq!(idents.count(), MAX.get());
        assert_eq!((idents.known(&ident(1)), idents.get(IdentId(1))), (None, None));
        assert_eq!(idents.number(&ident(1)), IdentId(2 * most));
        assert_eq!(idents.get(IdentId(2 * most)), Some(ident(1)));
    }

    #[test]
    fn when_all_numbers_are_used_up_there_is_none() {
        let idents = Idents::default();
        idents.0.lock().next = u32::MAX - 1;
        let last = idents.number(&ident(1));
        assert_eq!([2, 3].map(|db| idents.number(&ident(db))), [NO_IDENT; 2]);
        assert!(last != NO_IDENT && idents.number(&ident(1)) == last);
    }
}
