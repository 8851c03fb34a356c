//! One thread: its sessions, its inbox, and whose turn it is.

mod audit;
mod connection;
mod handshakes;
mod run;
mod sample;
mod seat;
mod secure;
mod sitting;
mod stall;
mod state;
mod tunnel;

pub use state::Worker;
