//! RESP framing: requests from clients, replies from the upstream.
//!
//! `resp` finds where a request or a reply ends and hands over raw bytes; it never re-encodes what the
//! upstream sent.
//!
//! Invariants here:
//! - No byte is parsed twice, however it is cut into packets: a whole and its pieces give the same frames.
//! - Nothing is allocated because of a length or a count that a peer merely declared.
//! - What meets untrusted bytes does not recurse, except [`decode`], whose depth is bounded.
//!
//! `worker` frames with [`framer`], `session` answers with [`encode`]; `upstream` finds replies with [`scanner`]
//! and reads its own control replies with [`decode`].

pub mod decode;
pub mod encode;
mod error;
pub mod framer;
mod inline;
pub mod number;
mod protocol;
pub mod pubsub;
mod redirection;
pub mod request;
pub mod scanner;
mod slot;
mod slot_set;

pub use error::{ProtocolError, ReplyError};
pub use protocol::Protocol;
pub use redirection::{Redirection, Whereabouts};
pub use slot::{SLOTS, key_slot};
pub use slot_set::SlotSet;
