//! Sessions: what becomes of a client's requests.
//!
//! A request's way: [`connection`] reads it and frames it, [`core`] decides, and then it is a [`read`] from
//! the cache, a [`write`] with its fence and its announcements, something [`local`], or a relay; on the
//! link that all sessions of the identity share, or on a [`dedicated`] one as long as it has [`state`] there. [`expect`] says what is done with its reply, [`peer`] does it, and
//! [`queue`] keeps the order. A [`worker`] holds the sessions of one thread,
//! and its [`heart`] looks after the links.

mod announce;
mod arm;
mod asking;
mod audit;
mod clients;
mod connection;
mod core;
mod dark;
mod dedicated;
mod errors;
mod expect;
mod fields;
mod gate;
mod heart;
mod idents;
mod links;
mod listing;
mod local;
mod login;
mod mget;
mod nearside;
mod peer;
mod pool;
mod pushes;
mod queue;
mod read;
mod redirect;
mod refill;
mod refresh;
mod role;
mod route;
mod shared;
mod state;
mod tunnel;
mod worker;
mod write;

pub use clients::Clients;
pub use errors::{MAX_CLIENTS, line as error_line};
pub use gate::Password;
pub use role::watch_role;
pub use shared::{FeedUp, Settings, Shared, micros};
pub use worker::{Inbox, Message, Ticket, Worker, is_active};
