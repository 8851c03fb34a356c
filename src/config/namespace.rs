//! Namespaces: from what is written (`Written`, with gaps) to what holds ([`Namespace`]).
//!
//! No key belongs to two namespaces, and no channel to two, so a message always says which keys it means.

use std::{collections::HashSet, time::Duration};

use super::choice::Writes;
use super::text::quoted;
use super::value::*;
use super::writing;
use crate::namespace::{OnUpdate, Rules, Tracking, Writing};

/// A part of the key space whose writes are announced by pub/sub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    pub name: String,
    /// What its keys begin with; `NAME/` unless set. An empty one covers every key.
    pub prefix: String,
    /// Announcements go to `CHANNEL/update` and `CHANNEL/delete`; `NAME` unless set.
    pub channel: String,
    pub on_update: OnUpdate,
    pub refill_on_write: bool,
    pub tracking: Tracking,
    pub max_age: Duration,
    pub max_staleness: Duration,
    /// How its writes are kept here and flushed later; `None` if they go through.
    pub writing: Option<Writing>,
}

/// A namespace as it was given; what is missing comes from its name or from the general settings.
#[derive(Debug, Default, Clone)]
pub(super) struct Written {
    pub name: String,
    pub prefix: Option<String>,
    pub channel: Option<String>,
    pub on_update: Option<OnUpdate>,
    pub refill_on_write: Option<bool>,
    pub tracking: Option<Tracking>,
    pub max_age: Option<Duration>,
    pub max_staleness: Option<Duration>,
    pub writing: writing::Given,
}

type Set = fn(&mut Written, &str) -> Result<(), String>;

/// The keys of a namespace's table in the file.
pub(super) const KEYS: [(&str, Set); 14] = [
    ("prefix", |written, text| {
        written.prefix = Some(text.to_owned());
        Ok(())
    }),
    ("channel", |written, text| {
        written.channel = Some(check_name(text, "channel")?);
        Ok(())
    }),
    ("on-update", |written, text| {
        written.on_update = Some((ON_UPDATE.parse)(text)?);
        Ok(())
    }),
    ("refill-on-write", |written, text| {
        written.refill_on_write = Some((SWITCH.parse)(text)?);
        Ok(())
    }),
    ("tracking", |written, text| {
        written.tracking = Some((TRACKING.parse)(text)?);
        Ok(())
    }),
    ("max-age", |written, text| {
        written.max_age = Some((TIME.parse)(text)?);
        Ok(())
    }),
    ("max-staleness", |written, text| {
        written.max_staleness = Some((TIME.parse)(text)?);
        Ok(())
    }),
    ("write", |written, text| {
        written.writing.write = Some((WRITES.parse)(text)?);
        Ok(())
    }),
    ("flush-after", |written, text| {
        written.writing.flush_after = Some((FLUSH_AFTER.parse)(text)?);
        Ok(())
    }),
    ("flush-bytes", |written, text| {
        written.writing.flush_bytes = Some((FLUSH_BYTES.parse)(text)?);
        Ok(())
    }),
    ("journal", |written, text| {
        written.writing.journal = Some((FOLDER.parse)(text)?);
        Ok(())
    }),
    ("ack", |written, text| {
        written.writing.ack = Some((ACK.parse)(text)?);
        Ok(())
    }),
    ("on-conflict", |written, text| {
        written.writing.on_conflict = Some((ON_CONFLICT.parse)(text)?);
        Ok(())
    }),
    ("journal-max", |written, text| {
        written.writing.journal_max = Some((JOURNAL_MAX.parse)(text)?);
        Ok(())
    }),
];

/// Names around commas; an empty text is no namespace.
pub(super) fn parse_names(text: &str) -> Result<Vec<Written>, String> {
    parse_list(text, parse_name)
}

/// A namespace of which only the name is known.
pub(super) fn parse_name(text: &str) -> Result<Written, String> {
    Ok(Written { name: check_name(text, "namespace")?, ..Written::default() })
}

fn check_name(text: &str, what: &str) -> Result<String, String> {
    match text {
        "" => Err(format!("a {what} needs a name, and an empty one was given")),
        _ if text.contains(|c: char| c == ',' || c.is_control()) => {
            Err(format!("{text:?} cannot be the name of a {what}: no commas and no control characters"))
        }
        _ => Ok(text.to_owned()),
    }
}

/// Fills the gaps by what holds in general, and says what in a namespace, and which namespaces, do not go together.
pub(super) fn resolve(
    written: &[Written],
    (rules, general): (Rules, &(Writes, Writing)),
    problems: &mut Vec<String>,
) -> Vec<Namespace> {
    let mut writing = |given: &Written| {
        writing::resolve(&given.writing, general).unwrap_or_else(|why| {
            problems.push(format!("namespace {:?}: {why}", given.name));
            None
        })
    };
    let all: Vec<Namespace> = written
        .iter()
        .map(|given| Namespace {
            prefix: given.prefix.clone().unwrap_or_else(|| format!("{}/", given.name)),
            channel: given.channel.clone().unwrap_or_else(|| given.name.clone()),
            on_update: given.on_update.unwrap_or(rules.on_update),
            refill_on_write: given.refill_on_write.unwrap_or(rules.refill_on_write),
            tracking: given.tracking.unwrap_or(rules.tracking),
            max_age: given.max_age.unwrap_or(rules.max_age),
            max_staleness: given.max_staleness.unwrap_or(rules.max_staleness),
            writing: writing(given),
            name: given.name.clone(),
        })
        .collect();
    let mut twice = HashSet::new();
    for (index, one) in all.iter().enumerate() {
        for other in &all[index + 1..] {
            if one.name == other.name {
                if twice.insert(&one.name) {
                    problems.push(format!("namespace {:?} is given twice", one.name));
                }
                continue;
            }
            if one.prefix.starts_with(&other.prefix) || other.prefix.starts_with(&one.prefix) {
                problems.push(format!(
                    "namespaces {:?} and {:?} overlap: the prefixes {:?} and {:?} would cover the same keys",
                    one.name, other.name, one.prefix, other.prefix
                ));
            }
            if one.channel == other.channel {
                problems.push(format!(
                    "namespaces {:?} and {:?} have the same channel {:?}",
                    one.name, other.name, one.channel
                ));
            }
        }
    }
    all
}

/// The namespace as lines of the file.
pub(super) fn describe(namespace: &Namespace) -> Vec<(String, String)> {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let name = match namespace.name.chars().all(bare) {
        true => namespace.name.clone(),
        false => quoted(&namespace.name),
    };
    [
        ("prefix", quoted(&namespace.prefix)),
        ("channel", quoted(&namespace.channel)),
        ("on-update", (ON_UPDATE.show)(&namespace.on_update)),
        ("refill-on-write", (SWITCH.show)(&namespace.refill_on_write)),
        ("tracking", (TRACKING.show)(&namespace.tracking)),
        ("max-age", (TIME.show)(&namespace.max_age)),
        ("max-staleness", (TIME.show)(&namespace.max_staleness)),
    ]
    .into_iter()
    .chain(writing::describe(&namespace.writing))
    .map(|(key, value)| (format!("namespace.{name}.{key}"), value))
    .collect()
}
