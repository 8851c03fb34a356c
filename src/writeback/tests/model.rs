//! The engine in a world of fakes: clients, an upstream with other writers, a disk, a link that is lost, a process that dies.
//!
//! After each step the [rules](super::rules) are asked.

use std::cell::Cell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::claim::Claim;
use super::super::dirty::{ToldBy, Verdict};
use super::super::engine::{Open, WriteBack};
use super::super::flushing::Flush;
use super::super::journaling;
use super::super::op::Op;
use super::super::queues::Key;
use super::super::record::Record;
use super::super::store::Batch;
use super::super::taking::Written;
use super::fakes::{By, Client, Disk, KEYS, State, Told, Upstream, name, number, op};
use super::steps::{Knows, Step};
use crate::cache::Micros;
use crate::namespace::{Ack, OnConflict, Writing};

/// A write of the sidecar's clients; later ones of a key have higher numbers.
pub struct Own {
    pub key: usize,
    pub op: Op,
    pub acked: bool,
    /// It was at some time what the upstream has.
    pub reached: bool,
    /// It was in the conflict log when that was cleared.
    pub cleared: bool,
    /// It was acknowledged in memory only, and the process has died.
    pub may_be_lost: bool,
}

pub struct Flight {
    pub flush: Flush,
    own: usize,
    executed: Option<Verdict>,
}

/// What the journal's thread has taken and not yet committed.
pub struct Pending {
    pub batch: Batch,
    written: journaling::Written,
    reopens: bool,
}

/// How a world is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    Nothing,
    OverwritesBlindly,
    AcknowledgesEarly,
}

pub struct World {
    writing: Writing,
    broken: Broken,
    pub engine: Arc<WriteBack<Client>>,
    pub told: Told,
    now: Micros,
    upstream: Upstream,
    pub disk: Disk,
    cached: [Option<State>; KEYS],
    pub owns: Vec<Own>,
    /// The newest write of a key that is known to the sidecar.
    pub newest: [Option<usize>; KEYS],
    versions: HashMap<u64, usize>,
    /// Clients that wait for an acknowledgement, of these writes; and those that wait for a key to be clean.
    pub waiting: HashMap<usize, Vec<usize>>,
    pub sleeping: HashSet<usize>,
    clients: usize,
    pub flights: VecDeque<Flight>,
    pub reading: VecDeque<Key>,
    pub pending: Option<Pending>,
    /// And whether it was seen that all is clean there.
    pub claims: Vec<(Claim<Client>, Cell<bool>)>,
    /// Values of others that a write was made upon.
    seen: HashSet<Bytes>,
    /// The newest write of the sidecar that has reached the upstream; nothing if the journal failed and is not to be relied upon.
    reached: [Option<usize>; KEYS],
    values: u64,
}

impl World {
    pub fn new(when: Ack, journals: bool, on_conflict: OnConflict, broken: Broken) -> Self {
        let writing = Writing {
            flush_after: Duration::from_millis(100),
            flush_bytes: 1 << 20,
            journal: journals.then(|| "/nowhere".into()),
            ack: when,
            on_conflict,
            journal_max: 1 << 20,
        };
        Self {
            engine: Arc::new(WriteBack::new("n", &writing)),
            upstream: Upstream::new(broken == Broken::OverwritesBlindly),
            writing,
            broken,
            told: Told::default(),
            now: 1,
            disk: Disk::default(),
            cached: [const { None }; KEYS],
            owns: Vec::new(),
            newest: [None; KEYS],
            versions: HashMap::new(),
            waiting: HashMap::new(),
            sleeping: HashSet::new(),
            clients: 0,
            flights: VecDeque::new(),
            reading: VecDeque::new(),
            pending: None,
            claims: Vec::new(),
            seen: HashSet::new(),
            reached: [None; KEYS],
            values: 0,
        }
    }

    fn value(&mut self, deletes: bool) -> Option<Bytes> {
        self.values += 1;
        (!deletes).then(|| self.values.to_string().into())
    }

    fn client(&mut self) -> Client {
        self.clients += 1;
        Client(self.clients, self.told.clone())
    }

