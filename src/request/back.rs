//! Writes that are acknowledged here, and what is read of them: see [`writeback`](crate::writeback).
//!
//! Invariants: only nearside's own user, in the database of the configuration, writes and reads here; whoever else touches a
//! dirty key waits for its flush. What is not understood to the last option goes upstream, which says what is wrong with it.

use bytes::{Bytes, BytesMut};

use super::context::Context;
use crate::cache::{By, EntryKey};
use crate::command::Row;
use crate::namespace::Namespace;
use crate::process::{Back, Ticket};
use crate::resp::encode;
use crate::resp::number::string2ll;
use crate::resp::request::Request;
use crate::writeback::{Base, Op, Stands, Written, unix_ms};

/// What a request writes.
enum Writes<'a> {
    One(&'a [u8], Op),
    /// `MSET`
    Many(Vec<(&'a [u8], Op)>),
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is answered, or will be.
    Here,
    /// It is to go upstream.
    Through,
    /// There is no room for it, and the upstream of this namespace is away.
    Full(String),
}

/// Whether what the session says concerns what is dirty.
pub fn is_own(cx: &Context) -> bool {
    let ident = &cx.key.ident;
    ident.user.is_none() && ident.db == cx.process.settings.db && !cx.client.is_own
}

/// Gives `serve` what is read of a key of this namespace, as a reply to `GET`, if it is dirty. Says whether it is.
#[inline(always)]
pub fn is_dirty(cx: &Context, namespace: Option<&Namespace>, key: &[u8], serve: impl FnOnce(&[u8])) -> bool {
    match cx.process.back(namespace).and_then(|back| dirty_reply(cx, back, key)) {
        Some(reply) => {
            serve(&reply);
            true
        }
        None => false,
    }
}

#[cold]
fn dirty_reply(cx: &Context, back: &Back, key: &[u8]) -> Option<BytesMut> {
    if !is_own(cx) {
        return None;
    }
    let value = back.read(key)?;
    let mut out = BytesMut::with_capacity(value.as_ref().map_or(0, Bytes::len) + 32);
    match value {
        Some(value) => encode::bulk(&mut out, &value),
        None => encode::null(&mut out, cx.key.ident.protocol),
    }
    Some(out)
}

/// Whether it is a write that may be taken here, by its name.
pub fn may_be_taken(row: &Row) -> bool {
    matches!(&*row.name, "set" | "setex" | "psetex" | "del" | "unlink" | "mset")
}

/// Takes a write, if its keys are of a namespace whose writes are acknowledged here.
pub fn take(cx: &Context, row: &Row, request: &Request<'_>) -> Taken {
    let Some(writes) = writes(row, request) else { return through(cx, request) };
    let ticket = || Ticket { inbox: cx.outbound.inbox.clone(), session: cx.client.id, slot: cx.queue.next() };
    let (back, written, is_delete) = match writes {
        Writes::One(key, op) => {
            let namespace = cx.process.namespaces.find(key);
            let Some(back) = cx.process.back(namespace) else { return Taken::Through };
            let is_delete = op == Op::Delete;
            let written = back.write(key, op, cx.now, || base(cx, namespace, key), ticket);
            (back, written, is_delete)
        }
        Writes::Many(writes) => {
            let Some(back) = back_of_all(cx, writes.iter().map(|(key, _)| *key)) else {
                return Taken::Through;
            };
            let base = |key: &[u8]| base(cx, cx.process.namespaces.find(key), key);
            let writes = writes.into_iter().map(|(key, op)| (key.into(), op)).collect();
            (back, back.write_all(writes, cx.now, base, ticket), false)
        }
    };
    match written {
        Written::Done { existed } => cx.queue.reply(match (is_delete, existed) {
            (false, _) => b"+OK\r\n",
            (true, true) => b":1\r\n",
            (true, false) => b":0\r\n",
        }),
        Written::Waits => {
            let _ = cx.queue.open();
        }
        Written::Through => {
            back.stats.through.inc();
            return Taken::Through;
        }
        Written::Full => return Taken::Full(back.name.clone()),
    }
    Taken::Here
}

/// It goes through because of what it says.
fn through(cx: &Context, request: &Request<'_>) -> Taken {
    if let Some(back) = request.get(1).and_then(|key| cx.process.back(cx.process.namespaces.find(key))) {
        back.stats.through.inc();
    }
    Taken::Through
}

/// The one namespace of all these keys, if its writes are acknowledged here.
fn back_of_all<'c, 'k>(cx: &'c Context, keys: impl Iterator<Item = &'k [u8]>) -> Option<&'c Back> {
    let mut all: Option<&Back> = None;
    for key in keys {
        let back = cx.process.back(cx.process.namespaces.find(key))?;
        if all.is_some_and(|known| known.name != back.name) {
            return None;
        }
        all = Some(back);
    }
    all
}

/// What stands upstream, as far as a cached reply proves it.
fn base(cx: &Context, namespace: Option<&Namespace>, key: &[u8]) -> Option<Base> {
    let name = EntryKey { key, ident: cx.ident, command: cx.process.get, args: b"", by: By::GET };
    let bounds = cx.bounds(namespace, key);
    cx.process.cache.standing(&name, cx.now, bounds.max_staleness, |reply, expires| {
        let stands = Stands::of_reply(reply)?;
        let until = expires.map(|at| unix_ms() + at.saturating_sub(cx.now) / 1000);
        Some(Base { until: until.filter(|_| stands != Stands::Absent), stands })
    })?
}

fn writes<'a>(row: &Row, request: &Request<'a>) -> Option<Writes<'a>> {
    let set = |value: &[u8], until| Op::Set { value: Bytes::copy_from_slice(value), until };
    Some(match &*row.name {
        "set" => Writes::One(request.get(1)?, set(request.get(2)?, until(request)?)),
        "setex" => Writes::One(request.get(1)?, set(request.get(3)?, Some(from_now(request.get(2)?, 1000)?))),
        "psetex" => Writes::One(request.get(1)?, set(request.get(3)?, Some(from_now(request.get(2)?, 1)?))),
        "del" | "unlink" if request.len() == 2 => Writes::One(request.get(1)?, Op::Delete),
        "mset" if request.len() % 2 == 1 => {
            let pairs = (1..request.len()).step_by(2);
            Writes::Many(pairs.map(|i| (request.arg(i), set(request.arg(i + 1), None))).collect())
        }
        _ => return None,
    })
}

