//! Which arguments are keys: positions as data, and the few rules that must read the arguments.
//!
//! Invariants: every index given out lies within the request and is not the name's; a request whose
//! keys cannot be told is [`Malformed`], never a guess. The rules follow Redis' own `getkeys` functions
//! (`src/db.c`) and key specs (`src/commands/*.json`), and where those are looser than the command, the command.

use super::streams;
use super::word::{is, is_any};
use crate::resp::{number::string2ll, request::Request};

/// What a command does to one of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    Read,
    /// Leaves the key there, or may: SET, EXPIRE, a pop that may have emptied it.
    Update,
    /// Where it did anything, the key is gone: DEL, GETDEL, RENAME's source.
    Delete,
}

/// Whether a command's written keys were all given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum KeySet {
    Known,
    /// The command may write keys that were not given, and the upstream's tracking tells of those that it wrote.
    Unknown,
    /// It may change everything, and not all of that is told by the upstream's tracking: fence everything.
    All,
}

/// The arguments do not show the keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// One rule for some of a command's keys. Positions count from the command's name, which is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Nothing,
    /// Keys are written that no argument names.
    Unknown,
    /// All keys of a database, or the whole server, become others.
    Everything,
    At(u8, KeyUse),
    /// From `first` to `last` inclusive; a negative `last` counts from the end, -1 being the last argument.
    Range {
        first: u16,
        last: i16,
        step: u16,
        usage: KeyUse,
    },
    /// Argument `at` is the number of keys, which follow it, each with `step` - 1 arguments of its own.
    Counted {
        at: u8,
        step: u8,
        usage: KeyUse,
    },
    /// XREAD and XREADGROUP: the first half of what follows STREAMS.
    Streams,
    /// The key that follows each of these words, from argument `from` on; `skips` have arguments of their own.
    After {
        from: u8,
        words: &'static [&'static str],
        skips: &'static [(&'static str, u8)],
    },
    Migrate,
    Bitfield,
    Pfcount,
}

/// All the key rules of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keys(pub [Part; 2]);

impl Keys {
    pub const fn one(part: Part) -> Self {
        Self([part, Part::Nothing])
    }

    pub fn each(&self, req: &Request<'_>, f: &mut impl FnMut(usize, KeyUse)) -> Result<(), Malformed> {
        let [a, b] = self.0;
        a.each(req, f).and(b.each(req, f))
    }

    /// Whether the arguments decide where the keys are.
    pub fn movable(&self) -> bool {
        self.0.iter().any(|part| !matches!(part, Part::Nothing | Part::At(..) | Part::Range { .. }))
    }
}

impl Part {
    fn each(self, req: &Request<'_>, f: &mut impl FnMut(usize, KeyUse)) -> Result<(), Malformed> {
        let len = req.len();
        match self {
            Part::Nothing => {}
            Part::Unknown | Part::Everything => return Err(Malformed),
            Part::At(i, usage) => at(len, usize::from(i), usage, f),
            Part::Range { first, last, step, usage } => {
                let end = if last < 0 {
                    (len + 1).saturating_sub(usize::from(last.unsigned_abs()))
                } else {
                    len.min(last as usize + 1)
                };
                // A first key of 0 would be the name, and a step of 0 would never end: both are a server's slip.
                let first = usize::from(first).max(1);
                (first..end).step_by(usize::from(step).max(1)).for_each(|i| f(i, usage));
            }
            Part::Counted { at, step, usage } => {
                let (first, step) = (usize::from(at) + 1, usize::from(step));
                let count = req.get(usize::from(at)).and_then(count).ok_or(Malformed)?;
                let end = count.checked_mul(step).and_then(|n| n.checked_add(first)).ok_or(Malformed)?;
                if end > len {
                    return Err(Malformed);
                }
                (first..end).step_by(step).for_each(|i| f(i, usage));
            }
            Part::Streams => {
                // Reading in a group moves only the group's own state, which no cacheable reply shows;
                // Redis' key spec for XREADGROUP says read as well.
                streams::parse(req).keys.ok_or(Malformed)?.for_each(|i| f(i, KeyUse::Read));
            }
            Part::After { from, words, skips } => {
                let mut i = usize::from(from);
                while i < len {
                    let word = req.arg(i);
                    if is_any(word, words) {
                        at(len, i + 1, KeyUse::Update, f);
                        i += 1;
                    } else if let Some((_, n)) = skips.iter().find(|(w, _)| is(word, w)) {
                        i += usize::from(*n);
                    }
                    i += 1;
                }
            }
            Part::Migrate => return migrate(req, f),
            Part::Bitfield => {
                // Only SET and INCRBY write, and neither word can stand there for anything else.
                let writes = (2..len).any(|i| is_any(req.arg(i), &["set", "incrby"]));
                at(len, 1, if writes { KeyUse::Update } else { KeyUse::Read }, f);
            }
            Part::Pfcount => {
                // One key: the count is stored in the key itself. Several: they are merged elsewhere.
                let usage = if len == 2 { KeyUse::Update } else { KeyUse::Read };
                (1..len).for_each(|i| f(i, usage));
            }
        }
        Ok(())
    }
}

