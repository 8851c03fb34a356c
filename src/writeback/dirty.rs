//! One key between its write and its flush: what may be done with it now.
//!
//! Invariants:
//! - `bases` are all that may stand upstream for the next flush to be ours to make: what the first dirty write found, and
//!   whatever of ours may have arrived since. A flush that is under way is one of them for what comes after it. While there are
//!   none, nothing is sent: what stands there is read first, and then it is a base like any other. So no flush overwrites
//!   whatever it finds, and one that was lost is told from what came after it.
//! - Only the newest write is sent, and only one flush of a key is under way. With a journal it is sent once the journal has
//!   it: else a crash would leave a record that does not know what it finds upstream for our own.
//! - A flush whose reply was lost is never counted as done nor as undone. For a newer write what it would have left is one more
//!   base; for the same write finding that there settles it, and nothing is written twice.

use bytes::Bytes;
use smallvec::SmallVec;

use super::ack::Ack;
use super::op::{Base, Op};
use super::record::Record;
use crate::cache::Micros;

/// Flushes whose reply was lost that are remembered, at most.
const MAX_UNSETTLED: usize = 16;

/// How long a flush that was refused rests at first, and at most.
const FIRST_REST: Micros = 50_000;
const LONGEST_REST: Micros = 1_000_000;

/// What one takes beside its bytes, about.
const OVERHEAD: usize = 256;

/// Who told of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToldBy {
    Announcement,
    Tracking,
    /// Nobody: the flush has found it.
    Nobody,
}

impl ToldBy {
    pub fn name(self) -> &'static str {
        match self {
            ToldBy::Announcement => "announcement",
            ToldBy::Tracking => "tracking",
            ToldBy::Nobody => "flush",
        }
    }
}

/// What of it is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// What stands upstream is being read; nothing is acknowledged before that.
    Reading,
    /// It is to be flushed.
    Dirty,
    /// The conflict log is to take it.
    Lost,
}

/// A flush that is under way.
pub(super) struct Sent {
    pub(super) version: u64,
    pub(super) op: Op,
}

/// See the [module](self).
pub(super) struct Dirty<W> {
    pub(super) op: Op,
    /// The newest write's; later ones have higher ones.
    pub(super) version: u64,
    pub(super) arrived: Micros,
    /// When the oldest write came that is not flushed.
    pub(super) since: Micros,
    pub(super) bases: SmallVec<[Base; 1]>,
    /// What flushes have left whose replies were lost, if they were made.
    unsettled: Vec<Base>,
    pub(super) stage: Stage,
    /// The newest version that the journal has.
    pub(super) journaled: u64,
    pub(super) sent: Option<Sent>,
    /// It is acknowledged, or could be, and what stands upstream is being read all the same.
    pub(super) reads: bool,
    /// When it is to be flushed, and that this is to be done as soon as it can be.
    pub(super) due_at: Micros,
    pub(super) due: bool,
    /// It waits in the list of what can be flushed; and in that of what the journal is to take.
    pub(super) listed: bool,
    pub(super) queued: bool,
    /// Refusals in a row.
    pub(super) refused: u32,
    pub(super) told: Option<(Micros, ToldBy)>,
    pub(super) found: Option<Bytes>,
    /// Clients that wait for the acknowledgement of a version.
    pub(super) acks: Vec<(u64, Ack<W>)>,
}

/// What became of a flush.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stands there.
    Done,
    /// Something else stands there: this, in the words of the script.
    Conflict(Bytes),
    /// It was not carried out.
    Refused,
    /// Its reply was lost.
    Unknown,
}

/// What follows from it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// All is flushed.
    Clean,
    /// A newer write is to be; those up to this version are upstream.
    Again(u64),
    /// It is to be tried anew.
    Retry,
    /// Another has written there: what is to be done is a question of policy.
    Conflict,
}

impl<W> Dirty<W> {
    pub(super) fn new(op: Op, version: u64, now: Micros, base: Option<Base>) -> Self {
        Self {
            op,
            version,
            arrived: now,
            since: now,
            stage: if base.is_some() { Stage::Dirty } else { Stage::Reading },
            bases: base.into_iter().collect(),
            unsettled: Vec::new(),
            journaled: 0,
            sent: None,
            reads: false,
            due_at: now,
            due: false,
            listed: false,
            queued: false,
            refused: 0,
            told: None,
            found: None,
            acks: Vec::new(),
        }
    }