/// When what a `SET` without conditions leaves ends, if it does; nothing if it has other options.
fn until(request: &Request<'_>) -> Option<Option<u64>> {
    let Some(word) = request.get(3) else { return Some(None) };
    if request.len() != 5 {
        return None;
    }
    let time = request.get(4)?;
    let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
    let until = match () {
        () if is(b"ex") => from_now(time, 1000)?,
        () if is(b"px") => from_now(time, 1)?,
        () if is(b"exat") => at(time, 1000)?,
        () if is(b"pxat") => at(time, 1)?,
        () => return None,
    };
    Some(Some(until))
}

/// So many units, of so many milliseconds each, above 0.
fn at(number: &[u8], unit: u64) -> Option<u64> {
    let number =
        string2ll(number).and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0)?;
    // Far below what a server's own reckoning overflows at.
    number.checked_mul(unit).filter(|at| *at < 1 << 52)
}

fn from_now(number: &[u8], unit: u64) -> Option<u64> {
    Some(at(number, unit)? + unix_ms())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Table;
    use crate::resp::framer::{Limits, RequestFramer};

    /// What the request writes, in short.
    fn of(line: &str) -> Option<String> {
        let (table, mut framer, line) =
            (Table::builtin(), RequestFramer::new(Limits::default()), format!("{line}\r\n"));
        framer.next(line.as_bytes()).unwrap();
        let request = framer.request(line.as_bytes());
        let show = |key: &[u8], op: &Op| {
            let key = String::from_utf8_lossy(key);
            match op {
                Op::Delete => format!("{key} gone"),
                Op::Set { value, until } => {
                    let left = until.map(|until| until.saturating_sub(unix_ms()).div_ceil(1000));
                    format!("{key}={} {left:?}", String::from_utf8_lossy(value))
                }
            }
        };
        Some(match writes(table.lookup(&request)?, &request)? {
            Writes::One(key, op) => show(key, &op),
            Writes::Many(all) => all.iter().map(|(key, op)| show(key, op)).collect::<Vec<_>>().join(", "),
        })
    }

    #[test]
    fn only_writes_of_whole_values_without_conditions_are_taken() {
        for (line, expected) in [
            ("SET k v", "k=v None"),
            ("SET k v EX 10", "k=v Some(10)"),
            ("set k v px 10000", "k=v Some(10)"),
            ("SET k v EXAT 1", "k=v Some(0)"),
            ("SETEX k 10 v", "k=v Some(10)"),
            ("PSETEX k 10000 v", "k=v Some(10)"),
            ("DEL k", "k gone"),
            ("UNLINK k", "k gone"),
            ("MSET a 1 b 2", "a=1 None, b=2 None"),
        ] {
            assert_eq!(of(line).as_deref(), Some(expected), "{line}");
        }
        for line in [
            "SET k v NX",
            "SET k v XX",
            "SET k v GET",
            "SET k v KEEPTTL",
            "SET k v EX 10 NX",
            "SET k v EX 0",
            "SET k v EX x",
            "SET k v PX -1",
            "SET k v EX 9223372036854775807",
            "SET k v IFEQ x",
            "SETEX k 0 v",
            "DEL a b",
            "MSET a 1 b",
            "SETNX k v",
            "INCR k",
            "GETSET k v",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }
}
