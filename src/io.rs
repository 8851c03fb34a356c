//! Streams, and bytes on their way out: what a client's connection and one to the upstream have in common.
//!
//! It sees bytes, never RESP. Nothing here knows who is at the other end.

mod dial;
mod names;
mod outgoing;
mod stream;
mod tls;

pub use dial::Dial;
pub use outgoing::{LARGE, Outgoing};
pub use stream::{Address, Ends, Stream};
pub use tls::{
    Acceptor, Connector, End, Failure, Handshake, Inward, Loaded, Outward, PemFile, Renew, begins_tls,
};
