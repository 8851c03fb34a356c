//! What each command does: which keys it touches and how, where it may run, whether its reply may be cached.
//!
//! For: the session, which asks once per request. Invariants here:
//! - A write is never taken for a read. Where a write's keys cannot be told, [`KeySet::Unknown`] says so, and the
//!   caller raises a barrier; where everything may be another afterwards, [`KeySet::All`], and it fences everything.
//! - Nothing that blocks, subscribes or leaves state on its connection is [`Kind::Plain`].
//! - A reply is cacheable only by an explicit rule in a row, and only while the server's own account
//!   of the command agrees.
//! - Rows are data: a new command is a new line in `rows/`, and mostly nothing else.
//!
//! A name without a row (see [`Table::lookup`]) may be anything, a renamed `MULTI` included: its keys are unknown.
//! Servers up to Redis 8 list a renamed command under its first name, so no `COMMAND` reply tells of the new one.

mod keys;
mod name;
mod overlay;
mod policy;
mod row;
mod rows;
#[cfg(test)]
mod sample;
mod streams;
mod table;
mod tells;
mod word;

pub use keys::{KeySet, KeyUse};
pub use overlay::ServerCommand;
pub use policy::{Asks, Gives, Policy};
pub use row::{Access, CacheRule, Fields, Kind, Local, Row};
pub use table::Table;
pub use tells::{Say, Tells};
