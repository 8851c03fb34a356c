//! The log: tracing events on standard error, as text or JSON.
//!
//! Standard output stays free for what a command was asked to print. `main` calls this once, before
//! anything that logs.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Sends this process's events where `config` says; in colour only to a terminal, and never with `NO_COLOR`.
///
/// A second call changes nothing.
pub fn init(config: &Config) {
    let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.log_level))
        .with_writer(stderr)
        .with_ansi(colour);
    let _second_call = match config.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
}
