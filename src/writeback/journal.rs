//! The journal's thread: it writes what is acknowledged, all that waits in one commit.
//!
//! Invariants:
//! - A write is acknowledged as on the disk only when the commit that has it was answered.
//! - Nothing that was acknowledged is dropped because the disk fails: it is flushed from memory, and written anew as soon as the
//!   disk takes it. Until then writes go through.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::ack::Waiter;
use super::crash::crash;
use super::engine::{Open, WriteBack};
use super::queues::ToJournal;
use super::store::{Loaded, Store, StoreError};
use crate::cache::Micros;
use crate::namespace::Ack;

/// How often what was written without waiting for the disk is made durable.
const SYNC: Duration = Duration::from_secs(1);

/// How often it looks whether all is over, once that is to come.
const CLOSING: Duration = Duration::from_millis(20);

/// How long what was flushed waits to be forgotten, for what may be written with it.
const PATIENCE: Duration = Duration::from_millis(10);

/// How long it waits until a journal that failed is opened anew, at first and at most.
const FIRST_REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(5);

/// The journal of one namespace.
pub struct Journal<W> {
    engine: Arc<WriteBack<W>>,
    folder: PathBuf,
    store: Option<Store>,
    /// What it had from before was taken over.
    is_read: bool,
    /// How long the next pause is, while it fails; and since when it does not.
    rest: Duration,
    works_since: Instant,
    /// The log says that it fails.
    is_told: bool,
}

impl<W: Waiter> Journal<W> {
    /// Opens it and takes over what it has. Errors: it cannot be opened. With `later` one that is in use is opened when it is
    /// not any more, and writes go through until then.
    pub fn open(
        engine: Arc<WriteBack<W>>,
        folder: &Path,
        later: bool,
        now: Micros,
    ) -> Result<Self, StoreError> {
        let mut journal = Self {
            engine,
            folder: folder.into(),
            store: None,
            is_read: false,
            rest: FIRST_REST,
            works_since: Instant::now(),
            is_told: false,
        };
        match Store::open(folder) {
            Ok((store, loaded)) => {
                journal.take_over(&loaded, now);
                journal.store = Some(store);
            }
            Err(StoreError::InUse(folder)) if later => {
                info!(folder = %folder.display(), "the journal is still in use by the nearside that is taken over; until it \
                    has made way, writes go through");
                journal.engine.set_journal_fails(true);
                journal.is_told = true;
            }
            Err(error) => return Err(error),
        }
        Ok(journal)
    }

    fn take_over(&mut self, loaded: &Loaded, now: Micros) {
        self.is_read = true;
        let (namespace, folder) = (&self.engine.name, self.folder.display());
        if loaded.dropped > 0 {
            warn!(namespace, %folder, bytes = loaded.dropped, "the journal's end was torn, as by a crash in mid-write, and is \
                dropped: nothing of it was acknowledged");
        }
        let (keys, conflicts, unreadable) = self.engine.take_over(loaded, now);
        if keys + conflicts > 0 {
            info!(namespace, %folder, keys, conflicts, "the journal has writes from before: they are flushed now");
        }
        if unreadable > 0 {
            error!(namespace, %folder, unreadable, "the journal has records that cannot be read, and are left out; please report \
                it, and keep a copy of the folder");
        }
    }

    /// Runs until the engine is closed and has nothing left for it.
    pub fn run(mut self, now: impl Fn() -> Micros) {
        let (mut synced, mut unsynced) = (Instant::now(), false);
        loop {
            if self.store.is_none() {
                if self.engine.is_over() {
                    // What it has is flushed: it is to go, if that can be.
                    let _ = self.reopen(&now);
                    return;
                }
                std::thread::sleep(self.rest);
                self.rest = (self.rest * 2).min(LONGEST_REST);
                let _ = self.reopen(&now);
                continue;
            }
            let (is_closing, is_last) = (self.engine.is_open() == Open::Closing, self.engine.is_over());
            let work = self.engine.wait_for_work(if is_closing { CLOSING } else { SYNC }, PATIENCE);
            let (is_idle, waits_for_disk) = (work.is_empty(), self.engine.when == Ack::Disk);
            let is_over = is_last && is_idle;
            let written = match is_idle {
                true => Ok(()),
                false => {
                    unsynced |= !waits_for_disk;
                    self.commit(work, waits_for_disk, now())
                }
            };
            // Also while it rests: it looks whether the file is still there.
            let syncs = is_idle || unsynced && synced.elapsed() >= SYNC;
            let done = written.and_then(|()| match self.store.as_mut().filter(|_| syncs) {
                Some(store) => {
                    (synced, unsynced) = (Instant::now(), false);
                    store.sync()
                }
                None => Ok(()),
            });
            if let Err(error) = done {
                self.fail(&error);
            } else if is_over {
                return;
            }
        }
    }

    fn commit(&mut self, work: ToJournal, sync: bool, now: Micros) -> Result<(), StoreError> {
        let Some(store) = &mut self.store else { return Ok(()) };
        let (batch, written) = self.engine.batch(work, now);
        let forgets = !batch.removes.is_empty();
        crash("before-journal");
        if forgets {
            crash("before-forget");
        }
        store.commit(batch, sync)?;
        crash("after-journal");
        if forgets {
            crash("after-forget");
        }
        self.engine.stats.journal_bytes.set(store.bytes());
        self.engine.is_written(written, now);
        crash("after-acknowledgement");
        Ok(())
    }

    fn fail(&mut self, error: &StoreError) {
        self.store = None;
        self.engine.stats.journal_failures.inc();
        // On a disk that is nearly full it can be opened again and again, and fails at once.
        if self.works_since.elapsed() >= LONGEST_REST {
            self.rest = FIRST_REST;
            self.engine.stats.journal_told.over();
        }
        if let Some(untold) = self.engine.stats.journal_told.of(&error.to_string()) {
            self.is_told = true;
            let (namespace, dirty) = (&self.engine.name, self.engine.dirty());
            error!(namespace, folder = %self.folder.display(), %error, dirty, untold, "the journal cannot be written: writes go \
                through until it can, and what is dirty is flushed from memory; see to the disk");
        }
        self.engine.is_failing();
    }

    /// Opens it anew, and writes all that is dirty.
    fn reopen(&mut self, now: &impl Fn() -> Micros) -> Result<(), ()> {
        let opened = Store::open(&self.folder).and_then(|(mut store, loaded)| {
            if !self.is_read {
                // Another process had it: what that has left is taken over.
                self.take_over(&loaded, now());
            }
            let (mut batch, written) = self.engine.batch(self.engine.all_work(&loaded), now());
            batch.conflicts.extend(self.engine.conflicts_beyond(&loaded));
            store.commit(batch, true)?;
            Ok((store, written))
        });
        match opened {
            Ok((store, written)) => {
                self.engine.stats.journal_bytes.set(store.bytes());
                self.store = Some(store);
                self.engine.set_journal_fails(false);
                self.engine.is_written(written, now());
                self.works_since = Instant::now();
                if std::mem::take(&mut self.is_told) {
                    info!(namespace = self.engine.name, folder = %self.folder.display(), "the journal is written again");
                }
                Ok(())
            }
            Err(StoreError::InUse(_)) if !self.is_read => Err(()),
            Err(error) => {
                if let Some(untold) = self.engine.stats.journal_told.of(&error.to_string()) {
                    self.is_told = true;
                    let (namespace, folder) = (&self.engine.name, self.folder.display());
                    error!(namespace, %folder, %error, untold, "the journal still cannot be written: writes go through");
                }
                self.engine.is_failing();
                Err(())
            }
        }
    }
}
