//! The log: tracing events on standard error, as text or JSON.
//!
//! Standard output stays free for what a command was asked to print. `main` calls this once, before
//! anything that logs. Who logs neither waits for the reader of the log nor fails without one.

mod queue;

use std::io::{self, IsTerminal, stderr};
use std::panic;
use std::sync::Arc;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};
use crate::metrics::PANICS;
use queue::Queue;

/// How long the end of the process waits for the log's reader.
const PATIENCE: Duration = Duration::from_secs(1);

/// Keeps the log going; what was logged is written before it is gone.
#[must_use]
pub struct Log(Queue, SetLevel);

type SetLevel = Arc<dyn Fn(&str) + Send + Sync>;

impl Log {
    /// By which the level, or directives, can be set anew. Precondition: they are valid.
    pub fn levels(&self) -> impl Fn(&str) + Send + use<> {
        let set = self.1.clone();
        move |directives| set(directives)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.flush(PATIENCE);
    }
}

/// Sends this process's events where `config` says; in colour only to a terminal, and never with `NO_COLOR`. Panics are
/// events, too.
///
/// Errors: there can be no thread that writes.
pub fn init(config: &Config) -> io::Result<Log> {
    let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let queue = Queue::default();
    queue.write_to(stderr())?;
    let writer = queue.clone();
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.log_level))
        .with_writer(move || writer.clone())
        // It would tell of an event that cannot be written on standard error, and panic without one.
        .log_internal_errors(false)
        .with_ansi(colour);
    // Where an event is made it is looked at a number that is set anew with the filter: that it can be costs nothing.
    let (set_level, _second_call): (SetLevel, _) = match config.log_format {
        LogFormat::Text => {
            let log = log.with_filter_reloading();
            let handle = log.reload_handle();
            (Arc::new(move |level| drop(handle.reload(EnvFilter::new(level)))), log.try_init())
        }
        LogFormat::Json => {
            let log = log.json().flatten_event(true).with_filter_reloading();
            let handle = log.reload_handle();
            (Arc::new(move |level| drop(handle.reload(EnvFilter::new(level)))), log.try_init())
        }
    };
    panic::set_hook(Box::new(|panic| {
        PANICS.inc();
        let text = panic.payload().downcast_ref::<&str>().copied();
        let message =
            text.or(panic.payload().downcast_ref::<String>().map(String::as_str)).unwrap_or_default();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a fault in nearside, please report it: panic: {message}");
    }));
    Ok(Log(queue, set_level))
}
