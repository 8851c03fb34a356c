//! The dirty keys of one namespace: what clients write and read of them.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use hashbrown::DefaultHashBuilder;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;
use tracing::info;

use super::ack::Waiter;
use super::conflicts::Conflicts;
use super::dirty::{Dirty, Stage, ToldBy};
use super::op::{Base, Stands};
use super::queues::{Queues, ToJournal};
use super::stats::Stats;
use crate::cache::Micros;
use crate::namespace::{Ack as When, OnConflict, Writing};

const SHARDS: usize = 64;

/// How long after a flush the upstream's tracking may still tell of just that.
const OWN_REPORT: Micros = 20_000;

/// One key's place: dirty or not, and who minds.
pub(super) struct Entry<W> {
    pub(super) dirty: Option<Box<Dirty<W>>>,
    /// Requests that are under way on it, or wait for it to be clean: its writes go through meanwhile.
    pub(super) claims: u32,
    pub(super) waits: Vec<W>,
    /// It is flushed, and the journal may still have it: after a crash it would be flushed once more. Whoever goes through waits
    /// until that is over, lest it come back after what was done there since.
    pub(super) kept: bool,
    /// When the last flush of it was answered.
    pub(super) flushed: Micros,
}

impl<W> Default for Entry<W> {
    fn default() -> Self {
        Self { dirty: None, claims: 0, waits: Vec::new(), kept: false, flushed: 0 }
    }
}

impl<W> Entry<W> {
    pub(super) fn is_idle(&self) -> bool {
        self.is_clean() && self.claims == 0
    }

    pub(super) fn is_clean(&self) -> bool {
        self.dirty.is_none() && !self.kept
    }
}

pub(super) type Shard<W> = HashMap<Box<[u8]>, Entry<W>, DefaultHashBuilder>;

/// Whether writes are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    Yes,
    /// The journal cannot be written; they go through.
    JournalFails,
    /// Nearside is to end; they go through.
    Closing,
}

impl Open {
    pub fn takes(self) -> bool {
        self == Open::Yes
    }

    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Open::Yes => "yes",
            Open::JournalFails => "journal-fails",
            Open::Closing => "closing",
        }
    }
}

/// What a flush has to go by; changed at any time, each by itself.
pub(super) struct Rules {
    pub(super) flush_after: AtomicU64,
    pub(super) flush_bytes: AtomicUsize,
    pub(super) journal_max: AtomicUsize,
    on_conflict: AtomicU8,
}

/// See the [module](self).
pub struct WriteBack<W> {
    /// The namespace's.
    pub name: String,
    pub when: When,
    /// Whether what is dirty is on the disk, too.
    pub journals: bool,
    pub(super) rules: Rules,
    pub(super) shards: Box<[Mutex<Shard<W>>]>,
    hasher: DefaultHashBuilder,
    versions: AtomicU64,
    closing: AtomicBool,
    /// The journal cannot be written, or is not there yet; and it is being opened anew.
    journal_fails: AtomicBool,
    pub(super) reopens: AtomicBool,
    /// The upstream could not be reached when it was last tried.
    pub(super) away: AtomicBool,
    /// It has let a write wait too long for what stands there, and said nothing since.
    pub(super) slow: AtomicBool,
    /// Dirty keys that it has refused to flush, or to tell of, when that was last tried.
    refused: AtomicUsize,
    /// See [`refusal`](Self::refusal).
    pub(super) refusal: Mutex<String>,
    dirty: AtomicUsize,
    bytes: AtomicUsize,
    /// Entries that are [kept](Entry::kept).
    kept: AtomicUsize,
    /// Requests under way, or waiting, that may touch any key; and those that wait for all to be clean.
    pub(super) claims: AtomicUsize,
    pub(super) waits: Mutex<Vec<W>>,
    pub(super) queues: Mutex<Queues>,
    /// Rung for the flusher.
    pub(super) bell: Notify,
    pub(super) to_journal: Mutex<ToJournal>,
    pub(super) journal_bell: Condvar,
    pub(super) conflicts: Conflicts,
    pub stats: Stats,
}

