//! The words in which the built-in rows are written.

pub(super) use super::super::row::{Cached, Fields, Kind, KindRule};
pub(super) use super::super::tells::Tells;

pub(super) use super::super::policy::{Asks, Gives};

use super::super::keys::KeyUse::{Delete, Read, Update};
use super::super::keys::{KeyUse, Keys, Part};
use super::super::policy::Policy;
use super::super::row::Access;

/// A row before it has its number.
#[derive(Clone, Copy)]
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) arity: i32,
    pub(super) access: Access,
    pub(super) keys: Keys,
    pub(super) kind: KindRule,
    pub(super) cached: Cached,
    pub(super) fields: Fields,
    pub(super) tells: Tells,
    pub(super) policy: Policy,
}

/// Touches no keys.
pub(super) const fn plain(name: &'static str, arity: i32) -> Spec {
    Spec::new(name, arity, Access::None, NO_KEYS)
}

/// Reads the key at 1, unless the row says otherwise.
pub(super) const fn read(name: &'static str, arity: i32) -> Spec {
    Spec::new(name, arity, Access::Read, Keys::one(Part::At(1, Read)))
}

/// Updates the key at 1, unless the row says otherwise.
pub(super) const fn write(name: &'static str, arity: i32) -> Spec {
    Spec::new(name, arity, Access::Write, Keys::one(Part::At(1, Update)))
}

impl Spec {
    const fn new(name: &'static str, arity: i32, access: Access, keys: Keys) -> Self {
        let (kind, cached) = (KindRule::Always(Kind::Plain), Cached::Never);
        Self {
            name,
            arity,
            access,
            keys,
            kind,
            cached,
            fields: Fields::None,
            tells: Tells::Open,
            policy: Policy::DEFAULT,
        }
    }

    pub(super) const fn keys(self, keys: Keys) -> Self {
        Self { keys, ..self }
    }

    /// What its replies tell of the keys that it writes; if nothing is said, nothing.
    pub(super) const fn tells(self, tells: Tells) -> Self {
        Self { tells, ..self }
    }

    pub(super) const fn kind(self, kind: Kind) -> Self {
        Self { kind: KindRule::Always(kind), ..self }
    }

    pub(super) const fn kind_rule(self, kind: KindRule) -> Self {
        Self { kind, ..self }
    }

    pub(super) const fn cached(self, cached: Cached) -> Self {
        Self { cached, ..self }
    }

    /// In a cluster it concerns all nodes, and what they reply comes to that.
    pub(super) const fn all(self, gives: Gives) -> Self {
        self.asks(Asks::All, gives)
    }

    /// In a cluster it may be cut by the hash slots of its keys.
    pub(super) const fn split(self, gives: Gives) -> Self {
        self.asks(Asks::MultiShard, gives)
    }

    pub(super) const fn asks(self, asks: Asks, gives: Gives) -> Self {
        Self { policy: Policy { asks, gives }, ..self }
    }

    /// In a cluster it goes to one node, whatever the server says.
    pub(super) const fn one(self) -> Self {
        self.asks(Asks::One, Gives::Default)
    }

    /// A cached read of a hash, and the fields that it tells of.
    pub(super) const fn of_fields(self, fields: Fields) -> Self {
        Self { cached: Cached::Single, fields, ..self }
    }
}

pub(super) const NO_KEYS: Keys = Keys::one(Part::Nothing);
pub(super) const UNKNOWN: Keys = Keys::one(Part::Unknown);
pub(super) const EVERYTHING: Keys = Keys::one(Part::Everything);

pub(super) const DELETED: Keys = at(1, Delete);
pub(super) const SECOND_READ: Keys = at(2, Read);
pub(super) const SECOND_UPDATED: Keys = at(2, Update);

pub(super) const ALL_READ: Keys = range(1, -1, 1, Read);
pub(super) const ALL_BUT_LAST_READ: Keys = range(1, -2, 1, Read);
pub(super) const ALL_DELETED: Keys = range(1, -1, 1, Delete);
pub(super) const ALL_BUT_LAST_UPDATED: Keys = range(1, -2, 1, Update);
pub(super) const PAIRS_UPDATED: Keys = range(1, -1, 2, Update);
pub(super) const TRIPLES_UPDATED: Keys = range(1, -1, 3, Update);

pub(super) const BOTH_READ: Keys = two(Part::At(1, Read), Part::At(2, Read));
pub(super) const BOTH_UPDATED: Keys = two(Part::At(1, Update), Part::At(2, Update));
pub(super) const DELETED_TO_UPDATED: Keys = two(Part::At(1, Delete), Part::At(2, Update));
pub(super) const READ_TO_UPDATED: Keys = two(Part::At(1, Read), Part::At(2, Update));
pub(super) const UPDATED_FROM_READ: Keys = two(Part::At(1, Update), Part::At(2, Read));
pub(super) const FIRST_UPDATED_REST_READ: Keys =
    two(Part::At(1, Update), Part::Range { first: 2, last: -1, step: 1, usage: Read });
pub(super) const BITOP: Keys =
    two(Part::At(2, Update), Part::Range { first: 3, last: -1, step: 1, usage: Read });

pub(super) const COUNTED_READ: Keys = Keys::one(counted(1, 1, Read));
pub(super) const COUNTED_UPDATED: Keys = Keys::one(counted(1, 1, Update));
pub(super) const COUNTED_PAIRS_UPDATED: Keys = Keys::one(counted(1, 2, Update));
pub(super) const COUNTED_SECOND_READ: Keys = Keys::one(counted(2, 1, Read));
pub(super) const COUNTED_SECOND_UPDATED: Keys = Keys::one(counted(2, 1, Update));
pub(super) const SCRIPTED: Keys = two(counted(2, 1, Update), Part::Unknown);
pub(super) const FIRST_UPDATED_COUNTED_READ: Keys = two(Part::At(1, Update), counted(2, 1, Read));

pub(super) const STREAMS: Keys = Keys::one(Part::Streams);
pub(super) const MIGRATE: Keys = Keys::one(Part::Migrate);
pub(super) const BITFIELD: Keys = Keys::one(Part::Bitfield);
pub(super) const PFCOUNT: Keys = Keys::one(Part::Pfcount);
pub(super) const SORT: Keys = two(
    Part::At(1, Read),
    Part::After { from: 2, words: &["store"], skips: &[("limit", 2), ("get", 1), ("by", 1)] },
);
pub(super) const GEORADIUS: Keys =
    two(Part::At(1, Read), Part::After { from: 5, words: &["store", "storedist"], skips: &[] });

pub(super) const fn at(i: u8, usage: KeyUse) -> Keys {
    Keys::one(Part::At(i, usage))
}

pub(super) const fn range(first: u16, last: i16, step: u16, usage: KeyUse) -> Keys {
    Keys::one(Part::Range { first, last, step, usage })
}

const fn counted(at: u8, step: u8, usage: KeyUse) -> Part {
    Part::Counted { at, step, usage }
}

const fn two(a: Part, b: Part) -> Keys {
    Keys([a, b])
}
