//! Keeps what the log tells at INFO and above for who looks later, whatever `log-level` lets through to standard error.
//!
//! Invariants: nothing is kept that the log would not be told, so what is limited there is limited here. A field that may hold
//! a key, or words of the upstream that may, is kept apart from the rest.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::metrics::{EVENTS, Events, Level};

/// Fields that may hold a key: of an audit, and what the upstream has replied.
const KEYED: [&str; 3] = ["key", "history", "reply"];

/// The layer; its events go to [`EVENTS`].
pub(super) struct Notable(&'static Events);

impl Notable {
    pub(super) fn new() -> Self {
        Self(&EVENTS)
    }
}

/// What is notable: nearside's own, and no less than INFO.
pub(super) fn is_notable(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= tracing::Level::INFO && metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
}

/// The most that is notable, for who asks before an event is made.
pub(super) const MOST: LevelFilter = LevelFilter::INFO;

impl<S: Subscriber> Layer<S> for Notable {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warn,
            _ => Level::Info,
        };
        let mut said = Said::default();
        event.record(&mut said);
        let keyed = said.keyed.then(|| said.text(&said.all));
        self.0.add(level, &said.text(&said.plain), keyed.as_deref());
    }
}

/// An event, taken apart.
#[derive(Default)]
struct Said {
    message: String,
    /// Its fields, and those of them that hold no keys.
    all: String,
    plain: String,
    keyed: bool,
}

impl Said {
    fn text(&self, fields: &str) -> String {
        match fields {
            "" => self.message.clone(),
            _ => format!("{} ({fields})", self.message),
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let name = field.name();
        if name == "message" {
            let _ = write!(self.message, "{value:?}");
            return;
        }
        let value = format!("{value:?}");
        if name == "untold" && value == "0" {
            return;
        }
        let keyed = KEYED.contains(&name);
        self.keyed |= keyed;
        for fields in [Some(&mut self.all), (!keyed).then_some(&mut self.plain)].into_iter().flatten() {
            let between = if fields.is_empty() { "" } else { ", " };
            let _ = write!(fields, "{between}{name}={value}");
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::filter::FilterFn;
    use tracing_subscriber::prelude::*;

    use super::*;

    #[test]
    fn what_is_told_is_kept_with_its_fields_and_keys_apart() {
        let events: &'static Events = Box::leak(Box::default());
        let layer = Notable(events).with_filter(FilterFn::new(is_notable).with_max_level_hint(MOST));
        let log = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(log, || {
            tracing::warn!(link = 3, untold = 0, cause = %"gone", "link is down");
            tracing::debug!("noise");
            tracing::warn!(target: "hyper", "another's");
            tracing::error!(key = ?b"users/1", node = "a", reply = "users/1", "stale");
            tracing::info!("ready");
        });
        let kept: Vec<_> = events.since(0).into_iter().map(|e| (e.level, e.text, e.with_keys)).collect();
        let with_keys = format!("stale (key={:?}, node=a, reply=users/1)", b"users/1");
        let expected = [
            (Level::Warn, "link is down (link=3, cause=gone)", None),
            (Level::Error, "stale (node=a)", Some(with_keys)),
            (Level::Info, "ready", None),
        ];
        assert_eq!(kept, expected.map(|(level, text, keys)| (level, text.to_owned(), keys)));
    }
}
