//! nearside: a coherent near cache for Redis behind a plain Redis port.
pub mod cache;
pub mod command;
pub mod namespace;
pub mod resp;
pub mod upstream;
