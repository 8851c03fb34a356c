//! One command going out: what the cache says of it, its fence, its bytes, and what is to be done with its reply.
//!
//! Invariants:
//! - A read that misses goes out under a lease, and a write under a fence that was taken before.
//! - Nothing here waits, and nothing is kept: what is to be known when the reply comes is sent along
//!   (see [`pending`](crate::pending)).

pub mod back;
mod combine;
mod context;
pub mod fan_out;
mod fetch;
mod finish;
mod gathers;
mod links;
pub mod mget;
mod outbound;
mod parts;
mod raw;
pub mod read;
mod refill;
mod refresh;
mod registered;
pub mod scan;
mod scripts;
pub mod split;
pub mod write;

pub use combine::How;
pub use context::{Context, CrossSlot, Resent, keys_of};
pub use fetch::write_request;
pub use finish::finish;
pub use gathers::Gathers;
pub use outbound::Outbound;
pub use parts::{Way, begin_anew, give_up as give_up_parts, send_again as send_parts_again};
pub use raw::Raw;
pub use refresh::refresh;
pub use registered::registered;
pub use scripts::{note_scripts, preload};
