//! Whether the journals of write-back can be used, before anything depends on it.
//!
//! Invariants: nothing is made or changed by looking.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::config::Config;
use crate::namespace::folder_of;
use crate::writeback::store::{in_use, is_journal};

/// All that keeps the journals of this configuration from being used, a sentence each, with what to do; also that a running
/// nearside uses them.
pub fn check_journals(config: &Config) -> Vec<String> {
    let mut problems = unusable(config);
    for (name, journal) in journals(config) {
        let folder = folder_of(journal, name);
        if in_use(&folder) {
            problems.push(format!(
                "namespace {name:?}: its journal {} is in use by another process; stop that one, or give each \
                 nearside a journal of its own",
                folder.display()
            ));
        }
    }
    problems
}

/// Likewise, whoever uses them.
pub(super) fn unusable(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, journal) in journals(config) {
        let folder = folder_of(journal, name);
        let own = || folder.exists().then(|| unusable_folder(&folder)).flatten();
        // Namespaces may have one together.
        problems.extend(unusable_folder(journal).or_else(own).filter(|why| !problems.contains(why)));
    }
    problems
}

/// By the names of their namespaces.
fn journals(config: &Config) -> impl Iterator<Item = (&str, &Path)> {
    config.namespaces.iter().filter_map(|namespace| {
        let journal = namespace.writing.as_ref()?.journal.as_deref()?;
        Some((&*namespace.name, journal))
    })
}

/// Why nothing can be written in this folder, or it cannot be made.
fn unusable_folder(path: &Path) -> Option<String> {
    let at = path.display();
    let is_there = match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => {
            return Some(format!("journal: {at} is no folder; name one such as /var/lib/nearside"));
        }
        found => found.is_ok(),
    };
    let above = match path.parent() {
        Some(none) if none.as_os_str().is_empty() => Path::new("."),
        above => above.unwrap_or(path),
    };
    if !is_there && !above.is_dir() {
        return Some(format!(
            "journal: {at} cannot be made: there is no folder {}; make it first",
            above.display()
        ));
    }
    let written = if is_there { path } else { above };
    let refused = access(written, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).err()?;
    Some(format!(
        "journal: {} cannot be written: {refused}; give it to the user that nearside runs as, or name another",
        written.display()
    ))
}

/// Journals in the folders of this configuration that belong to none of its write-back namespaces: what is in them is not flushed.
pub(super) fn orphans(config: &Config) -> Vec<PathBuf> {
    let known: Vec<_> = journals(config).map(|(name, journal)| folder_of(journal, name)).collect();
    let folders: BTreeSet<_> =
        journals(config).map(|(_, journal)| journal).chain(config.journal.as_deref()).collect();
    let in_folder =
        |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let all = folders.into_iter().flat_map(in_folder);
    all.filter(|folder| !known.contains(folder) && is_journal(folder)).collect()
}
