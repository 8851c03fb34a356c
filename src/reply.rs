//! A client's replies on their way to it: in the order of its requests, and no faster than it takes them.
//!
//! Invariants: replies leave in the order of their requests. What a client leaves untaken is bounded, and holds up nobody
//! else for long. A reply that the client does not want (`CLIENT REPLY`) is thrown away here, and nowhere before.

mod again;
mod kept;
mod parts;
mod queue;
mod room;
mod slot;
mod slots;
mod wishes;

pub use again::Standing;
pub use kept::{Again, Refusal};
pub use queue::{MAX_SPARE, ReplyQueue, WriteOutcome};
pub use slot::ReplySlot;
pub use slots::Replies;
