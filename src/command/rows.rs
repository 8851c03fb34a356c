//! The built-in rows, by family.
//!
//! Facts from the `COMMAND` replies of Redis 6.2, 7.0, 8.2 and Valkey 9.1, and for newer commands from Redis' published
//! command reference. `tests/integration/command_table.rs` holds the rows against a real server. Each row departs from its
//! server's flags only on the side of care, and that test names each departure.

mod collections;
mod keyspace;
mod modules;
mod scripting;
mod server;
mod spec;
mod streams;
mod strings;

use super::row::{Row, Shape};
use spec::Spec;
use std::borrow::Cow;

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
        policy: spec.policy,
    };
    (0..).zip(families.concat().iter()).map(row).collect()
}