impl<W: Waiter> WriteBack<W> {
    pub fn new(name: &str, writing: &Writing) -> Self {
        let rules = Rules {
            flush_after: AtomicU64::default(),
            flush_bytes: AtomicUsize::default(),
            journal_max: AtomicUsize::default(),
            on_conflict: AtomicU8::default(),
        };
        let engine = Self {
            name: name.into(),
            when: writing.ack,
            journals: writing.journal.is_some(),
            rules,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            versions: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            journal_fails: AtomicBool::new(false),
            reopens: AtomicBool::new(false),
            away: AtomicBool::new(false),
            slow: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
            refusal: Mutex::default(),
            dirty: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
            claims: AtomicUsize::new(0),
            waits: Mutex::default(),
            queues: Mutex::default(),
            bell: Notify::new(),
            to_journal: Mutex::default(),
            journal_bell: Condvar::new(),
            conflicts: Conflicts::default(),
            stats: Stats::default(),
        };
        engine.change(writing);
        engine
    }

    /// From now on these rules hold; journal and acknowledgement stay as they are.
    pub fn change(&self, writing: &Writing) {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let after = writing.flush_after.as_micros().min(u128::from(u64::MAX / 4)) as u64;
        // What waits has the old time; it is not to wait longer than the new one.
        if after < self.rules.flush_after.swap(after, Ordering::Relaxed) {
            self.flush_all();
        }
        self.rules.flush_bytes.store(size(writing.flush_bytes), Ordering::Relaxed);
        self.rules.journal_max.store(size(writing.journal_max), Ordering::Relaxed);
        self.rules.on_conflict.store(writing.on_conflict as u8, Ordering::Relaxed);
        self.bell.notify_one();
    }

    /// How long a write may wait to be flushed.
    pub fn flush_after(&self) -> Micros {
        self.rules.flush_after.load(Ordering::Relaxed)
    }

    pub(super) fn on_conflict(&self) -> OnConflict {
        let set = self.rules.on_conflict.load(Ordering::Relaxed);
        let all = [OnConflict::KeepRemote, OnConflict::KeepLocal, OnConflict::Newest];
        all.into_iter().find(|policy| *policy as u8 == set).unwrap_or(OnConflict::KeepRemote)
    }

    pub fn is_open(&self) -> Open {
        match () {
            () if self.closing.load(Ordering::SeqCst) => Open::Closing,
            () if self.journal_fails() => Open::JournalFails,
            () => Open::Yes,
        }
    }

    pub fn journal_fails(&self) -> bool {
        self.journal_fails.load(Ordering::SeqCst)
    }

    pub(super) fn set_journal_fails(&self, fails: bool) {
        self.journal_fails.store(fails, Ordering::SeqCst);
        self.reopens.store(false, Ordering::SeqCst);
    }

    /// Whether the journal may have what is flushed now, or get it yet.
    pub(super) fn keeps_now(&self) -> bool {
        self.journals_now() || self.journals && self.reopens.load(Ordering::SeqCst)
    }

    /// Whether a write waits for the journal before its flush is sent.
    pub(super) fn journals_now(&self) -> bool {
        self.journals && !self.journal_fails()
    }

    pub fn dirty(&self) -> usize {
        self.dirty.load(Ordering::SeqCst)
    }

    /// Whether nothing is dirty, nor [kept](Entry::kept).
    pub(super) fn is_clean(&self) -> bool {
        self.dirty() == 0 && self.kept.load(Ordering::SeqCst) == 0
    }

    /// Whether the end has come: nothing is dirty, and nothing will be.
    pub(super) fn is_over(&self) -> bool {
        let is_clean = || self.is_open() == Open::Closing && self.dirty() == 0;
        is_clean() && {
            // Whoever did not see that it is closing has left its key dirty by now.
            self.all_shards().for_each(drop);
            is_clean()
        }
    }

