//! The keys that a request or a transaction writes: what is fenced until it is answered, and what is to be said of them.
//!
//! Invariants: every key that may be written is in it, or `all`, or the barrier. What is to be announced whatever the reply
//! says is written out at once; the rest is decided by the reply.

use bytes::BytesMut;

use super::announcement::{self, Saying};
use super::state::Leaves;
use crate::cache::{Fence, Micros, Reason};
use crate::command::{Access, KeySet, KeyUse, Row, Say, Tells};
use crate::process::{Process, Ticket};
use crate::resp::request::Request;

/// A fence of ours: it lets sessions go that wait.
pub type CacheFence = Fence<Ticket>;

/// What a request may have done to keys that are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Barrier {
    /// Written some.
    Keys,
    /// Anything: nobody knows the command.
    Anything,
}

/// Keys that one request or transaction touches, at most; with more of them everything is fenced.
const MAX_KEYS: usize = 1 << 16;

/// The keys that are written, or read past the cache, by one request or one transaction.
#[derive(Default)]
pub struct WriteSet {
    pub keys: Vec<Box<[u8]>>,
    /// A write of a string: `GET` reads what it leaves behind.
    pub string: bool,
    /// Anything may be another afterwards, or there are too many keys.
    pub all: bool,
    /// Keys that are not known may be written.
    pub barrier: Option<Barrier>,
    /// It may wait at the server before it does anything.
    waits: bool,
    /// What is said of all keys in namespaces, whatever the reply is; and what the reply decides.
    pub publish: BytesMut,
    pub certain: usize,
    pub sayings: Vec<Saying>,
    /// The database, if it is another than that of the session's identity.
    pub db: Option<u32>,
    pub leaves: Option<Box<Leaves>>,
    /// The fence, if it was taken before.
    fenced: Option<CacheFence>,
}

impl WriteSet {
    /// For a request that is likely to write one key.
    pub fn of_one() -> Self {
        Self { keys: Vec::with_capacity(1), ..Self::default() }
    }

    pub fn add(&mut self, process: &Process, row: Option<&Row>, request: &Request<'_>) {
        self.add_at(process, row, request, None);
    }

    fn add_at(&mut self, process: &Process, row: Option<&Row>, request: &Request<'_>, place: Option<usize>) {
        let Some(row) = row else {
            self.barrier = Some(Barrier::Anything);
            return;
        };
        self.string = is_string_write(&row.name);
        // Asked only for a key in a namespace.
        let (mut tells, mut said) = (None, Vec::new());
        let set = row.keys(request, |i, usage| {
            if usage == KeyUse::Read {
                return;
            }
            let key = request.arg(i);
            if process.namespaces.find(key).is_some() {
                let tells = *tells.get_or_insert_with(|| row.tells(request));
                if tells == Tells::Certain && place.is_none() {
                    self.certain +=
                        usize::from(announcement::write(&mut self.publish, process, key, Say::Update));
                } else {
                    said.push((key.into(), usage));
                }
            }
            self.keys.push(key.into());
        });
        if let Some(tells) = tells.filter(|_| !said.is_empty()) {
            self.sayings.push(Saying { tells, keys: said, place });
        }
        self.all |= set == KeySet::All || self.keys.len() > MAX_KEYS;
        if set == KeySet::Unknown {
            self.barrier = self.barrier.or(Some(Barrier::Keys));
        }
    }

    /// The request may wait at the server, as long as it likes. A fence would keep its keys from the cache all the while.
    /// It is not needed: they are invalidated when the reply comes, before it is delivered. What was read on the server
    /// before the write has its entry dropped then, or its lease voided; what is leased later is read after it.
    pub fn may_wait(&mut self) {
        // What may change anything is no pop.
        self.waits = !self.all && self.barrier.is_none();
    }

    /// Whether keys may be written that are not known.
    pub fn is_barrier(&self) -> bool {
        self.barrier.is_some()
    }

