//! One command coming back: what is awaited on each link, and what is done with a reply, down to handing it over.
//!
//! Invariants:
//! - A reply is handed over only when what it does to the cache is done: the fence of its write released, what it has
//!   overtaken dropped, the reply filled. From then on its client may act on it.
//! - What is held for a request (a fence, a lease, a session's place in a flight) is let go when it ends, however it ends.
//! - Nothing here sends. What a reply asks for goes upward by [`Upcalls`], which is rare.

mod announcement;
mod answers;
mod arming;
mod asked;
mod assembly;
mod astray;
mod audit;
mod changed;
mod cover;
mod elements;
mod expiry;
mod fields;
mod fill;
mod front;
mod handler;
mod in_flight;
mod leads;
mod link_handler;
mod place;
mod pushes;
mod redirected;
mod relay;
mod said;
mod sift;
mod standing;
mod state;
mod told;
mod transaction;
mod upcalls;
mod write;
mod write_set;

pub use announcement::{Key, write as write_announcement};
pub use answers::Answers;
pub use asked::{Answer, Asked};
pub use assembly::{Fetch, MgetAssembly, Missing, Part, Window};
pub use astray::{Held, Keeps};
pub use audit::Audit;
pub use changed::{Change, Changed, with_id};
pub use cover::Route;
pub use fill::{CacheLease, Fill};
pub use handler::{Link, send};
pub use in_flight::{Bypass, InFlight, Pending};
pub use link_handler::{LinkHandler, Origin, Owner};
pub use pushes::{Awaited, Pushes};
pub use redirected::{is_owned_at, node_at};
pub use said::Said;
pub use standing::Standing;
pub use state::{
    Became, DEBUG, Effect, IMPORT, Leaves, MAINTENANCE, NO_EVICT, NO_TOUCH, OTHER, READONLY, REPLICA, State,
    TRACKING, WATCH,
};
pub use transaction::Transaction;
pub use upcalls::{LinkEvent, Upcalls};
pub use write::Write;
pub use write_set::{Barrier, WriteSet, barrier};

#[cfg(test)]
mod tests;
