//! Which requests of a session are about the same keys, so that their order counts.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher};

use smallvec::SmallVec;

use crate::command::{Access, KeySet, Row};
use crate::resp::key_slot;
use crate::resp::request::Request;

/// The keys of one request.
pub(super) struct Concern {
    /// The hash slot and the hash of each.
    keys: SmallVec<[(u16, u64); 1]>,
    /// All there are.
    all: bool,
    /// It reads, and so may be done twice.
    pub(super) reads: bool,
    /// It may be a script, which may say anything in reply.
    pub(super) is_script: bool,
}

impl Concern {
    /// Of a request that may be about anything.
    pub(super) fn unknown() -> Self {
        Self { keys: SmallVec::new(), all: true, reads: false, is_script: false }
    }

    pub(super) fn of(row: Option<&Row>, request: &Request<'_>) -> Self {
        let mut concern = Self { all: false, ..Self::unknown() };
        let Some(row) = row else { return Self::unknown() };
        let set = row.keys(request, |i, _| {
            let key = request.arg(i);
            let mut hasher = DefaultHasher::new();
            hasher.write(key);
            concern.keys.push((key_slot(key), hasher.finish()));
        });
        // A script of a cluster has to name its keys.
        concern.all = set == KeySet::All;
        concern.is_script = set == KeySet::Unknown;
        concern.reads = row.access == Access::Read;
        concern
    }

    /// The hash slots of its keys, each as often as it has keys.
    pub(super) fn slots(&self) -> impl Iterator<Item = u16> + '_ {
        self.keys.iter().map(|(slot, _)| *slot)
    }
}

/// The keys of several requests.
#[derive(Default)]
pub(super) struct Concerns {
    hashes: HashSet<u64>,
    all: bool,
    any: bool,
}

impl Concerns {
    pub(super) fn add(&mut self, of: &Concern) {
        self.any |= of.all || !of.keys.is_empty();
        self.all |= of.all;
        self.hashes.extend(of.keys.iter().map(|(_, hash)| hash));
    }

    /// Whether any of them is about a key of this one.
    pub(super) fn meet(&self, of: &Concern) -> bool {
        of.all && self.any
            || self.all && (of.all || !of.keys.is_empty())
            || of.keys.iter().any(|(_, hash)| self.hashes.contains(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Table;
    use crate::resp::framer::{Limits, RequestFramer};

    fn concern(line: &str) -> Concern {
        let (mut framer, line) = (RequestFramer::new(Limits::default()), format!("{line}\r\n"));
        framer.next(line.as_bytes()).unwrap();
        let request = framer.request(line.as_bytes());
        Concern::of(Table::builtin().lookup(&request), &request)
    }

    #[test]
    fn those_meet_that_share_a_key_or_may() {
        for (one, other, meet) in [
            ("SET k 1", "GET k", true),
            ("SET k 1", "GET l", false),
            ("MSET a 1 b 2", "GET b", true),
            ("MSET {x}a 1 {x}b 2", "GET {x}c", false),
            ("EVAL s 1 {x}a", "GET {x}a", true),
            ("EVAL s 1 {x}a", "GET {x}c", false),
            ("FLUSHALL", "GET k", true),
            ("FLUSHALL", "FLUSHALL", true),
            ("FLUSHALL", "PING", false),
            ("PING", "PING", false),
            ("NOSUCH", "GET k", true),
        ] {
            for (one, other) in [(one, other), (other, one)] {
                let mut concerns = Concerns::default();
                assert!(!concerns.meet(&concern(other)));
                concerns.add(&concern(one));
                assert_eq!(concerns.meet(&concern(other)), meet, "{one} {other}");
            }
        }
    }

    #[test]
    fn what_reads_is_told_from_what_writes() {
        for (line, reads) in [("GET k", true), ("SET k 1", false), ("EVAL s 1 k", false), ("PING", false)] {
            assert_eq!(concern(line).reads, reads, "{line}");
        }
        assert!(concern("MSET {x}a 1 {x}b 2").slots().eq([key_slot(b"x"); 2]));
    }
}
