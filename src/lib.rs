//! nearside: a coherent near cache for Redis behind a plain Redis port.
pub mod admin;
pub mod cache;
pub mod command;
pub mod config;
pub mod dev;
pub mod feed;
pub mod logging;
pub mod metrics;
pub mod namespace;
pub mod resp;
pub mod server;
pub mod session;
pub mod upstream;
