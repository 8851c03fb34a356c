//! The log: tracing events on standard error, as text or JSON.
//!
//! Standard output stays free for what a command was asked to print. `main` calls this once, before
//! anything that logs. Who logs neither waits for the reader of the log nor fails without one.

mod notable;
mod queue;

use std::io::{self, stderr};
use std::panic;
use std::sync::Arc;
use std::time::Duration;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::{EnvFilter, fmt, prelude::*, registry, reload};

use crate::config::{Config, LogFormat};
use crate::metrics::PANICS;
use notable::Notable;
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

/// Whether what is written there is to be in colour: on a terminal, or with `CLICOLOR_FORCE`, and never with `NO_COLOR`.
pub fn colours(stream: &impl RawStream) -> ColorChoice {
    // The library takes 0, which forces nothing, for any other value.
    let forces_nothing = std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| value == "0");
    match forces_nothing && !stream.is_terminal() {
        true => ColorChoice::Never,
        false => AutoStream::choice(stream),
    }
}

/// Sends this process's events where `config` says; in [colour](colours) if that is wanted there. Panics are
/// events, too.
///
/// Errors: there can be no thread that writes.
pub fn init(config: &Config) -> io::Result<Log> {
    let colour = colours(&stderr()) != ColorChoice::Never;
    let queue = Queue::default();
    queue.write_to(stderr())?;
    let writer = queue.clone();
    let log = fmt::layer()
        .with_writer(move || writer.clone())
        // It would tell of an event that cannot be written on standard error, and panic without one.
        .log_internal_errors(false)
        .with_ansi(colour);
    let log = match config.log_format {
        LogFormat::Text => log.boxed(),
        LogFormat::Json => log.json().flatten_event(true).boxed(),
    };
    // Where an event is made it is looked at a number that is set anew with the filter: that it can be costs nothing.
    let (level, handle) = reload::Layer::new(EnvFilter::new(&config.log_level));
    let notable = FilterFn::new(notable::is_notable).with_max_level_hint(notable::MOST);
    let _second_call =
        registry().with(log.with_filter(level)).with(Notable::new().with_filter(notable)).try_init();
    let set_level: SetLevel = Arc::new(move |level| drop(handle.reload(EnvFilter::new(level))));
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
