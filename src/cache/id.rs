//! Numbers of links and identities.
//!
//! Invariants: the number of a link never comes again in the life of the process. Flights and echoes outlive
//! links, and trust that what has the same number is the same connection.

use std::sync::atomic::{AtomicU32, Ordering};

/// The number of an upstream link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkId(pub u32);

/// A link whose order relative to others is not known.
pub const NO_LINK: LinkId = LinkId(0);

impl LinkId {
    /// One that was never given out; [`NO_LINK`] once there are none left.
    pub fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let given = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| next.checked_add(1));
        given.map_or(NO_LINK, LinkId)
    }
}

/// The number of a (user, database, protocol), a part of a reply's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdentId(pub u32);

/// Somebody without a number: nothing is kept for them.
pub const NO_IDENT: IdentId = IdentId(u32::MAX);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_number_of_a_link_comes_again() {
        let numbers: HashSet<LinkId> = (0..70_000).map(|_| LinkId::next()).collect();
        assert_eq!(numbers.len(), 70_000);
        assert!(!numbers.contains(&NO_LINK));
    }
}
