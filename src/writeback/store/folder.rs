//! The folder of a journal: whether it is ours, and its lock.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

use super::{
    error::{StoreError, failed},
    frame::{FILE_HEAD, Head, read_file_head},
};

const LOCK: &str = "lock";
const JOURNAL: &str = "journal";
const NEXT: &str = "journal.new";

/// How often a lock is tried for, and the pause between: `in_use` holds it for a moment.
const TRIES: usize = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// The log, and the one that is to take its place.
pub(super) fn journal(folder: &Path) -> PathBuf {
    folder.join(JOURNAL)
}

pub(super) fn next(folder: &Path) -> PathBuf {
    folder.join(NEXT)
}

/// Whether a journal is in this folder, and its salt. Refuses what is not ours; touches nothing.
pub(super) fn look(folder: &Path) -> Result<Option<u32>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(StoreError::Foreign(folder.to_owned()));
        }
        Err(error) => return Err(failed("read", folder)(error)),
    };
    let file = journal(folder);
    let mut head = Vec::new();
    match File::open(&file) {
        Ok(opened) => {
            opened.take(FILE_HEAD as u64).read_to_end(&mut head).map_err(failed("read", &file))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            for entry in entries {
                let name = entry.map_err(failed("read", folder))?.file_name();
                if name != LOCK && name != NEXT {
                    return Err(StoreError::Foreign(folder.to_owned()));
                }
            }
            return Ok(None);
        }
        Err(error) => return Err(failed("read", &file)(error)),
    }
    match read_file_head(&head) {
        Head::Ours { salt } => Ok(Some(salt)),
        Head::Newer { version } => Err(StoreError::Newer { folder: folder.to_owned(), version }),
        Head::Foreign => Err(StoreError::Foreign(file)),
        Head::Damaged => {
            Err(StoreError::Broken { file, at: 0, why: "its first bytes are not what was written" })
        }
    }
}

/// Makes the folder, for its owner alone, and those above that are not there.
pub(super) fn make(folder: &Path) -> Result<(), StoreError> {
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists()).collect();
    for made in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(made) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make the folder", made)(error));
            }
            _ => {}
        }
        let above = made.parent().filter(|above| !above.as_os_str().is_empty());
        sync(above.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

/// Makes the names in a folder durable.
pub(super) fn sync(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
}

/// Whether another process has it open, or this one; changes nothing, creates nothing.
pub fn in_use(folder: &Path) -> bool {
    let lock = File::open(folder.join(LOCK));
    lock.is_ok_and(|lock| {
        flock(&lock, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    })
}

/// Whether there is a journal in this folder.
pub fn is_journal(folder: &Path) -> bool {
    folder.join(JOURNAL).is_file() && folder.join(LOCK).is_file()
}

/// A folder is ours alone for as long as this lives.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "the lock goes with the file")] File);

impl Lock {
    pub fn take(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(LOCK);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(failed("open", &path))?;
        for attempt in 1.. {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if attempt == TRIES => {
                    return Err(StoreError::InUse(folder.to_owned()));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(PAUSE),
                Err(error) => return Err(failed("lock", &path)(error.into())),
            }
        }
        Ok(Self(file))
    }
}
