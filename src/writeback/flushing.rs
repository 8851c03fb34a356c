//! What the flusher is given to do, and what follows from how that went.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use tracing::warn;

use super::ack::{Ack, Waiter};
use super::dirty::{Dirty, Next, Stage, Verdict};
use super::engine::{Open, WriteBack};
use super::op::{Base, Op, Stands, unix_ms};
use super::queues::Key;
use super::record::Conflict;
use crate::cache::Micros;
use crate::namespace::{Ack as When, OnConflict};

/// Keys whose time has come that are looked at in one go.
const MOST_DUE: usize = 4096;

/// A flush to be made.
#[derive(Clone, Debug)]
pub(super) struct Flush {
    pub(super) key: Key,
    pub(super) op: Op,
    pub(super) bases: Vec<Base>,
}

/// What is to be told to clients once no lock is held.
pub(super) struct After<W> {
    pub(super) acks: Vec<Ack<W>>,
    pub(super) waits: Vec<W>,
}

impl<W: Waiter> WriteBack<W> {
    /// Keys of which it is to be read what stands upstream, and whose clients wait for that.
    pub(super) fn take_awaited(&self) -> Vec<Key> {
        std::mem::take(&mut self.queues.lock().awaited)
    }

    /// Others of which it is to be read, `most` at most.
    pub(super) fn take_unread(&self, most: usize) -> Vec<Key> {
        let unread = &mut self.queues.lock().unread;
        let most = most.min(unread.len());
        unread.drain(..most).collect()
    }

    /// Whether keys are listed to be flushed now.
    pub(super) fn has_ready(&self) -> bool {
        !self.queues.lock().ready.is_empty()
    }

    /// When the next key is to be flushed, of those whose time is known.
    pub(super) fn next_time(&self) -> Option<Micros> {
        self.queues.lock().next()
    }

    /// What is to be flushed now, `most` at most.
    pub(super) fn take_flushes(&self, most: usize, now: Micros) -> Vec<Flush> {
        let due = self.queues.lock().due(now, MOST_DUE);
        for (when, key) in due {
            // Another time than its own is a stale one.
            if let Some(dirty) = self.shard(&key).get_mut(&key).and_then(|entry| entry.dirty.as_mut())
                && dirty.due_at == when
            {
                dirty.due = true;
                self.list_if_ready(&key, dirty);
            }
        }
        self.drop_stale_times();
        let mut flushes = Vec::new();
        while flushes.len() < most {
            let Some(key) = self.queues.lock().ready.pop_front() else { break };
            let mut shard = self.shard(&key);
            let Some(dirty) = shard.get_mut(&key).and_then(|entry| entry.dirty.as_mut()) else { continue };
            dirty.listed = false;
            if dirty.is_ready(self.journals_now()) {
                dirty.send();
                let (op, bases) = (dirty.op.clone(), dirty.may_stand());
                drop(shard);
                flushes.push(Flush { key, op, bases });
            }
        }
        flushes
    }

    fn drop_stale_times(&self) {
        let keys = self.dirty();
        if !self.queues.lock().are_too_many(keys) {
            return;
        }
        let mut queues = std::mem::take(&mut *self.queues.lock());
        queues.retain(|when, key| {
            self.shard(key)
                .get(key)
                .and_then(|entry| entry.dirty.as_ref())
                .is_some_and(|dirty| dirty.due_at == when)
        });
        let mut now = self.queues.lock();
        now.take_over(queues);
    }

    /// What stands under a key upstream is still being read, and its clients have waited long enough for that.
    pub(super) fn is_not_awaited(&self, key: &[u8]) {
        let mut shard = self.shard(key);
        let Some(dirty) = shard.get_mut(key).and_then(|entry| entry.dirty.as_mut()) else { return };
        if dirty.stage != Stage::Reading {
            return;
        }
        (dirty.stage, dirty.reads) = (Stage::Dirty, true);
        self.journal_soon(key, dirty);
        let acks = self.acks_without_disk(dirty);
        drop(shard);
        acks.into_iter().for_each(Ack::done);
    }

    /// Clients that did not wait for the disk, but for what stands upstream.
    fn acks_without_disk(&self, dirty: &mut Dirty<W>) -> Vec<Ack<W>> {
        match self.when {
            When::Memory => dirty.take_acks(dirty.version),
            When::Disk => Vec::new(),
        }
    }