    /// For a transaction: also what is read in it, for it is read past the cache.
    /// `place` is where its reply stands in that of the transaction.
    pub fn add_queued(&mut self, process: &Process, row: Option<&Row>, request: &Request<'_>, place: usize) {
        match row {
            Some(row) if row.access != Access::Write => {
                let _ = row.keys(request, |i, _| self.keys.push(request.arg(i).into()));
                self.all |= self.keys.len() > MAX_KEYS;
            }
            row => self.add_at(process, row, request, Some(place)),
        }
    }

    /// Takes in the keys of `other`, without its announcements.
    /// The keys in namespaces, all of which were written with one outcome.
    pub fn saying(&mut self, process: &Process, tells: Tells) {
        let keys = self.keys.iter().filter(|key| process.namespaces.find(key).is_some());
        let keys = keys.map(|key| (key.clone(), KeyUse::Update)).collect();
        (self.certain, self.sayings) = (0, vec![Saying { tells, keys, place: None }]);
    }

    /// It is the script of a flush: that touches no other key than it names, and its reply tells what has become of this one.
    pub fn is_flush(&mut self) {
        self.barrier = None;
        self.sayings.iter_mut().for_each(|saying| saying.tells = Tells::Flush);
    }

    /// What the request leaves on its connection, if the server accepts it.
    pub fn leave(&mut self, leaves: Box<Leaves>) {
        self.leaves = Some(leaves);
    }

    pub fn fence(&self, process: &Process, now: Micros) -> CacheFence {
        if self.all {
            return process.cache.fence_all(Reason::Write);
        }
        process.cache.fence(self.keys.iter().map(|key| &**key), Reason::Write, now)
    }

    /// Takes the fence before it is sent.
    pub fn fence_now(&mut self, process: &Process, now: Micros) {
        self.fenced = Some(self.fence(process, now));
    }

    /// The fence; or the keys that are to be invalidated by the reply.
    pub fn hold(&mut self, process: &Process, now: Micros) -> (Option<CacheFence>, Vec<Box<[u8]>>) {
        match self.waits {
            true => (None, self.keys.clone()),
            false => (Some(self.fenced.take().unwrap_or_else(|| self.fence(process, now))), Vec::new()),
        }
    }
}

/// Whether `GET` reads what such a command leaves behind.
fn is_string_write(command: &str) -> bool {
    const WRITES: [&str; 17] = [
        "set",
        "setex",
        "psetex",
        "setnx",
        "getset",
        "mset",
        "msetnx",
        "append",
        "setrange",
        "incr",
        "decr",
        "incrby",
        "decrby",
        "incrbyfloat",
        "getex",
        "setbit",
        "bitop",
    ];
    WRITES.contains(&command)
}

