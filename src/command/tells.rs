//! What the reply to a write tells of its keys: whether they are there now.
//!
//! Invariants: a key is said to be there, or to be gone, only if the reply proves it for the moment at which the
//! command was carried out; where it does not, [`Say::Look`] says so. Where it proves that nothing was changed,
//! nothing is said.

use super::keys::KeyUse;
use super::word::is;
use crate::resp::request::Request;
use crate::resp::scanner::Kind;

/// What a row says of the replies to its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    /// Whatever the reply is, short of a refusal: SETEX, MSET.
    Certain,
    /// There, unless it is an error: INCR, HSET.
    There,
    /// There, unless it is nil or not above 0, when nothing was changed: SETNX, LPUSHX, PERSIST.
    ThereIf,
    /// There if it is nil, else nothing was changed: `SET k v NX GET`.
    ThereIfNil,
    /// Open, unless it is nil, when nothing was changed: ZADD.
    OpenIf,
    /// Open, unless it is nil, empty or not above 0, when nothing was changed: HDEL, LPOP, EXPIRE; LPUSH too, for
    /// somebody may wait for what it pushes. What the command deletes is gone: DEL, GETDEL.
    MayBe,
    /// Only the key that it names was changed, and may be gone: BLPOP, LMPOP.
    Named,
    /// Gone if it is 0, else there: SUNIONSTORE, BITOP.
    Stored,
    /// Nothing that helps.
    Open,
    /// Likewise, and an error may come behind writes: scripts.
    Script,
    /// The script of a write-back namespace's flush: 1 if it has set the key, 2 if it has deleted it, and 3 or 4
    /// if that was done before.
    Flush,
    /// Nothing was changed.
    Nothing,
    /// SET: its options decide.
    Set,
    /// GETEX, likewise.
    GetEx,
}

/// What is to be said of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    Update,
    Delete,
    /// It has to be looked whether it is there.
    Look,
    Nothing,
}

/// What a reply comes to.
#[derive(Clone, Copy, PartialEq)]
enum Came {
    Nil,
    /// Zero or less, or empty.
    Zero,
    Some,
}

impl Tells {
    /// What it is for this request.
    pub(super) fn of(self, req: &Request<'_>) -> Self {
        match self {
            Tells::Set => set(req),
            Tells::GetEx if req.len() == 2 => Tells::Nothing,
            Tells::GetEx => Tells::MayBe,
            tells => tells,
        }
    }

    /// What is to be said of the written `key` after this reply, or its beginning.
    pub fn say(self, key: &[u8], usage: KeyUse, reply: &[u8], kind: Kind) -> Say {
        if kind == Kind::Error {
            let undone = self != Tells::Script || reply.starts_with(b"-NOSCRIPT ");
            return if undone { Say::Nothing } else { Say::Look };
        }
        let came = came(reply);
        match (self, came) {
            (Tells::Nothing, _) => Say::Nothing,
            (Tells::Flush, _) => match reply {
                b":1\r\n" | b":3\r\n" => Say::Update,
                b":2\r\n" | b":4\r\n" => Say::Delete,
                _ => Say::Nothing,
            },
            (Tells::Open | Tells::Script, _) if reply == b"+NOKEY\r\n" => Say::Nothing,
            (Tells::Open | Tells::Script | Tells::Set | Tells::GetEx, _) => Say::Look,
            (Tells::Certain | Tells::There, _) if usage == KeyUse::Update => Say::Update,
            (Tells::Stored, Came::Zero) => Say::Delete,
            (Tells::Stored, _) => Say::Update,
            (Tells::ThereIfNil, Came::Nil) => Say::Update,
            (Tells::ThereIfNil, _) => Say::Nothing,
            (Tells::OpenIf, Came::Zero) => Say::Look,
            (_, Came::Nil | Came::Zero) => Say::Nothing,
            (Tells::Named, Came::Some) => match named(reply) {
                Some(name) if name != key => Say::Nothing,
                _ => Say::Look,
            },
            (_, Came::Some) if usage == KeyUse::Delete => Say::Delete,
            (Tells::MayBe | Tells::OpenIf, _) => Say::Look,
            _ => Say::Update,
        }
    }
}

