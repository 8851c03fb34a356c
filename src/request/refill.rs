//! `refill-on-write`: a write's own read, pipelined behind it, so that the next read is a hit.
//!
//! Invariants: the read is sent behind the write and its announcement on the same link, under a lease
//! that was opened while the write's fence is held. Nothing of it is delivered to anybody but the cache and
//! whoever waits for the same reply. The announcement's echo does not void it; another write does.

use super::context::Context;
use super::fetch::fetch_unasked;
use crate::cache::{By, CachedReply, EntryKey, EntryKeyBuf, NO_LINK};
use crate::command::Row;
use crate::namespace::Namespace;
use crate::pending::{CacheLease, Link, WriteSet};

/// Keys of one write that are refilled, and replies of one key.
const MAX_KEYS: usize = 8;
const MAX_REPLIES: usize = 8;

/// What is to be read behind a write: the replies of its keys that were in use, and of a string what `GET`
/// gives. Asked before the fence, which drops them.
pub fn wanted(cx: &Context, link: &Link, write_set: &WriteSet) -> Vec<EntryKeyBuf> {
    let (process, ident, now) = (&cx.process, &cx.key.ident, cx.now);
    let mut wanted = Vec::new();
    let refills = |key: &[u8]| process.namespaces.find(key).is_some_and(Namespace::refill_on_write);
    if ident.user.is_some() || link.client().id == NO_LINK || write_set.keys.len() > MAX_KEYS {
        return wanted;
    }
    if !write_set.keys.iter().any(|key| refills(key)) {
        return wanted;
    }
    let number = process.idents.number(ident);
    let string = write_set.string && process.table().row(process.get).is_some_and(Row::is_cached);
    for key in write_set.keys.iter().filter(|key| refills(key)) {
        let described = process.cache.describe(key, now);
        let had =
            |reply: &&CachedReply| reply.stands && reply.ident == number && reply.command == process.get;
        let by = described.replies.iter().find(had).map_or(By::GET, |reply| reply.by.and(By::GET));
        let get = EntryKey { key, ident: number, command: process.get, args: b"", by };
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

/// Opens the leases; the fence is held. Gives those aside whose keys are to be registered first: that is done when the write
/// is answered, for it would end their registration.
pub fn lease(cx: &Context, link: &Link, wanted: Vec<EntryKeyBuf>) -> (Vec<CacheLease>, Vec<EntryKeyBuf>) {
    if wanted.is_empty() {
        return Default::default();
    }
    let cover = |name: &EntryKeyBuf| {
        link.client().cover(name.borrow().key, cx.process.namespaces.find(name.borrow().key))
    };
    let (later, now): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|name| cover(name).is_some_and(|cover| cover.registers));
    let cache = &cx.process.cache;
    let lease = |name: &EntryKeyBuf| cache.lease_behind_write(&name.borrow(), cx.now, || cover(name));
    (now.iter().filter_map(lease).collect(), later)
}

/// Sends the reads, right behind the write.
pub fn send(cx: &Context, link: &Link, leases: Vec<CacheLease>) {
    for lease in leases {
        fetch_unasked(&cx.outbound.inbox, link, lease, cx.now);
    }
}
