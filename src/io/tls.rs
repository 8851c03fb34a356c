//! TLS on both sides: to the upstream ([`Connector`]), and with clients ([`Acceptor`]).
//!
//! Invariants:
//! - Nothing is said before the other side has proven who it is, as far as the settings ask for that.
//! - What files hold is taken as a whole or not at all: a bad one, or a key that does not go with its certificate, leaves
//!   what was. A change is for new connections; those that stand are not touched.
//! - A failed handshake is told in words that name the setting to look at.
//!
//! TLS 1.2 and 1.3, by rustls with ring.

mod accept;
mod connect;
mod files;
mod provider;
mod stream;
mod words;

pub use accept::{Acceptor, Handshake, Inward};
pub use connect::{Connector, Outward};
pub use files::{End, Loaded, PemFile, Renew};
pub use stream::Secure;
pub use words::{Failure, begins_tls};
