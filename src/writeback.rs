//! Write-back namespaces: writes that are acknowledged here, and flushed upstream later.
//!
//! What always holds: every acknowledged write was at some time the upstream's value, or was superseded by a later acknowledged
//! write of this sidecar, or is in the conflict log. Nobody's newer write is overwritten under `on-conflict = keep-remote`, as
//! far as values can tell.
//!
//! A [`WriteBack`] has the dirty keys of one namespace. Sessions [write](WriteBack::write) and [read](WriteBack::read) there;
//! whatever else is to touch a key [claims](WriteBack::claim) it first, and waits until it is clean. The [`Journal`]'s thread
//! keeps what is dirty on the disk; the [`Flusher`] brings it upstream, by a compare-and-set on what the first dirty write of a
//! key was made upon.
//!
//! One key's way: written ([`taking`]) → what stands upstream is known, or read ([`flusher`]) → in the journal ([`journal`]) →
//! acknowledged → due → flushed, and settled by the reply ([`dirty`]) → forgotten in the journal.

mod ack;
mod asked;
mod claim;
mod conflicts;
mod crash;
mod dirty;
mod engine;
mod flusher;
mod flushing;
mod journal;
mod journaling;
mod op;
mod queues;
mod record;
mod replies;
mod script;
mod stats;
pub mod store;
mod taking;
#[cfg(test)]
mod tests;
mod watched;

pub use ack::Waiter;
pub use claim::Claim;
pub use dirty::ToldBy;
pub use engine::{Open, WriteBack};
pub use flusher::{Flusher, Ways};
pub use journal::Journal;
pub use op::{Base, Op, Stands, unix_ms};
pub use record::Conflict;
pub use taking::Written;