    /// What stands under a key upstream was read; or `None`: it cannot be.
    pub(super) fn was_read(&self, key: &[u8], base: Option<Base>, now: Micros) {
        let mut shard = self.shard(key);
        let Some(dirty) = shard.get_mut(key).and_then(|entry| entry.dirty.as_mut()) else { return };
        let is_first = dirty.stage == Stage::Reading;
        if !is_first && !dirty.reads {
            return;
        }
        let before = dirty.size(key);
        let is_new = dirty.was_read(base);
        self.note_size(before, dirty.size(key));
        if !is_new && !is_first && dirty.bases.is_empty() {
            self.note_refused(dirty.refused > 0, true);
            dirty.rest(now);
            self.queues.lock().at(dirty.due_at, key);
        }
        if is_new {
            // A record that does not know it would have it read anew after a crash, though a flush had been sent.
            dirty.version = self.next_version();
        }
        if is_new || is_first {
            self.journal_soon(key, dirty);
        }
        let acks = self.acks_without_disk(dirty);
        self.list_if_ready(key, dirty);
        drop(shard);
        acks.into_iter().for_each(Ack::done);
    }

    /// The upstream has answered so when it was asked what stands under a dirty key.
    pub(super) fn note_unreadable(&self, said: &[u8]) {
        let said = self.note_refusal(said);
        if let Some(untold) = self.stats.refused_told.of(&said) {
            warn!(namespace = self.name, reply = %said, dirty = self.dirty(), untold, "what stands upstream under a dirty key cannot be \
                read, and without that it is not flushed; it is tried again: see what the upstream says");
        }
    }

    /// What became of a flush; `said` are the upstream's words if it was refused.
    pub(super) fn flushed(&self, key: &[u8], verdict: Verdict, said: &[u8], now: Micros) {
        match &verdict {
            Verdict::Done => self.stats.flushes.inc(),
            Verdict::Conflict(_) => self.stats.conflicts.inc(),
            Verdict::Refused => self.stats.refused.inc(),
            Verdict::Unknown => self.stats.unknown.inc(),
        }
        if matches!(verdict, Verdict::Refused | Verdict::Unknown) {
            let said = self.note_refusal(said);
            if let Some(untold) = self.stats.refused_told.of(&said) {
                warn!(namespace = self.name, reply = %said, dirty = self.dirty(), untold, "a flush was not done; its write is \
                    kept, and it is tried again: see what the upstream says");
            }
        } else {
            self.note_away(None);
        }
        let mut shard = self.shard(key);
        let Some(entry) = shard.get_mut(key) else { return };
        entry.flushed = now;
        let Some(mut dirty) = entry.dirty.take() else { return };
        let (before, was_refused) = (dirty.size(key), dirty.refused > 0);
        let mut after = After { acks: Vec::new(), waits: Vec::new() };
        match dirty.flushed(verdict, now) {
            Next::Clean => {
                self.note_refused(was_refused, false);
                after.acks = dirty.take_acks(dirty.version);
                self.keep(entry, self.keeps_now());
                let hurry = !entry.waits.is_empty() || self.has_waits();
                if entry.is_clean() {
                    after.waits = std::mem::take(&mut entry.waits);
                }
                if entry.is_idle() {
                    shard.remove(key);
                }
                drop(shard);
                // In this order: when nothing is dirty at the end, the journal was told of all.
                self.forget(key, hurry);
                self.note_clean(before);
                return self.tell(after);
            }
            Next::Again(version) => {
                // If the journal fails, they waited for this.
                after.acks = dirty.take_acks(version);
                dirty.due_at = now + self.flush_after();
                dirty.due = !entry.waits.is_empty() || self.is_pressed();
                self.queues.lock().at(dirty.due_at, key);
                self.journal_soon(key, &mut dirty);
            }
            Next::Retry => {
                dirty.rest(now);
                self.queues.lock().at(dirty.due_at, key);
            }
            Next::Conflict => self.resolve(key, &mut dirty),
        }
        self.note_refused(was_refused, dirty.refused > 0);
        self.note_size(before, dirty.size(key));
        self.list_if_ready(key, &mut dirty);
        let is_lost = dirty.stage == Stage::Lost;
        entry.dirty = Some(dirty);
        drop(shard);
        after.acks.into_iter().for_each(Ack::done);
        if is_lost && !self.journals {
            self.is_logged(key, now);
        }
    }

    /// Whether all is to be flushed as soon as it can be: nearside ends, or somebody waits for everything.
    fn is_pressed(&self) -> bool {
        self.is_open() != Open::Yes
            || self.has_waits()
            || self.bytes() > self.rules.flush_bytes.load(Ordering::Relaxed)
    }

