//! What the journal is given to keep, and what follows once it has it.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::ack::Waiter;
use super::dirty::{Dirty, Stage};
use super::engine::{Entry, Open, WriteBack};
use super::flushing::After;
use super::op::unix_ms;
use super::queues::{Key, ToJournal};
use super::record::{Conflict, Record};
use super::store::{Batch, Loaded};
use crate::cache::Micros;
use crate::namespace::Ack as When;

/// What was put into a batch.
#[derive(Default)]
pub(super) struct Written {
    /// Keys, and the version that is written of each.
    keys: Vec<(Key, u64)>,
    /// Keys of which nothing is there any more.
    removed: Vec<Key>,
    conflicts: Vec<Conflict>,
    cleared: Vec<u64>,
}

impl<W: Waiter> WriteBack<W> {
    /// Waits until there is something for the journal, but no longer than `most`; and if that is only what was flushed, as long
    /// as `patience` for what it may be written with: who has the disk bring it alone keeps the next write waiting.
    pub(super) fn wait_for_work(&self, most: Duration, patience: Duration) -> ToJournal {
        let mut work = self.to_journal.lock();
        if work.is_empty() {
            self.journal_bell.wait_for(&mut work, most);
        }
        let until = Instant::now() + patience;
        while !work.is_empty() && work.is_patient() && self.is_open() == Open::Yes {
            if self.journal_bell.wait_until(&mut work, until).timed_out() {
                break;
            }
        }
        std::mem::take(&mut *work)
    }

    /// As a batch, and what it means.
    pub(super) fn batch(&self, mut work: ToJournal, now: Micros) -> (Batch, Written) {
        let (mut batch, mut written) = (Batch::default(), Written::default());
        let time = unix_ms();
        work.keys.append(&mut work.flushed);
        // Each once: of a key that is in it twice it would not be told what comes last.
        work.keys.sort_unstable();
        work.keys.dedup();
        for key in work.keys {
            let mut shard = self.shard(&key);
            let dirty = shard.get_mut(&key).and_then(|entry| entry.dirty.as_mut());
            match dirty.filter(|dirty| dirty.stage != Stage::Reading) {
                Some(dirty) => {
                    dirty.queued = false;
                    let record = dirty.record(time.saturating_sub(now.saturating_sub(dirty.arrived) / 1000));
                    written.keys.push((key.clone(), dirty.version));
                    drop(shard);
                    batch.puts.push((key, record.encode()));
                }
                None => {
                    drop(shard);
                    written.removed.push(key.clone());
                    batch.removes.push(key);
                }
            }
        }
        for conflict in work.lost.iter().filter_map(|key| self.conflict(key, now)) {
            batch.conflicts.push((conflict.id, conflict.encode()));
            // In one step: it is never in neither.
            batch.puts.retain(|(key, _)| **key != *conflict.key);
            batch.removes.push(conflict.key.to_vec().into());
            written.conflicts.push(conflict);
        }
        batch.cleared.clone_from(&work.cleared);
        written.cleared = work.cleared;
        (batch, written)
    }

    /// The journal has it.
    pub(super) fn is_written(&self, written: Written, now: Micros) {
        self.stats.commits.inc();
        self.stats.committed.add(written.keys.len() as u64);
        let mut after = After { acks: Vec::new(), waits: Vec::new() };
        for (key, version) in written.keys {
            let mut shard = self.shard(&key);
            let Some(entry) = shard.get_mut(&key) else { continue };
            self.keep(entry, entry.kept && entry.dirty.is_none());
            let Some(dirty) = &mut entry.dirty else { continue };
            dirty.journaled = dirty.journaled.max(version);
            if self.when == When::Disk {
                after.acks.append(&mut dirty.take_acks(version));
            }
            self.list_if_ready(&key, dirty);
        }
        for conflict in written.conflicts {
            let key = conflict.key.clone();
            self.conflicts.add(conflict);
            self.is_logged(&key, now);
        }
        self.conflicts.remove(&written.cleared);
        for key in written.removed {
            let mut shard = self.shard(&key);
            let Some(entry) = shard.get_mut(&key) else { continue };
            after.waits.append(&mut self.let_go(entry));
            if entry.is_idle() {
                shard.remove(&key);
            }
        }
        self.tell(after);
    }

    /// The journal does not have what was flushed there, or is not to be relied upon. Gives who waits for that, and is to be
    /// woken.
    fn let_go(&self, entry: &mut Entry<W>) -> Vec<W> {
        self.keep(entry, false);
        if entry.is_clean() { std::mem::take(&mut entry.waits) } else { Vec::new() }
    }

    /// The journal could not take it. From now on writes go through; what is dirty is flushed from memory, and who waits for an
    /// acknowledgement gets it then.
    pub(super) fn is_failing(&self) {
        self.set_journal_fails(true);
        self.flush_all();
        let mut after = After { acks: Vec::new(), waits: Vec::new() };
        for mut shard in self.all_shards() {
            shard.retain(|key, entry| {
                if let Some(dirty) = &mut entry.dirty {
                    dirty.due = true;
                    self.list_if_ready(key, dirty);
                }
                after.waits.append(&mut self.let_go(entry));
                !entry.is_idle()
            });
        }
        self.tell(after);
    }