    fn own(&mut self, key: usize, op: Op, acked: bool) -> usize {
        let acked = acked || self.broken == Broken::AcknowledgesEarly;
        self.owns.push(Own { key, op, acked, reached: false, cleared: false, may_be_lost: false });
        self.newest[key] = Some(self.owns.len() - 1);
        self.owns.len() - 1
    }

    /// The version that is dirty.
    fn version(&self, key: usize) -> Option<u64> {
        let name = name(key);
        let shard = self.engine.shard(&name);
        shard.get(&name)?.dirty.as_ref().map(|dirty| dirty.version)
    }

    fn known(&mut self, key: usize, knows: Knows) -> Option<State> {
        if let Knows::Fresh = knows {
            self.cached[key] = Some(self.upstream.states[key].clone());
        }
        self.cached[key].clone().filter(|_| !matches!(knows, Knows::Nothing))
    }

    fn note_seen(&mut self, state: &State) {
        if let (By::Foreign, Some(value)) = (state.by, &state.value) {
            self.seen.insert(value.clone());
        }
    }

    fn write(&mut self, key: usize, deletes: bool, knows: Knows) {
        let (value, known, client) = (self.value(deletes), self.known(key, knows), self.client());
        let (number, asked, before) = (client.0, Cell::new(false), self.version(key));
        let base = || {
            asked.set(true);
            known.as_ref().map(State::base)
        };
        let written = self.engine.write(&name(key), op(value.clone()), self.now, base, || client);
        if asked.get()
            && let Some(state) = &known
        {
            self.note_seen(state);
        }
        let (true, Some(version)) =
            (matches!(written, Written::Done { .. } | Written::Waits), self.version(key))
        else {
            return;
        };
        if before == Some(version) {
            // It was deleted, and was not there.
            return;
        }
        let own = self.own(key, op(value), written != Written::Waits);
        self.versions.insert(version, own);
        if written == Written::Waits {
            self.waiting.insert(number, vec![own]);
        }
    }

    fn write_all(&mut self, knows: Knows) {
        let known: Vec<_> = (0..KEYS).map(|key| self.known(key, knows)).collect();
        let values: Vec<_> = (0..KEYS).map(|_| self.value(false)).collect();
        let (client, mut asked) = (self.client(), Vec::new());
        let waiter = client.0;
        let writes = values.iter().enumerate().map(|(key, value)| (name(key), op(value.clone()))).collect();
        let base = |key: &[u8]| {
            asked.push(number(key));
            known[number(key)].as_ref().map(State::base)
        };
        let written = self.engine.write_all(writes, self.now, base, || client);
        asked.into_iter().filter_map(|key| known[key].as_ref()).for_each(|state| self.note_seen(state));
        if matches!(written, Written::Through | Written::Full) {
            return;
        }
        for (key, value) in values.into_iter().enumerate() {
            let own = self.own(key, op(value), written != Written::Waits);
            self.versions.insert(self.version(key).expect("it is dirty"), own);
            if written == Written::Waits {
                self.waiting.entry(waiter).or_default().push(own);
            }
        }
    }

    fn claim(&mut self, key: Option<usize>) {
        if self.claims.len() < 3 {
            let (claim, client) = (self.engine.claim(key.map(name).as_deref()), self.client());
            if !claim.is_clean() {
                self.sleeping.insert(client.0);
                claim.wake_when_clean(client);
            }
            self.claims.push((claim, Cell::new(false)));
        }
    }

    fn through(&mut self, key: usize, deletes: bool) {
        let named = self.engine.claim(Some(&name(key)));
        if !named.is_clean() || self.flights.iter().any(|flight| number(&flight.flush.key) == key) {
            return;
        }
        let value = self.value(deletes);
        let own = self.own(key, op(value.clone()), true);
        self.owns[own].reached = true;
        self.reached[key] = Some(own);
        self.cached[key] = None;
        self.upstream.write(key, value, By::Own(own));
    }

