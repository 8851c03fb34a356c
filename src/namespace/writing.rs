//! Write-back: when a write is acknowledged here, and what becomes of one that the upstream's value has overtaken.

use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// When the disk has it.
    Disk,
    /// At once; a journal, if there is one, follows behind.
    Memory,
}

/// What counts where the upstream has changed since a write was acknowledged here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// What the upstream has; ours goes to the conflict log.
    KeepRemote,
    /// Ours; the upstream's goes.
    KeepLocal,
    /// Whichever came later, as seen from here.
    Newest,
}

/// How writes of a namespace are acknowledged here and flushed later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writing {
    /// Longest wait of a write that was acknowledged.
    pub flush_after: Duration,
    /// With so many bytes that wait, no more is waited for.
    pub flush_bytes: u64,
    /// The folder in which each namespace has its own ([`folder_of`]). [`Ack::Disk`] has one.
    pub journal: Option<PathBuf>,
    pub ack: Ack,
    pub on_conflict: OnConflict,
    /// The most bytes of a namespace's journal.
    pub journal_max: u64,
}

/// What of a namespace's name stands in the name of its folder as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-');

/// Where in the folder `journal` that of a namespace is; no two have the same.
pub fn folder_of(journal: &Path, namespace: &str) -> PathBuf {
    let mut name = utf8_percent_encode(namespace, PLAIN).to_string();
    // Neither hidden, nor the folder above.
    if name.starts_with('.') {
        name.replace_range(..1, "%2E");
    }
    journal.join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_namespace_stays_below_the_journal_and_is_its_own() {
        for (namespace, folder) in [
            ("users", "/j/users"),
            ("a.b_c-D9", "/j/a.b_c-D9"),
            ("a/b", "/j/a%2Fb"),
            ("..", "/j/%2E."),
            (".hidden", "/j/%2Ehidden"),
            ("a%2Fb", "/j/a%252Fb"),
            ("a b", "/j/a%20b"),
            ("größe", "/j/gr%C3%B6%C3%9Fe"),
        ] {
            assert_eq!(folder_of(Path::new("/j"), namespace), Path::new(folder), "{namespace}");
        }
    }
}