    /// All that the journal is to have, given what it has.
    pub(super) fn all_work(&self, has: &Loaded) -> ToJournal {
        // From here on what is flushed may come into the journal all the same.
        self.reopens.store(true, Ordering::SeqCst);
        let mut work = std::mem::take(&mut *self.to_journal.lock());
        work.keys = has.records.iter().map(|(key, _)| key.clone()).collect();
        work.lost.clear();
        work.cleared =
            has.conflicts.iter().map(|(id, _)| *id).filter(|id| !self.conflicts.has(*id)).collect();
        for mut shard in self.all_shards() {
            for (key, entry) in shard.iter_mut() {
                let Some(dirty) = &mut entry.dirty else { continue };
                match dirty.stage {
                    Stage::Reading => {}
                    Stage::Dirty => {
                        dirty.queued = true;
                        work.keys.push(key.clone());
                    }
                    Stage::Lost => work.lost.push(key.clone()),
                }
            }
        }
        work
    }

    /// Entries of the conflict log that the journal does not have, as when its file was removed.
    pub(super) fn conflicts_beyond(&self, has: &Loaded) -> Vec<(u64, Bytes)> {
        let kept: HashSet<u64> = has.conflicts.iter().map(|(id, _)| *id).collect();
        let all = self.conflicts.newest(usize::MAX).into_iter();
        all.filter(|entry| !kept.contains(&entry.id)).map(|entry| (entry.id, entry.encode())).collect()
    }

    /// Takes over what the journal has from before: dirty keys, to be flushed at once, and the conflict log. Gives how many there
    /// were of both, and of records that cannot be read.
    pub(super) fn take_over(&self, loaded: &Loaded, now: Micros) -> (usize, usize, usize) {
        let (mut keys, mut unreadable) = (0, 0);
        for (key, record) in &loaded.records {
            let Some(record) = Record::decode(record.clone()) else {
                unreadable += 1;
                continue;
            };
            self.above_versions(record.version);
            let mut shard = self.shard(key);
            let entry = shard.entry(key.clone()).or_default();
            if entry.dirty.is_some() {
                continue;
            }
            let mut dirty = Box::new(Dirty::of_record(record, now));
            self.note_dirty(dirty.size(key));
            self.list_if_ready(key, &mut dirty);
            entry.dirty = Some(dirty);
            keys += 1;
        }
        let read: Vec<_> =
            loaded.conflicts.iter().map(|(_, entry)| Conflict::decode(entry.clone())).collect();
        unreadable += read.iter().filter(|entry| entry.is_none()).count();
        let conflicts = read.into_iter().flatten().map(|conflict| {
            self.above_versions(conflict.id);
            self.conflicts.add(conflict);
        });
        (keys, conflicts.count(), unreadable)
    }

    /// The conflict log's newest entries, `most` at most.
    pub fn conflict_log(&self, most: usize) -> Vec<Conflict> {
        self.conflicts.newest(most)
    }

    /// How many entries the conflict log has, and the bytes that it takes.
    pub fn conflict_log_size(&self) -> (usize, usize) {
        (self.conflicts.len(), self.conflicts.bytes())
    }

    /// Takes all entries out of the conflict log.
    pub fn clear_conflicts(&self) {
        let ids = self.conflicts.ids();
        self.conflicts.remove(&ids);
        if self.journals && !ids.is_empty() {
            self.to_journal.lock().cleared.extend(ids);
            self.journal_bell.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::{OnConflict, Writing};

    struct Nobody;

    impl Waiter for Nobody {
        fn reply(self, _: bytes::Bytes) {}
        fn wake(self) {}
    }

    #[test]
    fn what_was_flushed_is_forgotten_with_what_comes_next_or_soon() {
        let writing = Writing {
            flush_after: Duration::ZERO,
            flush_bytes: 1 << 20,
            journal: Some("/nowhere".into()),
            ack: When::Disk,
            on_conflict: OnConflict::KeepRemote,
            journal_max: 1 << 20,
        };
        let engine = WriteBack::<Nobody>::new("n", &writing);
        let (soon, late) = (Duration::from_millis(20), Duration::from_secs(3600));
        engine.forget(b"a", false);
        let began = Instant::now();
        assert_eq!(engine.wait_for_work(Duration::ZERO, soon).flushed.len(), 1);
        assert!(began.elapsed() >= soon, "alone it waits");
        engine.forget(b"a", false);
        engine.to_journal.lock().keys.push((*b"b").into());
        let work = engine.wait_for_work(late, late);
        assert_eq!((work.flushed.len(), work.keys.len()), (1, 1), "at once with a write");
        engine.forget(b"a", false);
        engine.hurry();
        assert_eq!(engine.wait_for_work(late, late).flushed.len(), 1, "at once if somebody waits");
        engine.forget(b"a", true);
        assert_eq!(engine.wait_for_work(late, late).flushed.len(), 1, "who has waited before");
        engine.forget(b"a", false);
        engine.close();
        assert_eq!(engine.wait_for_work(late, late).flushed.len(), 1, "at once at the end");
    }
}