    fn take(&mut self, most: usize) {
        self.reading.extend(self.engine.take_awaited());
        self.reading.extend(self.engine.take_unread(usize::MAX));
        for flush in self.engine.take_flushes(most, self.now) {
            let version = {
                let shard = self.engine.shard(&flush.key);
                let dirty = shard.get(&flush.key).and_then(|entry| entry.dirty.as_ref());
                dirty.and_then(|dirty| dirty.sent.as_ref()).expect("it was sent").version
            };
            self.flights.push_back(Flight { flush, own: self.versions[&version], executed: None });
        }
    }

    /// The upstream executes the next flush.
    fn execute(&mut self) -> Result<(), String> {
        let Some(flight) = self.flights.iter_mut().find(|flight| flight.executed.is_none()) else {
            return Ok(());
        };
        let (key, own) = (number(&flight.flush.key), flight.own);
        let effect = self.upstream.flush(&flight.flush, own);
        flight.executed = Some(effect.verdict.clone());
        if effect.verdict == Verdict::Done {
            self.owns[own].reached = true;
        }
        let Some(over) = effect.over else { return Ok(()) };
        self.cached[key] = None;
        if let (By::Foreign, Some(value)) = (over.by, &over.value)
            && self.writing.on_conflict == OnConflict::KeepRemote
            && !self.seen.contains(value)
        {
            return Err(format!("another's newer write {value:?} was overwritten by write {own}"));
        }
        if self.reached[key].is_some_and(|newest| newest > own) {
            return Err(format!("write {own} went over a later one, {:?}", self.reached[key]));
        }
        if self.reached[key] == Some(own) && over.by == By::Own(own) && over.value.is_some() {
            return Err(format!("write {own} was made twice"));
        }
        self.reached[key] = Some(own);
        Ok(())
    }

    fn deliver(&mut self, verdict: Option<Verdict>) {
        let is_there = |flight: &mut Flight| verdict.is_some() || flight.executed.is_some();
        let Some(flight) = self.flights.pop_front_if(is_there) else { return };
        let verdict = verdict.or(flight.executed).expect("there is one");
        self.engine.flushed(&flight.flush.key, verdict, b"", self.now);
    }

    fn read(&mut self, known: bool) {
        let Some(key) = self.reading.pop_front() else { return };
        let state = self.upstream.states[number(&key)].clone();
        self.engine.was_read(&key, known.then(|| state.base()), self.now);
        if let Some(version) = self.version(number(&key))
            && let Some(own) = self.newest[number(&key)]
        {
            self.versions.insert(version, own);
        }
        if known {
            self.note_seen(&state);
            self.cached[number(&key)] = Some(state);
        }
    }

    fn drain(&mut self) {
        if self.pending.is_some() || !self.engine.journals || self.engine.is_open() == Open::JournalFails {
            return;
        }
        let work = self.engine.wait_for_work(Duration::ZERO, Duration::ZERO);
        if !work.is_empty() {
            let (batch, written) = self.engine.batch(work, self.now);
            self.pending = Some(Pending { batch, written, reopens: false });
        }
    }

    fn reopen(&mut self) {
        if self.pending.is_none() && self.engine.journals && self.engine.is_open() == Open::JournalFails {
            let (batch, written) = self.engine.batch(self.engine.all_work(&self.disk.loaded()), self.now);
            self.pending = Some(Pending { batch, written, reopens: true });
        }
    }

    fn commit(&mut self) {
        let Some(Pending { batch, written, reopens }) = self.pending.take() else { return };
        self.disk.apply(batch);
        if reopens {
            self.engine.set_journal_fails(false);
        }
        self.engine.is_written(written, self.now);
    }

    fn fail(&mut self, applied: bool) {
        let Some(Pending { batch, .. }) = self.pending.take() else { return };
        if applied {
            self.disk.apply(batch);
        }
        self.engine.is_failing();
    }