impl Say {
    /// What is to be said of a key of which two things were to be said.
    pub fn and(self, other: Say) -> Say {
        match (self, other) {
            (Say::Nothing, say) | (say, Say::Nothing) => say,
            (one, two) if one == two => one,
            _ => Say::Look,
        }
    }
}

fn came(reply: &[u8]) -> Came {
    match reply {
        [b'_', ..] | [b'$' | b'*', b'-', ..] => Came::Nil,
        [b':', b'0' | b'-', ..] | [b'*' | b'~' | b'%', b'0', ..] => Came::Zero,
        _ => Came::Some,
    }
}

/// The first string of an array; `None` if it is not all there.
fn named(reply: &[u8]) -> Option<&[u8]> {
    let header = memchr::memchr(b'\n', reply)? + 1;
    let rest = reply.get(header..)?.strip_prefix(b"$")?;
    let end = memchr::memchr(b'\r', rest)?;
    let len: usize = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    rest.get(end + 2..)?.get(..len)
}

/// `SET key value [NX|XX|IFEQ v|IFNE v|IFDEQ d|IFDNE d] [GET] [EX s|PX ms|EXAT t|PXAT t|KEEPTTL]`
fn set(req: &Request<'_>) -> Tells {
    if req.len() <= 3 {
        return Tells::Certain;
    }
    let (mut none, mut other, mut get, mut at) = (false, false, false, false);
    let mut i = 3;
    while let Some(word) = req.get(i) {
        i += 1;
        if is(word, "nx") {
            none = true;
        } else if is(word, "get") {
            get = true;
        } else if is(word, "exat") || is(word, "pxat") {
            at = true;
            i += 1;
        } else if is(word, "ex") || is(word, "px") {
            i += 1;
        } else if !is(word, "keepttl") {
            // XX, and what may come: a condition.
            other = true;
            i += usize::from(!is(word, "xx"));
        }
    }
    match (none || other, get, at) {
        (false, false, false) => Tells::Certain,
        (false, true, false) => Tells::There,
        (true, false, false) => Tells::ThereIf,
        (true, true, false) if none && !other => Tells::ThereIfNil,
        (true, true, false) if req.args().any(|arg| is(arg, "xx")) => Tells::ThereIf,
        (_, false, true) => Tells::MayBe,
        _ => Tells::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::Sample;
    use super::*;
    use crate::command::Table;

    /// What is said of each written key, as `key+`, `key-` and `key?`.
    fn said(line: &str, reply: &str) -> String {
        let (table, sample) = (Table::builtin(), Sample::line(line));
        let req = sample.req();
        let row = table.lookup(&req).unwrap();
        let mut said = Vec::new();
        let kind = if reply.starts_with('-') { Kind::Error } else { Kind::Simple };
        let _ = row.keys(&req, |at, usage| {
            if usage == KeyUse::Read {
                return;
            }
            let key = req.arg(at);
            let mark = match row.tells(&req).say(key, usage, reply.as_bytes(), kind) {
                Say::Update => "+",
                Say::Delete => "-",
                Say::Look => "?",
                Say::Nothing => "",
            };
            if !mark.is_empty() {
                said.push(format!("{}{mark}", String::from_utf8_lossy(key)));
            }
        });
        said.join(" ")
    }

    #[test]
    fn what_replies_tell() {
        for (line, reply, expected) in [
            ("SET k v", "+OK\r\n", "k+"),
            ("SET k v", "-OOM no\r\n", ""),
            ("SET k v XX", "$-1\r\n", ""),
            ("SET k v XX", "+OK\r\n", "k+"),
            ("SET k v NX", "_\r\n", ""),
            ("SET k v GET", "$-1\r\n", "k+"),
            ("SET k v NX GET", "$-1\r\n", "k+"),
            ("SET k v NX GET", "$1\r\nx\r\n", ""),
            ("SET k v XX GET", "$-1\r\n", ""),
            ("SET k v XX GET", "$1\r\nx\r\n", "k+"),
            ("SET k v EX 10", "+OK\r\n", "k+"),
            ("SET k v EXAT 10", "+OK\r\n", "k?"),
            ("SET k v EXAT 10 GET", "$-1\r\n", "k?"),
            ("SET k v EX 10 GET", "$-1\r\n", "k+"),
            ("SET k v PX 10 GET", "$-1\r\n", "k+"),
            ("SET k v KEEPTTL GET", "$-1\r\n", "k+"),
            ("SET k v XX EXAT 10", "+OK\r\n", "k?"),
            ("SET k v NX PXAT 10", "_\r\n", ""),
            ("SET k v IFEQ x", "$-1\r\n", ""),
            ("SET k v IFEQ xx", "+OK\r\n", "k+"),
            ("SET k v IFEQ x GET", "$1\r\nx\r\n", "k?"),
            ("SET k nx", "+OK\r\n", "k+"),
            ("GETEX k", "$1\r\nv\r\n", ""),
            ("GETEX k EX 10", "$1\r\nv\r\n", "k?"),
            ("DEL a b", ":0\r\n", ""),
            ("DEL a b", ":1\r\n", "a- b-"),
            ("GETDEL k", "$-1\r\n", ""),
            ("GETDEL k", "$0\r\n\r\n", "k-"),
            ("RENAME a b", "+OK\r\n", "a- b+"),
            ("RENAME a b", "-ERR no such key\r\n", ""),
            ("RENAMENX a b", ":0\r\n", ""),
            ("COPY a b", ":1\r\n", "b+"),
            ("HDEL k f", ":1\r\n", "k?"),
            ("HDEL k f", ":0\r\n", ""),
            ("HSET k f v", ":0\r\n", "k+"),
            ("HSET k f v", "-WRONGTYPE no\r\n", ""),
            ("SETBIT k 1 1", ":0\r\n", "k+"),
            ("ZADD k 1 m", ":0\r\n", "k?"),
            ("ZADD k 1 m", ":1\r\n", "k?"),
            ("ZADD k XX INCR 1 m", "$-1\r\n", ""),
            ("LPOP k 2", "*-1\r\n", ""),
            ("LPOP k", "$1\r\nx\r\n", "k?"),
            ("LINSERT k BEFORE a b", ":-1\r\n", ""),
            ("LMOVE a b LEFT LEFT", "$1\r\nx\r\n", "a? b?"),
            ("LPUSH k v", ":1\r\n", "k?"),
            ("LPUSHX k v", ":0\r\n", ""),
            ("SMOVE a b m", ":0\r\n", ""),
            ("BLPOP a b 0", "*2\r\n$1\r\nb\r\n$1\r\nx\r\n", "b?"),
            ("BLPOP a b 0", "*-1\r\n", ""),
            ("LMPOP 2 a b LEFT", "*2\r\n$1\r\na\r\n*1\r\n$1\r\nx\r\n", "a?"),
            ("SUNIONSTORE d a", ":0\r\n", "d-"),
            ("SUNIONSTORE d a", ":3\r\n", "d+"),
            ("SORT a STORE d", ":2\r\n", "d+"),
            ("EVAL s 1 k", "-ERR late\r\n", "k?"),
            ("EVALSHA s 1 k", "-NOSCRIPT No matching\r\n", ""),
            ("MIGRATE h 1 k 0 9 COPY", "+NOKEY\r\n", ""),
            ("MIGRATE h 1 k 0 9 COPY", "+OK\r\n", "k?"),
        ] {
            assert_eq!(said(line, reply), expected, "{line}: {reply}");
        }
    }

    #[test]
    fn of_two_different_things_to_say_the_upstream_decides() {
        let all = [Say::Update, Say::Delete, Say::Look, Say::Nothing];
        for one in all {
            assert_eq!((one.and(one), one.and(Say::Nothing), Say::Nothing.and(one)), (one, one, one));
            for other in all.into_iter().filter(|other| *other != one && *other != Say::Nothing) {
                assert!(one == Say::Nothing || one.and(other) == Say::Look, "{one:?} {other:?}");
            }
        }
    }
}
