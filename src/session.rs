//! One client: what may be done now, in whose name, and its modes.
//!
//! A request is [admitted](Session::admit) when nothing before it stands in its way, and [executed](Session::execute): it is
//! a read or a write for [`request`](crate::request), something that nearside answers, or it goes to a connection that the
//! session has for itself as long as the server holds state of it.

mod about;
mod admit;
mod again;
mod ask;
mod asking;
mod behind;
mod changing;
mod claims;
mod clean;
mod command;
mod concern;
mod conflicts;
mod connected;
mod dedicated;
mod effects;
mod errand;
mod errands;
mod gate;
mod glob;
mod hears;
mod hello;
mod identity;
mod let_go;
mod listing;
mod local;
mod moving;
mod on_dedicated;
mod on_shared;
mod own;
mod own_link;
mod phase;
mod pinned;
mod presented;
mod redirect;
mod resending;
mod roam;
mod routed;
mod run;
mod state;
mod transact;
mod tunnel;
mod turn;
mod unblock;
mod waits;
mod way;

pub use state::Session;
pub use tunnel::Wanted;