    fn crash(&mut self, committed: bool, executed: usize) -> Result<(), String> {
        if !self.engine.journals {
            return Ok(());
        }
        (0..executed).try_for_each(|_| self.execute())?;
        if let Some(pending) = self.pending.take()
            && committed
        {
            self.disk.apply(pending.batch);
        }
        if self.engine.is_open() == Open::JournalFails {
            // What is on the disk may be older than what was flushed from memory.
            self.disk.records.keys().for_each(|key| self.reached[number(key)] = None);
        }
        for key in 0..KEYS {
            let record = self.disk.records.get(&name(key)).map(|record| Record::decode(record.clone()));
            self.newest[key] = record.flatten().map(|record| self.versions[&record.version]);
            let later = |(at, own): &(usize, &mut Own)| own.key == key && Some(*at) > self.newest[key];
            if self.writing.ack == Ack::Memory {
                self.owns.iter_mut().enumerate().filter(later).for_each(|(_, own)| own.may_be_lost = true);
            }
        }
        self.claims.clear();
        self.flights.clear();
        self.reading.clear();
        self.waiting.clear();
        self.sleeping.clear();
        self.cached = [const { None }; KEYS];
        self.engine = Arc::new(WriteBack::new("n", &self.writing));
        self.engine.take_over(&self.disk.loaded(), self.now);
        Ok(())
    }

    fn clear_conflicts(&mut self) {
        let log = self.engine.conflict_log(usize::MAX);
        let is_in = |own: &Own| log.iter().any(|entry| entry.key == *name(own.key) && entry.ours == own.op);
        self.owns.iter_mut().filter(|own| is_in(own)).for_each(|own| own.cleared = true);
        self.engine.clear_conflicts();
    }

    /// Lets it happen, and asks the rules.
    pub fn go(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Write { key, deletes, knows } => self.write(key, deletes, knows),
            Step::WriteAll { knows } => self.write_all(knows),
            Step::Claim { key } => self.claim(key),
            Step::Unclaim => drop((!self.claims.is_empty()).then(|| self.claims.remove(0))),
            Step::Through { key, deletes } => self.through(key, deletes),
            Step::Foreign { key, deletes } => {
                let value = self.value(deletes);
                self.upstream.write(key, value, By::Foreign);
            }
            Step::Told { key, announced } => {
                self.cached[key] = None;
                let by = if announced { ToldBy::Announcement } else { ToldBy::Tracking };
                self.engine.told(&name(key), by, self.now);
            }
            Step::ToldAll => self.engine.told_all(),
            Step::Tick { micros } => self.now += micros,
            Step::Read { known } => self.read(known),
            Step::Take { most } => self.take(most),
            Step::Execute => self.execute()?,
            Step::Deliver => self.deliver(None),
            Step::Refuse => {
                if self.flights.front().is_some_and(|flight| flight.executed.is_none()) {
                    self.deliver(Some(Verdict::Refused));
                }
            }
            Step::Lose { executed } => {
                (0..executed).try_for_each(|_| self.execute())?;
                (0..self.flights.len()).for_each(|_| self.deliver(Some(Verdict::Unknown)));
            }
            Step::Drain => self.drain(),
            Step::Commit => self.commit(),
            Step::Fail { applied } => self.fail(applied),
            Step::Reopen => self.reopen(),
            Step::ClearConflicts => self.clear_conflicts(),
            Step::Crash { committed, executed } => self.crash(committed, executed)?,
        }
        let replied = std::mem::take(&mut *self.told.replied.lock());
        for own in replied.iter().filter_map(|client| self.waiting.remove(client)).flatten() {
            self.owns[own].acked = true;
        }
        let woken = std::mem::take(&mut *self.told.woken.lock());
        self.sleeping.retain(|client| !woken.contains(client));
        self.check()
    }

    /// Nothing more goes wrong: everything is flushed, and everybody told.
    pub fn settle(&mut self) -> Result<(), String> {
        for _ in 0..50 {
            let healthy = [Step::Tick { micros: 5_000_000 }, Step::Reopen, Step::Drain, Step::Commit];
            let upstream = [Step::Take { most: 9 }, Step::Read { known: true }, Step::Read { known: true }];
            let flushed = [const { [Step::Execute, Step::Deliver] }; KEYS + 1].into_iter().flatten();
            healthy.into_iter().chain(upstream).chain(flushed).try_for_each(|step| self.go(step))?;
            if self.is_over() {
                break;
            }
        }
        self.check_sleepers()?;
        self.claims.clear();
        self.check_settled()
    }
}
