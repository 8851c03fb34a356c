//! What clients write and read of the dirty keys.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::MutexGuard;

use super::ack::{Ack, Parts, Waiter};
use super::dirty::{Dirty, Stage};
use super::engine::{Entry, Open, Shard, WriteBack};
use super::op::{Base, Op};
use crate::cache::Micros;
use crate::namespace::Ack as When;

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// It is acknowledged; whether the key was there before, as far as that is known.
    Done { existed: bool },
    /// Its client will be told.
    Waits,
    /// It is to go upstream, behind the flush of what is dirty under its key.
    Through,
    /// The journal is full, and the upstream is away.
    Full,
}

impl<W: Waiter> WriteBack<W> {
    /// What is read of a dirty key: its value, or `None` if it is deleted. Nothing if it is clean.
    pub fn read(&self, key: &[u8]) -> Option<Option<Bytes>> {
        if self.dirty() == 0 {
            return None;
        }
        let shard = self.shard(key);
        let dirty = shard.get(key)?.dirty.as_ref()?;
        Some(dirty.op.value().cloned())
    }

    /// Takes a write. `base` tells what stands upstream, if that is known; `ticket` is for who waits. `reply` is what it is
    /// answered with, by whether the key was there before.
    pub fn write(
        &self,
        key: &[u8],
        op: Op,
        now: Micros,
        base: impl FnOnce() -> Option<Base>,
        ticket: impl FnOnce() -> W,
    ) -> Written {
        let is_delete = op == Op::Delete;
        let mut shard = self.shard(key);
        let entry = shard.get_mut(key);
        if let Err(written) = self.may_take(entry.as_deref(), 512 + key.len() + op.size()) {
            return written;
        }
        let (written, dirty) = match entry.and_then(|entry| entry.dirty.as_mut()) {
            Some(dirty) => (self.coalesce(dirty, key, op, now), Some(dirty)),
            None => {
                let written = self.begin(&mut shard, key, op, now, base);
                (written, shard.get_mut(key).and_then(|entry| entry.dirty.as_mut()))
            }
        };
        // What is deleted, and was not there, is not dirty.
        let (Written::Done { existed }, Some(dirty)) = (&written, dirty) else { return written };
        if dirty.stage == Stage::Dirty && self.when == When::Memory {
            return written;
        }
        let reply: &'static [u8] = match (is_delete, existed) {
            (false, _) => b"+OK\r\n",
            (true, true) => b":1\r\n",
            (true, false) => b":0\r\n",
        };
        dirty.acks.push((dirty.version, Ack::One(ticket(), reply)));
        Written::Waits
    }

    /// Takes the writes of several keys, all or none: acknowledged together. `base` as above, for each.
    pub fn write_all(
        &self,
        writes: Vec<(Box<[u8]>, Op)>,
        now: Micros,
        mut base: impl FnMut(&[u8]) -> Option<Base>,
        ticket: impl FnOnce() -> W,
    ) -> Written {
        let mut places: Vec<_> = writes.iter().map(|(key, _)| self.place(key)).collect();
        places.sort_unstable();
        places.dedup();
        let mut shards: Vec<_> = places.iter().map(|place| (*place, self.shards[*place].lock())).collect();
        let bytes = writes.iter().map(|(key, op)| 512 + key.len() + op.size()).sum();
        for (key, _) in &writes {
            if let Some(Err(written)) =
                self.among(&mut shards, key).map(|shard| self.may_take(shard.get(key), bytes))
            {
                return written;
            }
        }
        let mut waits = Vec::new();
        for (key, op) in writes {
            let Some(shard) = self.among(&mut shards, &key) else { continue };
            // Not asked again whether it may be: another thread may say no by now, and it is all or none.
            match shard.get_mut(&key).and_then(|entry| entry.dirty.as_mut()) {
                Some(dirty) => self.coalesce(dirty, &key, op, now),
                None => self.begin(shard, &key, op, now, || base(&key)),
            };
            if let Some(dirty) = shard.get(&key).and_then(|entry| entry.dirty.as_ref())
                && (dirty.stage == Stage::Reading || self.when == When::Disk)
            {
                waits.push((key, dirty.version));
            }
        }
        if waits.is_empty() {
            return Written::Done { existed: true };
        }
        let parts = Parts::new(waits.len(), ticket(), b"+OK\r\n");
        for (key, version) in waits {
            let entry = self.among(&mut shards, &key).and_then(|shard| shard.get_mut(&key));
            if let Some(dirty) = entry.and_then(|entry| entry.dirty.as_mut()) {
                dirty.acks.push((version, Ack::Part(parts.clone())));
            }
        }
        Written::Waits
    }

    /// The shard of this key, among these.
    fn among<'s>(
        &self,
        shards: &'s mut [(usize, MutexGuard<'_, Shard<W>>)],
        key: &[u8],
    ) -> Option<&'s mut Shard<W>> {
        let place = self.place(key);
        shards.iter_mut().find(|(known, _)| *known == place).map(|(_, shard)| &mut **shard)
    }

    /// Whether a write of a key with this entry is taken.
    fn may_take(&self, entry: Option<&Entry<W>>, bytes: usize) -> Result<(), Written> {
        if self.is_open() != Open::Yes {
            return Err(Written::Through);
        }
        // Whoever claims all counts itself before it looks whether anything is dirty, under this lock.
        let of_all = self.claims.load(Ordering::SeqCst);
        let claims = of_all + entry.map_or(0, |entry| entry.claims as usize);
        match entry.and_then(|entry| entry.dirty.as_ref()) {
            Some(dirty) if dirty.stage == Stage::Lost => return Err(Written::Through),
            // Who has claimed it still waits: it was not clean since. While the upstream is away, or refuses it, that is in vain.
            Some(dirty) if claims > 0 && !self.is_away() && dirty.refused == 0 => {
                return Err(Written::Through);
            }
            None if claims > 0 => return Err(Written::Through),
            _ => {}
        }
        let used = self.bytes() + self.conflicts.bytes() + bytes;
        if used > self.rules.journal_max.load(Ordering::Relaxed) {
            self.stats.full.inc();
            return Err(if self.away.load(Ordering::Relaxed) { Written::Full } else { Written::Through });
        }
        Ok(())
    }

    /// Takes a write that [may be](WriteBack::may_take), of a key that is dirty. Only of a deletion it can turn out that it has
    /// to go through.
    fn coalesce(&self, dirty: &mut Dirty<W>, key: &[u8], op: Op, now: Micros) -> Written {
        if op == Op::Delete && dirty.stage == Stage::Reading {
            // What to answer is not known.
            return Written::Through;
        }
        let before = dirty.size(key);
        let existed = dirty.op.value().is_some();
        dirty.write(op, self.next_version(), now);
        self.note_size(before, dirty.size(key));
        self.journal_soon(key, dirty);
        self.stats.acknowledged.inc();
        self.stats.coalesced.inc();
        Written::Done { existed }
    }

    /// Likewise of a key that is clean.
    fn begin(
        &self,
        shard: &mut Shard<W>,
        key: &[u8],
        op: Op,
        now: Micros,
        base: impl FnOnce() -> Option<Base>,
    ) -> Written {
        let base = base();
        let existed = base.as_ref().map(Base::existed);
        if op == Op::Delete {
            match existed {
                None => return Written::Through,
                Some(false) => return Written::Done { existed: false },
                Some(true) => {}
            }
        }
        let mut dirty = Box::new(Dirty::new(op, self.next_version(), now, base));
        if self.is_away() || self.is_slow() {
            // It is acknowledged all the same, and read before it is flushed.
            dirty.stage = Stage::Dirty;
        }
        let reads = dirty.stage == Stage::Reading;
        dirty.due_at = now + self.flush_after();
        self.note_dirty(dirty.size(key));
        let mut queues = self.queues.lock();
        let is_first = queues.next().is_none_or(|next| dirty.due_at < next);
        queues.at(dirty.due_at, key);
        if reads {
            queues.awaited.push(key.into());
        }
        if self.bytes() > self.rules.flush_bytes.load(Ordering::Relaxed) {
            queues.hurry();
            self.bell.notify_one();
        }
        if reads || is_first {
            self.bell.notify_one();
        }
        drop(queues);
        self.journal_soon(key, &mut dirty);
        shard.entry(key.into()).or_default().dirty = Some(dirty);
        self.stats.acknowledged.inc();
        Written::Done { existed: existed.unwrap_or(false) }
    }
}
