//! The journal on disk: the newest record of each dirty key and the conflict log, written in batches of all or nothing.
//!
//! An append-only log in a folder of its own:
//!
//! - `lock`: locked for as long as the store is open; the lock dies with the process.
//! - `journal`: the log. A batch is one frame of it. What was overwritten or removed is garbage, and a file that is mostly garbage
//!   is written anew.
//! - `journal.new`: the next `journal` while it is being written; one that is found at the start is of no worth.
//!
//! Invariants:
//!
//! - A batch that was committed with `sync`, or before a `sync` that was answered, is there after any crash. Any other is there
//!   after the death of the process alone: the operating system has it.
//! - A batch is there whole or not at all.
//! - A file was whole on the disk before it got the name `journal`. So what is not whole at its end was being written when the
//!   machine or the disk failed: it is dropped, and its size is told. But what had been synced and is not whole is damage, and
//!   then nothing of the journal is believed. (A file that someone cut short reads as torn.)
//! - Every start, and so every reopening after an error, writes a new file: an operating system that failed to write some bytes
//!   may take them for written when it is asked again.
//! - A folder, a file or a format that is not ours is left as it is.
//! - The file takes at most twice what is live and `SLACK`, and half of that again while it is written anew.
//!
//! The engine's thread calls it, and `check` asks whether a folder is in use.

mod batch;
mod error;
mod folder;
mod frame;
mod live;
mod log;
mod reader;
#[cfg(test)]
mod tests;

pub use batch::{Batch, Loaded};
pub use error::StoreError;
pub use folder::{in_use, is_journal};

use std::{
    io,
    path::{Path, PathBuf},
};

use error::failed;
use folder::Lock;
use log::Log;

/// Garbage that a journal may hold beside as much as is live, in bytes.
const SLACK: u64 = 4 << 20;

/// See the [module](self). For one thread: its calls wait for the disk.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    log: Log,
    /// After an error nothing is known of the file's end.
    has_failed: bool,
    _lock: Lock,
}

impl Store {
    /// Opens the journal in this folder, which is made if it is not there, and tells what it holds.
    ///
    /// On a full disk it is opened as it stands: what it holds can be flushed, and there may be room before the next commit.
    pub fn open(folder: &Path) -> Result<(Self, Loaded), StoreError> {
        folder::look(folder)?;
        folder::make(folder)?;
        let lock = Lock::take(folder)?;
        let mut loaded = Loaded::default();
        let old = Log::read(folder)?.map(|(old, dropped)| {
            loaded.dropped = dropped;
            old
        });
        if let Some(old) = &old {
            old.each_live(|item| {
                loaded.push(item);
                Ok(())
            })?;
        }
        let log = match (Log::write(folder, old.as_ref()), old) {
            (Err(error), Some(old)) if error.is_full() => old.cut()?,
            (log, _) => log?,
        };
        Ok((Self { folder: folder.to_owned(), log, has_failed: false, _lock: lock }, loaded))
    }

    /// Adds a batch; with `sync` it waits until that and all before is on the disk.
    ///
    /// Errors: nothing or all of it may be there after a reopening. The store refuses all that follows: it is to be dropped
    /// and opened anew.
    pub fn commit(&mut self, batch: Batch, sync: bool) -> Result<(), StoreError> {
        self.step(|store| {
            let mut items = batch.items().peekable();
            if items.peek().is_some() {
                store.log.append(items)?;
            }
            // A new file is synced, too.
            if store.log.length() > SLACK + 2 * store.log.live() {
                store.log = Log::write(&store.folder, Some(&store.log))?;
            } else if sync {
                store.log.sync()?;
            }
            Ok(())
        })
    }

    /// Waits until all that was committed is on the disk. Errors: as those of `commit`.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        self.step(|store| store.log.sync())
    }

    /// What it takes on disk, in bytes.
    pub fn bytes(&self) -> u64 {
        self.log.length()
    }

    /// What of it is still needed, in bytes; the rest is garbage that goes by itself.
    pub fn live(&self) -> u64 {
        self.log.live()
    }

    fn step(&mut self, work: impl FnOnce(&mut Self) -> Result<(), StoreError>) -> Result<(), StoreError> {
        if self.has_failed {
            let again = io::Error::other("an earlier write failed, and it was not opened anew since");
            return Err(failed("write", self.log.path())(again));
        }
        let done = work(self);
        self.has_failed = done.is_err();
        done
    }
}