    /// Bytes of the dirty keys, about.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn place(&self, key: &[u8]) -> usize {
        self.hasher.hash_one(key) as usize % SHARDS
    }

    pub(super) fn shard(&self, key: &[u8]) -> MutexGuard<'_, Shard<W>> {
        self.shards[self.place(key)].lock()
    }

    pub(super) fn all_shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard<W>>> {
        self.shards.iter().map(Mutex::lock)
    }

    pub(super) fn next_version(&self) -> u64 {
        self.versions.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn above_versions(&self, version: u64) {
        self.versions.fetch_max(version, Ordering::Relaxed);
    }

    pub(super) fn note_dirty(&self, bytes: usize) {
        self.dirty.fetch_add(1, Ordering::SeqCst);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn note_clean(&self, bytes: usize) {
        self.dirty.fetch_sub(1, Ordering::SeqCst);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn keep(&self, entry: &mut Entry<W>, kept: bool) {
        match (std::mem::replace(&mut entry.kept, kept), kept) {
            (false, true) => drop(self.kept.fetch_add(1, Ordering::SeqCst)),
            (true, false) => drop(self.kept.fetch_sub(1, Ordering::SeqCst)),
            _ => {}
        }
    }

    pub(super) fn note_size(&self, before: usize, now: usize) {
        if now != before {
            self.bytes.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    /// The journal is to take the newest state of a key, once it is known what that is made upon.
    pub(super) fn journal_soon(&self, key: &[u8], dirty: &mut Dirty<W>) {
        if self.journals && !dirty.queued && dirty.stage == Stage::Dirty {
            dirty.queued = true;
            self.to_journal.lock().keys.push(key.into());
            self.journal_bell.notify_one();
        }
    }

    /// A key is clean: its record is to go, at once if somebody waits for that.
    pub(super) fn forget(&self, key: &[u8], hurry: bool) {
        if self.journals {
            let mut work = self.to_journal.lock();
            let is_news = work.is_empty() || hurry;
            work.flushed.push(key.into());
            work.hurry |= hurry;
            drop(work);
            if is_news {
                self.journal_bell.notify_one();
            }
        }
    }

    /// Somebody waits for what was flushed to be forgotten.
    pub(super) fn hurry(&self) {
        if self.journals {
            self.to_journal.lock().hurry = true;
            self.journal_bell.notify_one();
        }
    }

    /// It was told of a change of this key: what is dirty is flushed at once.
    pub fn told(&self, key: &[u8], by: ToldBy, now: Micros) {
        if self.dirty() == 0 {
            return;
        }
        let mut shard = self.shard(key);
        let Some(entry) = shard.get_mut(key) else { return };
        // The upstream's tracking tells of our own flushes, too. Whatever it means, the next flush finds out.
        let is_own = entry.flushed > 0 && now.saturating_sub(entry.flushed) < OWN_REPORT;
        let Some(dirty) = &mut entry.dirty else { return };
        if by == ToldBy::Tracking && (is_own || dirty.sent.is_some()) {
            return;
        }
        dirty.told = Some((now, by));
        if dirty.bases.is_empty() && dirty.stage == Stage::Dirty {
            // It was changed since: nothing but our own may stand there for the flush to be ours to make.
            let before = dirty.size(key);
            dirty.insist(Base::left_by(&dirty.op));
            self.note_size(before, dirty.size(key));
            self.journal_soon(key, dirty);
        }
        dirty.due = true;
        self.list_if_ready(key, dirty);
    }

    /// It was told that anything may have changed.
    pub fn told_all(&self) {
        if self.dirty() > 0 {
            self.flush_all();
        }
    }

    /// All that is dirty is to be flushed now.
    pub fn flush_all(&self) {
        self.queues.lock().hurry();
        self.bell.notify_one();
    }

    /// No write is taken any more, and all that is dirty is flushed.
    pub fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.flush_all();
        self.journal_bell.notify_one();
    }

    /// Lists it for the flusher, if it can be flushed now; or to be read, if it has to be before.
    pub(super) fn list_if_ready(&self, key: &[u8], dirty: &mut Dirty<W>) {
        if dirty.is_to_be_read() {
            dirty.reads = true;
            self.queues.lock().unread.push_back(key.into());
            self.bell.notify_one();
        }
        if !dirty.listed && dirty.is_ready(self.journals_now()) {
            dirty.listed = true;
            self.queues.lock().ready.push_back(key.into());
            self.bell.notify_one();
        }
    }

    /// How a key stands, in words for a person; nothing if it is clean.
    pub fn describe(&self, key: &[u8], now: Micros) -> Option<String> {
        let shard = self.shard(key);
        let dirty = shard.get(key)?.dirty.as_ref()?;
        let stage = match dirty.stage {
            Stage::Reading => "reads what stands upstream",
            Stage::Dirty if dirty.sent.is_some() => "is being flushed",
            Stage::Dirty => "waits to be flushed",
            Stage::Lost => "goes into the conflict log",
        };
        let base = match dirty.bases.first().map(|base| &base.stands) {
            None => "unknown",
            Some(Stands::Absent) => "absent",
            Some(Stands::Value(_) | Stands::Hashed(_)) => "known",
            Some(Stands::Other) => "of another type",
        };
        let age = std::time::Duration::from_micros(now.saturating_sub(dirty.since) / 1000 * 1000);
        let age = humantime::format_duration(age);
        let journal = match (self.journals, dirty.journaled == dirty.version) {
            (false, _) => "no journal",
            (true, true) => "in the journal",
            (true, false) => "not in the journal yet",
        };
        Some(format!("dirty: since {age}, {stage}, its base is {base}, {journal}"))
    }

    /// How long the oldest dirty key has been dirty, if any is. Looks at all of them.
    pub fn oldest_age(&self, now: Micros) -> Option<Micros> {
        if self.dirty() == 0 {
            return None;
        }
        let of_shard = |shard: MutexGuard<'_, Shard<W>>| {
            shard.values().filter_map(|entry| entry.dirty.as_ref()).map(|dirty| dirty.since).min()
        };
        self.all_shards().filter_map(of_shard).min().map(|since| now.saturating_sub(since))
    }

    pub(super) fn has_waits(&self) -> bool {
        !self.waits.lock().is_empty()
    }

    /// Whether the upstream could not be reached when it was last tried.
    pub fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// Whether it is in vain, for now, to wait for what stands upstream.
    pub(super) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Whether there are dirty keys that could not be flushed when that was last tried.
    pub(super) fn has_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed) > 0
    }

    /// Whether a key is one of these was so before, and is now.
    pub(super) fn note_refused(&self, before: bool, now: bool) {
        match (before, now) {
            (false, true) => drop(self.refused.fetch_add(1, Ordering::Relaxed)),
            (true, false) if self.refused.fetch_sub(1, Ordering::Relaxed) == 1 => {
                if !self.is_away() {
                    self.refusal.lock().clear();
                }
                if self.stats.refused_told.over() {
                    info!(namespace = self.name, "flushes are done again");
                }
            }
            _ => {}
        }
    }

    /// What the upstream said when it refused the last flush, or that it cannot be reached; nothing if neither is so.
    pub fn refusal(&self) -> String {
        self.refusal.lock().clone()
    }

    /// The upstream, or nearside for it, has refused something with these words. Gives them as they are told to a person.
    pub(super) fn note_refusal(&self, said: &[u8]) -> String {
        let said = String::from_utf8_lossy(said).trim_end().trim_start_matches('-').to_owned();
        self.refusal.lock().clone_from(&said);
        said
    }

    /// Whether the upstream can be reached turned out; if not these are the words for it.
    pub(super) fn note_away(&self, said: Option<&[u8]>) {
        if self.away.swap(said.is_some(), Ordering::Relaxed) == said.is_some() {
            return;
        }
        match said {
            Some(said) => drop(self.note_refusal(said)),
            None => self.refusal.lock().clear(),
        }
    }

    /// Wakes those who wait for all to be clean, if it is.
    pub(super) fn wake_if_clean(&self) {
        if self.is_open() == Open::Closing {
            // The flusher looks whether that was all.
            self.bell.notify_one();
        }
        if self.is_clean() {
            let waits = std::mem::take(&mut *self.waits.lock());
            waits.into_iter().for_each(W::wake);
        }
    }
}
