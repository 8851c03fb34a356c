//! Connections to the upstream server: pipelined links, over which requests go out in order and replies
//! come back in the same order.
//!
//! Invariants:
//! - The Nth reply that is not a push answers the Nth request. A link whose stream cannot be understood is
//!   closed, never guessed at.
//! - No request is sent twice. When a link is lost, each request in flight is told so, and whether any byte
//!   of it was handed to the kernel. Where nothing of the link's user was sent that is not answered, what was queued goes
//!   on the next connection instead, in its order: provably none of it was executed.
//! - While the upstream is away, or makes nothing of connections, requests are refused at once with the cause; the
//!   next attempt to connect comes after a delay that doubles up to a bound, with jitter.
//! - Replies are handed over as the bytes that came.
//! - A new connection says the newest password of nearside's own login, and one that stands says it again when that changes.
//! - Where sentinels say where the upstream is, each connection was told by its server that it is a master, and ends when they
//!   name another.
//!
//! A link belongs to one thread. What is to be done with replies is the [`ReplyHandler`]'s affair (`pending`, `feed`).

mod backoff;
mod client;
mod cluster;
mod connect;
mod credentials;
mod link;
mod location;
mod ours;
mod pings;
mod probe;
mod reached;
mod reader;
mod renewal;
mod role;
mod said;
mod sentinel;
pub mod server_id;
mod state;
mod tunnel;
mod untold;

pub use backoff::{Backoff, LIVED, backoff};
pub use client::{At, Chunk, Loss, ReplyHandler};
pub use cluster::{NodeLine, SlotRange};
pub use connect::{ConnectError, Identity, Settings};
pub use credentials::{Credentials, Login, Who};
pub use link::{Link, can_connect};
pub use location::{Elected, Location, Member};
pub use ours::Ours;
pub use pings::{PING, Pace, Pings};
pub use probe::Probe;
pub use reached::Reached;
pub use said::Said;
pub use sentinel::{Another, Answer, Asking, Sentinel};
pub use server_id::ServerId;
pub use tunnel::Tunnel;
