//! What stands around the engine: clients, an upstream, and what a journal has.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::super::ack::Waiter;
use super::super::dirty::Verdict;
use super::super::flushing::Flush;
use super::super::op::{Base, Op, Stands, sha1, unix_ms};
use super::super::queues::Key;
use super::super::store::{Batch, Loaded};

pub const KEYS: usize = 2;

pub fn name(key: usize) -> Key {
    Key::from(format!("k{key}").as_bytes())
}

pub fn number(key: &[u8]) -> usize {
    (0..KEYS).find(|number| *name(*number) == *key).expect("a key of the model")
}

/// What clients were told.
#[derive(Clone, Default)]
pub struct Told {
    pub replied: Arc<Mutex<HashSet<usize>>>,
    pub woken: Arc<Mutex<HashSet<usize>>>,
}

/// A client that waits: its number, and where it is noted that it was told.
pub struct Client(pub usize, pub Told);

impl Waiter for Client {
    fn reply(self, _: Bytes) {
        assert!(self.1.replied.lock().insert(self.0), "a client is answered once");
    }

    fn wake(self) {
        self.1.woken.lock().insert(self.0);
    }
}

/// Who has written what stands upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Nobody,
    Foreign,
    /// The sidecar, by this write.
    Own(usize),
}

#[derive(Clone, Debug)]
pub struct State {
    pub value: Option<Bytes>,
    pub by: By,
}

impl State {
    pub fn base(&self) -> Base {
        let stands = self.value.clone().map_or(Stands::Absent, Stands::Value);
        Base { stands, until: None }
    }
}

/// The upstream: it does what the script of a flush does.
pub struct Upstream {
    pub states: [State; KEYS],
    /// It writes whatever it finds.
    pub is_blind: bool,
}

/// What a flush has done upstream.
pub struct Effect {
    pub verdict: Verdict,
    /// What stood there before, if the flush has written.
    pub over: Option<State>,
}

impl Upstream {
    pub fn new(is_blind: bool) -> Self {
        Self { states: std::array::from_fn(|_| State { value: None, by: By::Nobody }), is_blind }
    }

    pub fn flush(&mut self, flush: &Flush, own: usize) -> Effect {
        let state = &mut self.states[number(&flush.key)];
        let word = |value: Option<&Bytes>| value.map_or("a".to_owned(), |value| format!("v{}", sha1(value)));
        let stands = word(state.value.as_ref());
        let mut words = flush.bases.iter().flat_map(|base| base.words(unix_ms()));
        let value = flush.op.value().cloned();
        if self.is_blind || words.any(|base| base == stands) {
            let over = std::mem::replace(state, State { value, by: By::Own(own) });
            return Effect { verdict: Verdict::Done, over: Some(over) };
        }
        let verdict = match stands == word(value.as_ref()) {
            true => Verdict::Done,
            false => Verdict::Conflict(stands.into()),
        };
        Effect { verdict, over: None }
    }

    pub fn write(&mut self, key: usize, value: Option<Bytes>, by: By) {
        self.states[key] = State { value, by };
    }
}

/// What the disk has.
#[derive(Default)]
pub struct Disk {
    pub records: BTreeMap<Key, Bytes>,
    pub conflicts: BTreeMap<u64, Bytes>,
}

impl Disk {
    pub fn apply(&mut self, batch: Batch) {
        self.records.extend(batch.puts);
        batch.removes.iter().for_each(|key| drop(self.records.remove(key)));
        self.conflicts.extend(batch.conflicts);
        batch.cleared.iter().for_each(|id| drop(self.conflicts.remove(id)));
    }

    pub fn loaded(&self) -> Loaded {
        Loaded {
            records: self.records.clone().into_iter().collect(),
            conflicts: self.conflicts.clone().into_iter().collect(),
            dropped: 0,
        }
    }
}

/// A write that leaves this value, or nothing.
pub fn op(value: Option<Bytes>) -> Op {
    value.map_or(Op::Delete, |value| Op::Set { value, until: None })
}