/// What a request may do to keys that are not known.
pub fn barrier(row: Option<&Row>, request: &Request<'_>) -> Option<Barrier> {
    let Some(row) = row else { return Some(Barrier::Anything) };
    (row.keys(request, |_, _| ()) == KeySet::Unknown).then_some(Barrier::Keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Table;
    use crate::namespace::Tracking;
    use crate::process::fixture;
    use crate::resp::framer::{Limits, RequestFramer};

    #[test]
    fn what_may_change_anything_does_not_wait() {
        for (all, barrier, waits) in
            [(false, None, true), (true, None, false), (false, Some(Barrier::Keys), false)]
        {
            let mut set = WriteSet { all, barrier, ..WriteSet::default() };
            set.may_wait();
            assert_eq!(set.waits, waits);
        }
    }

    #[test]
    fn a_command_raises_a_barrier_if_it_may_write_what_it_does_not_name() {
        let table = Table::builtin();
        for (line, expected) in [
            ("GET k", None),
            ("SET k v", None),
            ("EVAL s 1 k", Some(Barrier::Keys)),
            ("FLUSHALL", None),
            ("NOSUCH", Some(Barrier::Anything)),
        ] {
            let (mut framer, line) = (RequestFramer::new(Limits::default()), format!("{line}\r\n"));
            framer.next(line.as_bytes()).unwrap();
            let request = framer.request(line.as_bytes());
            assert_eq!(barrier(table.lookup(&request), &request), expected, "{line}");
        }
    }

    /// Adds it to the set, as a command of a transaction or alone.
    fn add(set: &mut WriteSet, line: &str, queued: bool) {
        let namespaces = vec![fixture::namespace("n", Tracking::Off)];
        let process = fixture::process_of(fixture::nowhere(), namespaces, |_| ());
        let (mut framer, line) = (RequestFramer::new(Limits::default()), format!("{line}\r\n"));
        framer.next(line.as_bytes()).unwrap();
        let request = framer.request(line.as_bytes());
        let table = process.table();
        match queued {
            true => set.add_queued(&process, table.lookup(&request), &request, 0),
            false => set.add(&process, table.lookup(&request), &request),
        }
    }

    #[test]
    fn a_transaction_holds_what_it_reads_too_and_what_it_may_write_beside() {
        let of = |lines: &[&str], queued| {
            let mut set = WriteSet::default();
            lines.iter().for_each(|line| add(&mut set, line, queued));
            let keys: Vec<_> = set.keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect();
            assert_eq!(set.is_barrier(), set.barrier.is_some());
            (keys.join(" "), set.all, set.barrier)
        };
        assert_eq!(of(&["SET a v", "DEL b c", "GET d"], false), ("a b c".into(), false, None));
        assert_eq!(of(&["SET a v", "DEL b c", "GET d"], true), ("a b c d".into(), false, None));
        for queued in [true, false] {
            assert_eq!(of(&["FLUSHALL", "SET a v"], queued), ("a".into(), true, None));
            assert_eq!(of(&["EVAL s 1 a"], queued), ("a".into(), false, Some(Barrier::Keys)));
            assert_eq!(of(&["NOSUCH a", "EVAL s 1 a"], queued).2, Some(Barrier::Anything));
        }
        assert_eq!(of(&["FLUSHALL", "GET a"], true), ("a".into(), true, None), "all stays all");
    }

    #[test]
    fn with_too_many_keys_all_is_fenced() {
        for (line, queued) in [("SET a v", false), ("SET a v", true), ("GET a", true)] {
            for (keys, all) in [(MAX_KEYS - 1, false), (MAX_KEYS, true)] {
                let mut set = WriteSet { keys: vec![b"k"[..].into(); keys], ..WriteSet::default() };
                add(&mut set, line, queued);
                assert_eq!((set.keys.len(), set.all), (keys + 1, all), "{line} {queued}");
            }
        }
    }

    #[test]
    fn of_keys_in_namespaces_it_is_said_at_once_what_is_certain_and_the_rest_when_it_is_answered() {
        let of = |lines: &[&str], queued| {
            let mut set = WriteSet::default();
            lines.iter().for_each(|line| add(&mut set, line, queued));
            let said = set.sayings.iter().flat_map(|saying| &saying.keys).map(|(key, _)| &**key);
            let said = said.map(|key| String::from_utf8_lossy(key).into_owned()).collect::<Vec<_>>();
            let published = String::from_utf8_lossy(&set.publish).matches("n/update").count();
            assert_eq!(set.certain, published);
            (set.certain, said.join(" "), set.string)
        };
        assert_eq!(of(&["SET n/a v"], false), (1, "".into(), true));
        assert_eq!(of(&["SET n/a v"], true), (0, "n/a".into(), true), "only if it is carried out");
        assert_eq!(of(&["MSET n/a v other v n/b v"], false), (2, "".into(), true));
        assert_eq!(of(&["LPUSH n/a v"], false), (0, "n/a".into(), false));
        assert_eq!(of(&["DEL n/a other n/b"], false), (0, "n/a n/b".into(), false));
        assert_eq!(of(&["SET other v"], false), (0, "".into(), true));
        let mut set = WriteSet::default();
        add(&mut set, "LPUSH other v", false);
        assert!(set.sayings.is_empty(), "nothing is to be said of it");
    }
}
