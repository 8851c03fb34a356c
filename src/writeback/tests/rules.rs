//! What must be true of a world after each step, and at the end.

use super::super::dirty::{Dirty, Stage};
use super::super::engine::Open;
use super::super::queues::Key;
use super::fakes::{Client, KEYS, name};
use super::model::{Own, World};

type Checked = Result<(), String>;

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(otherwise()) }
}

impl World {
    pub fn check(&self) -> Checked {
        self.check_acknowledged()?;
        (0..KEYS).try_for_each(|key| self.check_read(key))?;
        self.check_counters()?;
        self.check_claims()?;
        self.check_nothing_is_stuck()
    }

    fn is_logged(&self, own: &Own) -> bool {
        let log = self.engine.conflict_log(usize::MAX);
        own.cleared || log.iter().any(|entry| entry.key == *name(own.key) && entry.ours == own.op)
    }

    /// It, or what came after it, is to be flushed.
    fn is_dirty(&self, at: usize) -> bool {
        let own = &self.owns[at];
        self.newest[own.key] >= Some(at) && self.engine.read(&name(own.key)).is_some()
    }

    /// What DESIGN says about what was acknowledged.
    fn check_acknowledged(&self) -> Checked {
        for (at, own) in self.owns.iter().enumerate() {
            let is_settled = |later: &Own| later.acked || later.reached || self.is_logged(later);
            let is_superseded =
                || self.owns[at + 1..].iter().any(|later| later.key == own.key && is_settled(later));
            let is_kept = || {
                own.reached || own.may_be_lost || is_superseded() || self.is_dirty(at) || self.is_logged(own)
            };
            ensure(!own.acked || is_kept(), || format!("write {at} of {:?} is lost", own.op))?;
        }
        Ok(())
    }

    /// The newest write is read here until it is settled.
    fn check_read(&self, key: usize) -> Checked {
        let newest = self.newest[key].map(|at| &self.owns[at]);
        match (self.engine.read(&name(key)), newest) {
            (Some(value), Some(own)) => ensure(value == own.op.value().cloned(), || {
                format!("of key {key} {value:?} is read, and {:?} was written", own.op)
            }),
            (Some(value), None) => Err(format!("of key {key} {value:?} is read, which nobody wrote")),
            (None, Some(own)) => ensure(own.reached || self.is_logged(own), || {
                format!("{:?} of key {key} is clean, and not settled", own.op)
            }),
            (None, None) => Ok(()),
        }
    }

    fn check_counters(&self) -> Checked {
        let (mut keys, mut bytes) = (0, 0);
        for shard in self.engine.all_shards() {
            for (key, dirty) in shard.iter().filter_map(|(key, entry)| Some((key, entry.dirty.as_ref()?))) {
                keys += 1;
                bytes += dirty.size(key);
            }
        }
        let counted = (self.engine.dirty(), self.engine.bytes());
        ensure(counted == (keys, bytes), || format!("{counted:?} are counted, and there are {keys}, {bytes}"))
    }

    /// What is clean under a claim stays so.
    fn check_claims(&self) -> Checked {
        for (claim, was_clean) in &self.claims {
            let is_clean = claim.is_clean();
            ensure(is_clean || !was_clean.get(), || "a key became dirty under a claim".into())?;
            was_clean.set(is_clean);
        }
        Ok(())
    }

    /// There is somebody to mind every dirty key.
    fn check_nothing_is_stuck(&self) -> Checked {
        for key in 0..KEYS {
            let name = name(key);
            let shard = self.engine.shard(&name);
            if let Some(dirty) = shard.get(&name).and_then(|entry| entry.dirty.as_ref()) {
                self.check_is_minded(&name, dirty).map_err(|why| {
                    format!("key {key} is stuck: {why} ({:?}, version {})", dirty.stage, dirty.version)
                })?;
            }
        }
        Ok(())
    }

    fn check_is_minded(&self, key: &Key, dirty: &Dirty<Client>) -> Checked {
        let (queues, work) = (self.engine.queues.lock(), self.engine.to_journal.lock());
        let is_failing = self.engine.is_open() == Open::JournalFails;
        let batch = self.pending.as_ref().map(|pending| &pending.batch);
        let is_put = batch.is_some_and(|batch| batch.puts.iter().any(|(put, _)| put == key));
        let is_logged = batch.is_some_and(|batch| batch.removes.contains(key));
        let to_journal = is_failing || is_put || dirty.queued && work.keys.contains(key);
        let why = match dirty.stage {
            Stage::Reading if queues.awaited.contains(key) || self.reading.contains(key) => return Ok(()),
            Stage::Reading => "nobody reads it",
            Stage::Lost if !self.engine.journals => "it is not logged",
            Stage::Lost if is_failing || is_logged || work.lost.contains(key) => return Ok(()),
            Stage::Lost => "the conflict log does not get it",
            _ if self.engine.journals && dirty.journaled != dirty.version && !to_journal => {
                "the journal does not get it"
            }
            _ if dirty.sent.is_some() => {
                let is_sent = self.flights.iter().any(|flight| flight.flush.key == *key);
                return ensure(is_sent, || "its flush is not under way".into());
            }
            _ if dirty.reads => {
                let is_read = queues.unread.contains(key) || self.reading.contains(key);
                return ensure(is_read, || "nobody reads it again".into());
            }
            _ if dirty.listed && queues.ready.contains(key) => return Ok(()),
            _ if !dirty.due && queues.has(dirty.due_at, key) => return Ok(()),
            _ if !dirty.due => "its time does not come",
            _ if dirty.journaled != dirty.version && !is_failing => return Ok(()),
            _ => "it is due, and not listed",
        };
        Err(why.into())
    }

    /// All who waited for something to be clean were told.
    pub fn check_sleepers(&self) -> Checked {
        ensure(self.sleeping.is_empty(), || format!("{:?} were not woken", self.sleeping))
    }

    /// Whether there is nothing left to be done.
    pub fn is_over(&self) -> bool {
        let is_idle = self.pending.is_none() && self.engine.to_journal.lock().is_empty();
        is_idle && self.engine.dirty() == 0 && self.engine.is_open() == Open::Yes && self.flights.is_empty()
    }

    /// Nothing is left.
    pub fn check_settled(&self) -> Checked {
        ensure(self.engine.dirty() == 0, || format!("{} keys stay dirty", self.engine.dirty()))?;
        ensure(self.waiting.is_empty(), || format!("{:?} were not answered", self.waiting))?;
        let entries: usize = self.engine.all_shards().map(|shard| shard.len()).sum();
        ensure(entries == 0, || format!("{entries} clean keys have a place"))?;
        let records = &self.disk.records;
        ensure(records.is_empty(), || format!("the journal has {records:?}, and nothing is dirty"))?;
        let known: Vec<_> = self.engine.conflict_log(usize::MAX).iter().map(|entry| entry.id).collect();
        let on_disk: Vec<_> = self.disk.conflicts.keys().copied().collect();
        ensure(!self.engine.journals || known == on_disk, || {
            format!("the conflict log is {known:?}, and {on_disk:?} on the disk")
        })
    }
}