/// `MIGRATE host port key|"" db timeout [COPY] [REPLACE] [AUTH p] [AUTH2 u p] [KEYS key …]`
fn migrate(req: &Request<'_>, f: &mut impl FnMut(usize, KeyUse)) -> Result<(), Malformed> {
    let len = req.len();
    if req.get(3).is_some_and(|key| !key.is_empty()) {
        f(3, KeyUse::Delete);
    }
    let mut i = 6;
    while i < len {
        let word = req.arg(i);
        i += match word {
            _ if is_any(word, &["copy", "replace"]) => 1,
            _ if is(word, "auth") => 2,
            _ if is(word, "auth2") => 3,
            _ if is(word, "keys") => {
                (i + 1..len).for_each(|i| f(i, KeyUse::Delete));
                return Ok(());
            }
            _ => return Err(Malformed),
        };
    }
    Ok(())
}

fn at(len: usize, i: usize, usage: KeyUse, f: &mut impl FnMut(usize, KeyUse)) {
    if i < len {
        f(i, usage);
    }
}

fn count(arg: &[u8]) -> Option<usize> {
    usize::try_from(string2ll(arg)?).ok()
}

#[cfg(test)]
mod tests {
    use super::super::sample::keys;
    use crate::command::Table;

    fn hold(cases: &[(&str, &str)]) {
        let table = Table::builtin();
        for (line, expected) in cases {
            assert_eq!(keys(&table, line), *expected, "{line}");
        }
    }

    #[test]
    fn fixed_positions() {
        hold(&[
            ("GET k", "k"),
            ("SET k v GET", "k+"),
            ("DEL a b c", "a- b- c-"),
            ("MSET a 1 b 2", "a+ b+"),
            ("BLPOP a b 0", "a+ b+"),
            ("RENAME a b", "a- b+"),
            ("COPY a b DB 3", "a b+"),
            ("SMOVE a b m", "a+ b+"),
            ("SINTERSTORE d a b", "d+ a b"),
            ("BITOP NOT d a", "d+ a"),
            ("ZRANGESTORE d s 0 -1", "d+ s"),
            ("OBJECT ENCODING k", "k"),
            ("XGROUP CREATE s g $", "s+"),
            ("MEMORY USAGE k", "k"),
            ("JSON.MSET a $ 1 b $ 2", "a+ b+"),
            ("JSON.MGET a b $", "a b"),
            ("MOVE k 2", "k-"),
            ("PING", ""),
        ]);
    }

    #[test]
    fn positions_in_the_arguments() {
        hold(&[
            ("FCALL_RO f 1 a", "a"),
            ("ZUNION 2 a b WEIGHTS 1 2", "a b"),
            ("ZUNIONSTORE d 2 a b", "d+ a b"),
            ("BLMPOP 0 2 a b LEFT", "a+ b+"),
            ("MSETEX 2 a 1 b 2 EX 9", "a+ b+"),
            ("XREAD COUNT 1 STREAMS a b 0 0", "a b"),
            ("XREADGROUP GROUP g STREAMS CLAIM 5 NOACK STREAMS s >", "s"),
            ("SORT k BY store GET store LIMIT 0 1", "k"),
            ("SORT k BY w_* STORE d", "k d+"),
            ("SORT k STORE store GET x", "k store+"),
            ("GEORADIUS k 1 2 3 m STOREDIST d", "k d+"),
            ("GEORADIUSBYMEMBER k m 3 m store d", "k d+"),
            ("MIGRATE h 1 k 0 9 COPY", "k-"),
            ("MIGRATE h 1 '' 0 9 AUTH keys REPLACE KEYS a b", "a- b-"),
            ("BITFIELD k GET u8 0", "k"),
            ("BITFIELD k GET u8 0 set u8 0 1", "k+"),
            ("PFCOUNT a", "a+"),
            ("PFCOUNT a b", "a b"),
        ]);
    }

    #[test]
    fn keys_that_cannot_be_told() {
        hold(&[
            ("FLUSHALL", "*"),
            ("SWAPDB 0 1", "*"),
            ("FUNCTION FLUSH", "?"),
            ("EVAL s 0 a", "?"),
            ("EVALSHA s 2 a b c", "a+ b+ ?"),
            ("FCALL s 1 a", "a+ ?"),
            ("EVAL s x a", "?"),
            ("EVAL s 3 a b", "?"),
            ("EVAL s -1 a", "?"),
            ("EVAL s 99999999999999999999999 a", "?"),
            ("MSETEX 9223372036854775808 a 1", "?"),
            ("EVAL s 01 a", "?"),
            ("EVAL s '' a", "?"),
            ("EVAL s", "?"),
            ("LMPOP 2 a", "?"),
            ("XREADGROUP GROUP g c STREAMS a b 0", "?"),
            ("XREADGROUP GROUP g c STREAMS", "?"),
            ("MIGRATE h 1 k 0 9 WHAT", "k- ?"),
            // A read is never a reason to fence.
            ("ZUNION x a", ""),
            ("XREAD STREAMS", ""),
        ]);
    }
}
