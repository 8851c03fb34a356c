//! Write-back namespaces: the journal that keeps what is acknowledged and not flushed yet.

pub mod store;