    /// Another has written there.
    fn resolve(&self, key: &[u8], dirty: &mut Dirty<W>) {
        let found = dirty.found.clone().unwrap_or_default();
        let policy = self.on_conflict();
        // By when it came to be known here: what nobody has told of is only known now.
        let is_newest = || dirty.told.is_some_and(|(at, _)| at <= dirty.arrived);
        let insists = match policy {
            OnConflict::KeepLocal => true,
            OnConflict::Newest => is_newest(),
            OnConflict::KeepRemote => false,
        };
        if let Some(untold) = self.stats.conflicts_told.now() {
            let what = if insists { "ours is written over it" } else { "ours goes into the conflict log" };
            let (key, told_by) = (key.escape_ascii(), dirty.told_by().name());
            warn!(namespace = self.name, %key, told_by, untold, "another has written a dirty key upstream: {what} (on-conflict); \
                see NEARSIDE CONFLICTS");
        }
        match insists {
            true => {
                dirty.insist(Base::of_stamp(&found));
                dirty.due = true;
                self.journal_soon(key, dirty);
            }
            false => {
                dirty.stage = Stage::Lost;
                if self.journals {
                    self.to_journal.lock().lost.push(key.into());
                    self.journal_bell.notify_one();
                }
            }
        }
    }

    /// The conflict log's entry for a key that is to go there.
    pub(super) fn conflict(&self, key: &[u8], now: Micros) -> Option<Conflict> {
        let at = unix_ms();
        let time = |of: Micros| at.saturating_sub(now.saturating_sub(of) / 1000);
        let shard = self.shard(key);
        let dirty = shard.get(key)?.dirty.as_ref().filter(|dirty| dirty.stage == Stage::Lost)?;
        Some(Conflict {
            id: self.next_version(),
            at,
            written: time(dirty.arrived),
            told: dirty.told.map_or(at, |(told, _)| time(told)),
            key: Bytes::copy_from_slice(key),
            ours: dirty.op.clone(),
            theirs: dirty.found.clone().unwrap_or_default(),
            told_by: Bytes::from_static(dirty.told_by().name().as_bytes()),
        })
    }

    /// The conflict log has it, or there is no journal to keep it: the key is clean.
    pub(super) fn is_logged(&self, key: &[u8], now: Micros) {
        if !self.journals
            && let Some(conflict) = self.conflict(key, now)
        {
            self.conflicts.add(conflict);
        }
        let mut shard = self.shard(key);
        let Some(entry) = shard.get_mut(key) else { return };
        let Some(mut dirty) = entry.dirty.take_if(|dirty| dirty.stage == Stage::Lost) else { return };
        self.stats.lost.inc();
        self.keep(entry, false);
        let waits = std::mem::take(&mut entry.waits);
        if entry.is_idle() {
            shard.remove(key);
        }
        drop(shard);
        self.note_clean(dirty.size(key));
        self.tell(After { acks: dirty.take_acks(dirty.version), waits });
    }

    pub(super) fn tell(&self, after: After<W>) {
        after.acks.into_iter().for_each(Ack::done);
        after.waits.into_iter().for_each(W::wake);
        self.wake_if_clean();
    }
}

/// What a reply to `GET`, and the one to `PTTL` behind it, tell of what stands upstream; `None` if nothing.
pub(super) fn base_of(value: &[u8], ttl: &[u8]) -> Option<Base> {
    let stands = Stands::of_reply(value)?;
    let left = ttl
        .strip_prefix(b":")
        .and_then(|ttl| std::str::from_utf8(ttl.trim_ascii()).ok()?.parse::<u64>().ok());
    Some(Base { stands, until: left.map(|left| unix_ms() + left) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_tell_what_stands_upstream() {
        let of = |value: &str, ttl: &str| base_of(value.as_bytes(), ttl.as_bytes());
        assert_eq!(of("$-1\r\n", ":-2\r\n"), Some(Base::ABSENT));
        assert_eq!(of("_\r\n", ":-2\r\n"), Some(Base::ABSENT));
        let value = of("$3\r\na\r\n\r\n", ":-1\r\n").unwrap();
        assert_eq!(value, Base { stands: Stands::Value(Bytes::from_static(b"a\r\n")), until: None });
        let ends = of("$1\r\na\r\n", ":60000\r\n").unwrap().until.unwrap();
        assert!((unix_ms() + 50_000..=unix_ms() + 60_000).contains(&ends));
        assert_eq!(of("-WRONGTYPE no\r\n", ":-1\r\n").unwrap().stands, Stands::Other);
        assert_eq!(of("-ERR nearside: away\r\n", "-ERR"), None);
    }
}
