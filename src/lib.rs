//! nearside: a coherent near cache for Redis behind a plain Redis port.
pub mod cache;
pub mod command;
pub mod config;
pub mod dev;
pub mod logging;
pub mod resp;
pub mod server;
