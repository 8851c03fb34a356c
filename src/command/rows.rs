//! The built-in rows, by family, and the words in which they are written.
//!
//! Facts from the `COMMAND` replies of Redis 6.2, 7.0, 8.2 and Valkey 9.1, and for newer commands from Redis' published
//! command reference. `tests/command_table.rs` holds the rows against a real server. Each row departs from its
//! server's flags only on the side of care, and that test names each departure.

mod collections;
mod keyspace;
mod modules;
mod scripting;
mod server;
mod streams;
mod strings;

use super::keys::KeyUse::{Delete, Read, Update};
use super::keys::{KeyUse, Keys, Part};
use super::row::{Access, Cached, Fields, Kind, KindRule, Row, Shape};
use super::tells::Tells;
use std::borrow::Cow;

/// A row before it has its number.
#[derive(Clone, Copy)]
struct Spec {
    name: &'static str,
    arity: i32,
    access: Access,
    keys: Keys,
    kind: KindRule,
    cached: Cached,
    fields: Fields,
    tells: Tells,
}

/// All built-in rows, each id being the index.
pub(super) fn all() -> Vec<Row> {
    let families = [
        strings::ROWS,
        collections::ROWS,
        streams::ROWS,
        keyspace::ROWS,
        scripting::ROWS,
        server::ROWS,
        modules::ROWS,
    ];
    let row = |(id, spec): (u16, &Spec)| Row {
        id,
        name: Cow::Borrowed(spec.name),
        arity: spec.arity,
        access: spec.access,
        kind: spec.kind,
        cached: spec.cached,
        fields: spec.fields,
        tells: spec.tells,
        keys: spec.keys,
        shape: Shape::Command,
    };
    (0..).zip(families.concat().iter()).map(row).collect()
}

/// Touches no keys.
const fn plain(name: &'static str, arity: i32) -> Spec {
    Spec::new(name, arity, Access::None, NO_KEYS)
}

/// Reads the key at 1, unless the row says otherwise.
const fn read(name: &'static str, arity: i32) -> Spec {
    Spec::new(name, arity, Access::Read, Keys::one(Part::At(1, Read)))
}

/// Updates the key at 1, unless the row says otherwise.
const fn write(name: &'static str, arity: i32) -> Spec {
    Spec::new(name, arity, Access::Write, Keys::one(Part::At(1, Update)))
}

impl Spec {
    const fn new(name: &'static str, arity: i32, access: Access, keys: Keys) -> Self {
        let (kind, cached) = (KindRule::Always(Kind::Plain), Cached::Never);
        Self { name, arity, access, keys, kind, cached, fields: Fields::None, tells: Tells::Open }
    }

    const fn keys(self, keys: Keys) -> Self {
        Self { keys, ..self }
    }

    /// What its replies tell of the keys that it writes; if nothing is said, nothing.
    const fn tells(self, tells: Tells) -> Self {
        Self { tells, ..self }
    }

    const fn kind(self, kind: Kind) -> Self {
        Self { kind: KindRule::Always(kind), ..self }
    }

    const fn kind_rule(self, kind: KindRule) -> Self {
        Self { kind, ..self }
    }

    const fn cached(self, cached: Cached) -> Self {
        Self { cached, ..self }
    }

    /// A cached read of a hash, and the fields that it tells of.
    const fn of_fields(self, fields: Fields) -> Self {
        Self { cached: Cached::Single, fields, ..self }
    }
}

const NO_KEYS: Keys = Keys::one(Part::Nothing);
const UNKNOWN: Keys = Keys::one(Part::Unknown);
const EVERYTHING: Keys = Keys::one(Part::Everything);

const DELETED: Keys = at(1, Delete);
const SECOND_READ: Keys = at(2, Read);
const SECOND_UPDATED: Keys = at(2, Update);

const ALL_READ: Keys = range(1, -1, 1, Read);
const ALL_BUT_LAST_READ: Keys = range(1, -2, 1, Read);
const ALL_DELETED: Keys = range(1, -1, 1, Delete);
const ALL_BUT_LAST_UPDATED: Keys = range(1, -2, 1, Update);
const PAIRS_UPDATED: Keys = range(1, -1, 2, Update);
const TRIPLES_UPDATED: Keys = range(1, -1, 3, Update);

const BOTH_READ: Keys = two(Part::At(1, Read), Part::At(2, Read));
const BOTH_UPDATED: Keys = two(Part::At(1, Update), Part::At(2, Update));
const DELETED_TO_UPDATED: Keys = two(Part::At(1, Delete), Part::At(2, Update));
const READ_TO_UPDATED: Keys = two(Part::At(1, Read), Part::At(2, Update));
const UPDATED_FROM_READ: Keys = two(Part::At(1, Update), Part::At(2, Read));
const FIRST_UPDATED_REST_READ: Keys =
    two(Part::At(1, Update), Part::Range { first: 2, last: -1, step: 1, usage: Read });
const BITOP: Keys = two(Part::At(2, Update), Part::Range { first: 3, last: -1, step: 1, usage: Read });

const COUNTED_READ: Keys = Keys::one(counted(1, 1, Read));
const COUNTED_UPDATED: Keys = Keys::one(counted(1, 1, Update));
const COUNTED_PAIRS_UPDATED: Keys = Keys::one(counted(1, 2, Update));
const COUNTED_SECOND_READ: Keys = Keys::one(counted(2, 1, Read));
const COUNTED_SECOND_UPDATED: Keys = Keys::one(counted(2, 1, Update));
const SCRIPTED: Keys = two(counted(2, 1, Update), Part::Unknown);
const FIRST_UPDATED_COUNTED_READ: Keys = two(Part::At(1, Update), counted(2, 1, Read));

const STREAMS: Keys = Keys::one(Part::Streams);
const MIGRATE: Keys = Keys::one(Part::Migrate);
const BITFIELD: Keys = Keys::one(Part::Bitfield);
const PFCOUNT: Keys = Keys::one(Part::Pfcount);
const SORT: Keys = two(
    Part::At(1, Read),
    Part::After { from: 2, words: &["store"], skips: &[("limit", 2), ("get", 1), ("by", 1)] },
);
const GEORADIUS: Keys =
    two(Part::At(1, Read), Part::After { from: 5, words: &["store", "storedist"], skips: &[] });

const fn at(i: u8, usage: KeyUse) -> Keys {
    Keys::one(Part::At(i, usage))
}

const fn range(first: u16, last: i16, step: u16, usage: KeyUse) -> Keys {
    Keys::one(Part::Range { first, last, step, usage })
}

const fn counted(at: u8, step: u8, usage: KeyUse) -> Part {
    Part::Counted { at, step, usage }
}

const fn two(a: Part, b: Part) -> Keys {
    Keys([a, b])
}
