//! `refill-on-write`: a write's own read, pipelined behind it, so that the next read is a hit.
//!
//! Invariants: the read is sent behind the write and its announcement on the same link, under a lease
//! that was opened while the write's fence is held. Nothing of it is delivered to anybody but the cache and
//! whoever waits for the same reply. The announcement's echo does not void it; another write does.

use super::expect::CacheLease;
use super::idents::Ident;
use super::peer::LinkHandler;
use super::read::fetch_unasked;
use super::shared::Shared;
use super::write::WriteSet;
use crate::cache::{By, CachedReply, EntryKey, EntryKeyBuf, Micros, NO_LINK};
use crate::command::Row;
use crate::upstream::Link;

/// Keys of one write that are refilled, and replies of one key.
const MAX_KEYS: usize = 8;
const MAX_REPLIES: usize = 8;

/// Whether `GET` reads what such a command leaves behind.
pub(super) fn is_string_write(command: &str) -> bool {
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

/// What is to be read behind a write: the replies of its keys that were in use, and of a string what `GET`
/// gives. Asked before the fence, which drops them.
pub(super) fn wanted(
    shared: &Shared,
    link: &Link<LinkHandler>,
    ident: &Ident,
    write_set: &WriteSet,
    now: Micros,
) -> Vec<EntryKeyBuf> {
    let mut wanted = Vec::new();
    let refills =
        |key: &[u8]| shared.namespaces.find(key).is_some_and(|namespace| namespace.rules.refill_on_write);
    if ident.user.is_some() || link.client().number == NO_LINK || write_set.keys.len() > MAX_KEYS {
        return wanted;
    }
    if !write_set.keys.iter().any(|key| refills(key)) {
        return wanted;
    }
    let number = shared.idents.number(ident);
    let string = write_set.string && shared.table().row(shared.get).is_some_and(Row::is_cached);
    for key in write_set.keys.iter().filter(|key| refills(key)) {
        let described = shared.cache.describe(key, now);
        let had = |reply: &&CachedReply| reply.stands && reply.ident == number && reply.command == shared.get;
        let by = described.replies.iter().find(had).map_or(By::GET, |reply| reply.by.and(By::GET));
        let get = EntryKey { key, ident: number, command: shared.get, args: b"", by };
        let replies = described
            .replies
            .iter()
            .filter(|reply| reply.ident == number && reply.read && reply.by.is_by_name());
        let names = replies.map(|reply| EntryKey {
            key,
            ident: number,
            command: reply.command,
            args: &reply.args,
            by: reply.by,
        });
        wanted.extend(
            names.filter(|name| !string || *name != get).take(MAX_REPLIES).map(|n| EntryKeyBuf::new(&n)),
        );
        if string {
            wanted.push(EntryKeyBuf::new(&get));
        }
    }
    wanted
}

/// Opens the leases; the fence is held.
pub(super) fn lease(
    shared: &Shared,
    link: &Link<LinkHandler>,
    wanted: &[EntryKeyBuf],
    now: Micros,
) -> Vec<CacheLease> {
    let lease = |name: &EntryKeyBuf| {
        let name = name.borrow();
        let cover = || link.client().cover(shared.namespaces.find(name.key));
        shared.cache.lease_behind_write(&name, now, cover)
    };
    wanted.iter().filter_map(lease).collect()
}

/// Sends the reads, right behind the write.
pub(super) fn send(shared: &Shared, link: &Link<LinkHandler>, leases: Vec<CacheLease>, now: Micros) {
    for lease in leases {
        fetch_unasked(shared, link, lease, now);
    }
}
