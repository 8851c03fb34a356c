//! Connections to the upstream server: pipelined links, over which requests go out in order and replies
//! come back in the same order.
//!
//! Invariants:
//! - The Nth reply that is not a push answers the Nth request. A link whose stream cannot be understood is
//!   closed, never guessed at.
//! - No request is sent twice. When a link is lost, each request in flight is told so, and whether any byte
//!   of it was handed to the kernel.
//! - While the upstream is away, or makes nothing of connections, requests are refused at once with the cause; the
//!   next attempt to connect comes after a delay that doubles up to a bound, with jitter.
//! - Replies are handed over as the bytes that came.
//! - Where sentinels say where the upstream is, each connection was told by its server that it is a master, and ends when they
//!   name another.
//!
//! A link belongs to one thread. What is to be done with replies is the [`ReplyHandler`]'s affair (`pending`, `feed`).

mod backoff;
mod client;
mod connect;
mod link;
mod location;
mod ours;
mod pings;
mod reached;
mod reader;
mod role;
mod said;
mod sentinel;
pub mod server_id;
mod state;
mod tunnel;

pub use backoff::{Backoff, LIVED, backoff};
pub use client::{At, Chunk, Loss, ReplyHandler};
pub use connect::{ConnectError, Identity, Login, Settings};
pub use link::{Link, can_connect};
pub use location::{Elected, Location};
pub use ours::Ours;
pub use pings::{PING, Pace, Pings};
pub use reached::Reached;
pub use said::Said;
pub use sentinel::{Another, Answer, Asking, Sentinel};
pub use server_id::ServerId;
pub use tunnel::Tunnel;
