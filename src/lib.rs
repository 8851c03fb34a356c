//! nearside: a coherent near cache for Redis behind a plain Redis port.
//!
//! What it promises is argued in docs/guarantees.md. docs/architecture.md walks requests through the files: a hit, a miss,
//! a write, an invalidation in mid-flight, a transaction, a lost upstream. Each room's header says what it is for, and its
//! invariants.
//!
//! # Which room may use which
//!
//! ```text
//! main     a checklist: parse, build, run, drain          → server, top, config
//! server   listeners, workers, drain                      → worker, feed, admin, otlp, process
//! admin    health pages and metrics                       → process
//! otlp     sampled misses, told to a collector            → process, config, io
//! worker   one thread: sessions, inbox, turns             → session, request, reply, process
//! session  one client: what may be done now, its modes    → request, router, pending, reply, process
//! feed     hears what changed, one for each node          → cache, upstream
//! request  one command going out: lookup, fence, bytes    → router, pending, reply, process
//! router   which node, which link, is it covered          → pending, process, upstream
//! pending  one command coming back: fill, release         → reply, process, upstream
//! reply    a client's replies in order, and backpressure  → io
//! process  what the threads share                         → cache, command, namespace, upstream, writeback, metrics
//! writeback what is acknowledged here and flushed later    → cache, namespace, resp, metrics
//! upstream links, and the handshake                       → io, resp
//! ```
//!
//! `io`, `cache`, `resp`, `namespace` and `metrics` take nothing of ours, `command` only `resp`, `config` only `command`, `io` and
//! `namespace`, `top` only `config`. Files stand in such an order, too: there is no circle of imports. `tests/rooms.rs` holds both.
pub mod admin;
pub mod cache;
pub mod command;
pub mod config;
pub mod dev;
pub mod feed;
pub mod io;
pub mod logging;
pub mod metrics;
pub mod namespace;
pub mod resp;
pub mod server;
pub mod top;
pub mod upstream;
pub mod writeback;

mod otlp;
mod pending;
mod process;
mod reply;
mod request;
mod router;
mod session;
mod worker;
