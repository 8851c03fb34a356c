//! What can be wrong with a journal.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::frame::FORMAT;

/// Why a journal cannot be opened or written. `Io` may pass; the others last until someone sees to them.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the journal {} is in use by another nearside: stop that one, or give each a journal of its own", .0.display())]
    InUse(PathBuf),
    #[error("{} is not a journal of nearside, and was left alone: name a folder that is empty or not there yet", .0.display())]
    Foreign(PathBuf),
    #[error(
        "the journal {} has format {version}, and this nearside knows formats up to {FORMAT}: run the nearside that wrote it \
         until it has flushed, or name another folder",
        folder.display()
    )]
    Newer { folder: PathBuf, version: u32 },
    #[error("cannot {doing} {}: {source}; see to the disk, its room and the rights there", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the journal {} is damaged at byte {at}: {why}; restore the file and start again, or move it away and start without the \
         writes in it that are not upstream yet",
        file.display()
    )]
    Broken { file: PathBuf, at: u64, why: &'static str },
}

impl StoreError {
    /// Whether there is no room left.
    pub(super) fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}

/// Tells what failed, and on what.
pub(super) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { doing, path, source }
}
