//! nearside: a coherent near cache for Redis behind a plain Redis port.
//!
//! What it promises is argued in docs/guarantees.md. docs/architecture.md walks requests through the files: a hit, a miss,
//! a write, an invalidation in mid-flight, a transaction, a lost upstream. Each room's header says what it is for, and its
//! invariants.
//!
//! # Which room may use which
//!
//! ```text
//! main → server, config          session → resp, command, cache, upstream, namespace
//! server → session, feed, admin  feed → cache, upstream, namespace, command, resp
//! command, upstream → resp       cache, config, resp, namespace → nothing of ours
//! ```
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