    /// As the journal had it.
    pub(super) fn of_record(record: Record, now: Micros) -> Self {
        let Record { version, op, bases, .. } = record;
        let mut dirty = Self::new(op, version, now, None);
        (dirty.stage, dirty.bases) = (Stage::Dirty, bases.into());
        (dirty.journaled, dirty.due) = (version, true);
        dirty
    }

    /// As the journal is to have it; `arrived` is the time of day of its newest write.
    pub(super) fn record(&self, arrived: u64) -> Record {
        let mut bases = self.may_stand();
        let sent = self.sent.as_ref().map(|sent| Base::left_by(&sent.op));
        bases.extend(sent.filter(|left| *left != Base::left_by(&self.op)));
        Record { version: self.version, arrived, op: self.op.clone(), bases }
    }

    /// What may stand upstream for its newest write to be made: where that is done already it is not to be done again.
    pub(super) fn may_stand(&self) -> Vec<Base> {
        let ours = Base::left_by(&self.op);
        let unsettled = self.unsettled.iter().filter(|left| **left != ours);
        self.bases.iter().chain(unsettled).cloned().collect()
    }

    /// Who has told of another's write.
    pub(super) fn told_by(&self) -> ToldBy {
        self.told.map_or(ToldBy::Nobody, |(_, by)| by)
    }

    /// A newer write.
    pub(super) fn write(&mut self, op: Op, version: u64, now: Micros) {
        (self.op, self.version, self.arrived) = (op, version, now);
    }

    /// Whether its newest write may be flushed now, where the journal has to have it first or not.
    pub(super) fn is_ready(&self, journals: bool) -> bool {
        let has = !journals || self.journaled == self.version;
        self.due && self.stage == Stage::Dirty && self.sent.is_none() && has && !self.bases.is_empty()
    }

    /// Whether it would be flushed now, and what stands upstream is not known.
    pub(super) fn is_to_be_read(&self) -> bool {
        self.due && self.stage == Stage::Dirty && self.bases.is_empty() && !self.reads
    }

    /// What stands upstream was read, or could not be. Says whether it is a base now.
    pub(super) fn was_read(&mut self, base: Option<Base>) -> bool {
        (self.stage, self.reads) = (Stage::Dirty, false);
        let is_new = self.bases.is_empty() && base.is_some();
        if is_new {
            self.bases.extend(base);
        }
        is_new
    }

    /// It is to be tried again later, after a rest.
    pub(super) fn rest(&mut self, now: Micros) {
        self.refused += 1;
        (self.due, self.due_at) = (false, now + (FIRST_REST << self.refused.min(8)).min(LONGEST_REST));
    }

    /// Its newest write is on its way.
    pub(super) fn send(&mut self) {
        self.sent = Some(Sent { version: self.version, op: self.op.clone() });
    }

    /// What became of the flush that was under way.
    pub(super) fn flushed(&mut self, verdict: Verdict, now: Micros) -> Next {
        let Some(sent) = self.sent.take() else { return Next::Retry };
        match verdict {
            Verdict::Done if sent.version == self.version => Next::Clean,
            Verdict::Done => {
                // What it leaves is what the newer write is made upon.
                self.insist(Base::left_by(&sent.op));
                (self.since, self.refused, self.told) = (now, 0, None);
                self.due = false;
                Next::Again(sent.version)
            }
            Verdict::Conflict(found) => {
                (self.found, self.refused) = (Some(found), 0);
                Next::Conflict
            }
            Verdict::Refused => Next::Retry,
            Verdict::Unknown => {
                let left = Base::left_by(&sent.op);
                if !self.unsettled.contains(&left) {
                    if self.unsettled.len() == MAX_UNSETTLED {
                        self.unsettled.remove(0);
                    }
                    self.unsettled.push(left);
                }
                Next::Retry
            }
        }
    }

    /// It is to be written over this, and nothing else.
    pub(super) fn insist(&mut self, on: Base) {
        self.unsettled.clear();
        self.bases.clear();
        self.bases.push(on);
    }

    /// Bytes that it takes, about.
    pub(super) fn size(&self, key: &[u8]) -> usize {
        OVERHEAD
            + key.len()
            + self.op.size()
            + self.bases.iter().chain(&self.unsettled).map(Base::size).sum::<usize>()
    }

    /// Clients whose writes the journal, or the upstream, has now; `upto` is the newest of those.
    pub(super) fn take_acks(&mut self, upto: u64) -> Vec<Ack<W>> {
        if self.acks.is_empty() || self.stage == Stage::Reading {
            return Vec::new();
        }
        self.acks.extract_if(.., |(version, _)| *version <= upto).map(|(_, ack)| ack).collect()
    }
}
