//! `nearside top`: what a running sidecar does, watched over its admin port.
//!
//! Invariants: it asks for `/metrics` and `/readyz` once a second and for nothing else, and changes nothing. A sidecar that is
//! lost is told of and tried again, once a second too, until somebody quits. What it says is bounded, and shown as text
//! without control characters. However it ends, the terminal is left as it was.

mod app;
mod draw;
mod figures;
mod plain;
mod samples;
mod source;
#[cfg(test)]
mod tests;
mod watch;

pub use plain::once;
pub use watch::watch;
