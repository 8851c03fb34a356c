//! How namespaces are written to: from what is written, with gaps, to what holds.
//!
//! Invariants: who is to be acknowledged by the disk has a journal.

use std::path::PathBuf;
use std::time::Duration;

use super::choice::Writes;
use super::value::{ACK, FLUSH_AFTER, FLUSH_BYTES, FOLDER, JOURNAL_MAX, ON_CONFLICT, WRITES};
use crate::namespace::{Ack, OnConflict, Writing};

/// As it was given for a namespace; what is missing comes from the general settings.
#[derive(Debug, Default, Clone)]
pub(super) struct Given {
    pub write: Option<Writes>,
    pub flush_after: Option<Duration>,
    pub flush_bytes: Option<u64>,
    /// Of which an empty one is none.
    pub journal: Option<Option<PathBuf>>,
    pub ack: Option<Ack>,
    pub on_conflict: Option<OnConflict>,
    pub journal_max: Option<u64>,
}

/// What holds for a namespace; `None` if its writes go through. `general` is what a namespace has if it does not say
/// otherwise. Errors: what does not go together, and what to do.
pub(super) fn resolve(given: &Given, general: &(Writes, Writing)) -> Result<Option<Writing>, String> {
    let (write, general) = general;
    if given.write.unwrap_or(*write) == Writes::Through {
        return Ok(None);
    }
    let writing = Writing {
        flush_after: given.flush_after.unwrap_or(general.flush_after),
        flush_bytes: given.flush_bytes.unwrap_or(general.flush_bytes),
        journal: given.journal.clone().unwrap_or_else(|| general.journal.clone()),
        ack: given.ack.unwrap_or(general.ack),
        on_conflict: given.on_conflict.unwrap_or(general.on_conflict),
        journal_max: given.journal_max.unwrap_or(general.journal_max),
    };
    match (writing.ack, &writing.journal) {
        (Ack::Disk, None) => Err("write = \"back\" with ack = \"disk\" needs a journal; write journal = \
                                  \"/var/lib/nearside\", or ack = \"memory\" where writes that were acknowledged may be \
                                  lost in a crash"
            .to_owned()),
        _ => Ok(Some(writing)),
    }
}

/// What of `new` holds without a restart: no journal is moved, and what was promised of an acknowledged write stays.
pub(super) fn adopt(old: &Option<Writing>, new: &Option<Writing>) -> Option<Writing> {
    match (old, new) {
        (Some(old), Some(new)) => Some(Writing { journal: old.journal.clone(), ack: old.ack, ..new.clone() }),
        _ => old.clone(),
    }
}

/// As keys and values of the namespace's table in the file.
pub(super) fn describe(writing: &Option<Writing>) -> Vec<(&'static str, String)> {
    let Some(writing) = writing else { return vec![("write", (WRITES.show)(&Writes::Through))] };
    vec![
        ("write", (WRITES.show)(&Writes::Back)),
        ("flush-after", (FLUSH_AFTER.show)(&writing.flush_after)),
        ("flush-bytes", (FLUSH_BYTES.show)(&writing.flush_bytes)),
        ("journal", (FOLDER.show)(&writing.journal)),
        ("ack", (ACK.show)(&writing.ack)),
        ("on-conflict", (ON_CONFLICT.show)(&writing.on_conflict)),
        ("journal-max", (JOURNAL_MAX.show)(&writing.journal_max)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn resolved(given: &Given, change: impl FnOnce(&mut Config)) -> Result<Option<Writing>, String> {
        let mut config = Config::default();
        change(&mut config);
        resolve(given, &config.writing())
    }

    #[test]
    fn a_namespace_has_what_it_says_and_else_what_holds_in_general() {
        let back = |config: &mut Config| (config.write, config.journal) = (Writes::Back, Some("/j".into()));
        let general = resolved(&Given::default(), back).expect("valid").expect("write-back");
        let (_, of_config) = Config { journal: Some("/j".into()), ..Config::default() }.writing();
        assert_eq!(general, of_config);
        let given = Given {
            write: Some(Writes::Back),
            flush_after: Some(Duration::from_secs(2)),
            flush_bytes: Some(1),
            journal: Some(Some("/own".into())),
            ack: Some(Ack::Memory),
            on_conflict: Some(OnConflict::Newest),
            journal_max: Some(1 << 20),
        };
        let own = Writing {
            flush_after: Duration::from_secs(2),
            flush_bytes: 1,
            journal: Some("/own".into()),
            ack: Ack::Memory,
            on_conflict: OnConflict::Newest,
            journal_max: 1 << 20,
        };
        assert_eq!(resolved(&given, |_| ()), Ok(Some(own.clone())));
        assert_eq!(resolved(&given, back), Ok(Some(own)));
        let through = Given { write: Some(Writes::Through), ..given };
        assert_eq!(resolved(&through, back), Ok(None));
        assert_eq!(resolved(&Given::default(), |_| ()), Ok(None));
    }

    #[test]
    fn who_is_acknowledged_by_the_disk_needs_a_journal() {
        let back = Given { write: Some(Writes::Back), ..Given::default() };
        let why = resolved(&back, |_| ()).expect_err("no journal");
        assert!(why.contains("needs a journal; write journal = "), "{why}");
        // One that the general settings have is left out.
        let without = Given { journal: Some(None), ..back.clone() };
        assert!(resolved(&without, |config| config.journal = Some("/j".into())).is_err());
        assert!(resolved(&back, |config| config.journal = Some("/j".into())).is_ok());
        assert!(resolved(&back, |config| config.ack = Ack::Memory).is_ok());
        // Nobody asks for it.
        assert_eq!(resolved(&Given { ack: Some(Ack::Disk), ..Given::default() }, |_| ()), Ok(None));
    }
}
