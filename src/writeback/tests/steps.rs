//! What may happen, one step each.

use proptest::prelude::*;

use super::fakes::KEYS;

/// What the sidecar knows of the upstream when it takes a write.
#[derive(Clone, Copy, Debug)]
pub enum Knows {
    Nothing,
    /// What it has read last, if nothing of its own has come since.
    Cached,
    Fresh,
}

#[derive(Clone, Debug)]
pub enum Step {
    Write {
        key: usize,
        deletes: bool,
        knows: Knows,
    },
    /// `MSET` of all keys.
    WriteAll {
        knows: Knows,
    },
    /// A request is to touch a key, or any.
    Claim {
        key: Option<usize>,
    },
    Unclaim,
    /// The request goes through, if it may, and writes.
    Through {
        key: usize,
        deletes: bool,
    },
    Foreign {
        key: usize,
        deletes: bool,
    },
    Told {
        key: usize,
        announced: bool,
    },
    ToldAll,
    Tick {
        micros: u64,
    },
    /// What stands upstream comes to be known, or that it cannot be.
    Read {
        known: bool,
    },
    Take {
        most: usize,
    },
    Execute,
    Deliver,
    /// The first flush under way is refused.
    Refuse,
    /// The link is lost: so many more of the flushes under way have been executed.
    Lose {
        executed: usize,
    },
    /// The journal's thread takes what there is; and its commit is done, or fails though the disk may have it.
    Drain,
    Commit,
    Fail {
        applied: bool,
    },
    /// It is opened anew; commits are as above.
    Reopen,
    ClearConflicts,
    /// The process dies; the commit and so many of the flushes under way are done all the same.
    Crash {
        committed: bool,
        executed: usize,
    },
}

impl Step {
    /// The step that a number stands for, as often as it is likely. A strategy for each of them would take most of the time.
    fn of(number: u64) -> Self {
        let (kind, yes, likely) = (number % 100, number >> 8 & 1 == 1, !(number >> 9).is_multiple_of(4));
        let (key, some) = ((number >> 16) as usize % KEYS, (number >> 24) as usize % 3);
        let knows = [Knows::Nothing, Knows::Cached, Knows::Fresh][some];
        match kind {
            0..12 => Step::Write { key, deletes: !likely, knows },
            12..14 => Step::WriteAll { knows },
            14..16 => Step::Claim { key: likely.then_some(key) },
            16..18 => Step::Unclaim,
            18..23 => Step::Through { key, deletes: yes },
            23..27 => Step::Foreign { key, deletes: !likely },
            27..29 => Step::Told { key, announced: yes },
            29 => Step::ToldAll,
            30..34 => Step::Tick { micros: (number >> 32) % 300_000 },
            34..38 => Step::Read { known: likely },
            38..49 => Step::Take { most: some + 1 },
            49..60 => Step::Execute,
            60..71 => Step::Deliver,
            71 => Step::Refuse,
            72..74 => Step::Lose { executed: some },
            74..84 => Step::Drain,
            84..93 => Step::Commit,
            93 => Step::Fail { applied: yes },
            94..96 => Step::Reopen,
            96 => Step::ClearConflicts,
            _ => Step::Crash { committed: yes, executed: some },
        }
    }
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any::<u64>(), 1..100)
        .prop_map(|numbers| numbers.into_iter().map(Step::of).collect())
}
