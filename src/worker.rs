//! One thread: its sessions, its inbox, and whose turn it is.

mod audit;
mod connection;
mod run;
mod seat;
mod stall;
mod state;
mod tunnel;

pub use state::Worker;
