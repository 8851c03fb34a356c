//! One command going out: what the cache says of it, its fence, its bytes, and what is to be done with its reply.
//!
//! Invariants:
//! - A read that misses goes out under a lease, and a write under a fence that was taken before.
//! - Nothing here waits, and nothing is kept: what is to be known when the reply comes is sent along
//!   (see [`pending`](crate::pending)).

mod context;
mod fetch;
pub mod mget;
mod outbound;
mod raw;
pub mod read;
mod refill;
mod refresh;
mod registered;
pub mod write;

pub use context::{Context, CrossSlot, Resent, keys_of};
pub use fetch::write_request;
pub use outbound::Outbound;
pub use raw::Raw;
pub use refresh::refresh;
pub use registered::registered;
