//! Cached reads of one key: lookup, and on a miss the read with its time to live.

use std::cell::OnceCell;

use bytes::{Bytes, BytesMut};
use smallvec::smallvec;

use super::back::is_dirty;
use super::context::Context;
use super::fetch::{ask_times, register};
use super::raw::Raw;
use crate::cache::{By, EntryKey, EntryKeyBuf, Lookup};
use crate::command::{Row, Table};
use crate::io::Outgoing;
use crate::pending::{Bypass, CacheLease, Fill, Link, Pending, Route, send};
use crate::process::Ticket;
use crate::reply::ReplySlot;
use crate::resp::framer::{Frame, RequestFramer};
use crate::resp::request::Request;

/// Answers a read from the cache, or lets it fill the cache. Says whether it was a hit.
pub fn read(cx: &Context, row: Option<&Row>, request: &Request<'_>, raw: Raw<'_>) -> bool {
    let Some(row) = row else {
        cx.forward(raw, Pending::Relay);
        return false;
    };
    let routed = Routed::new();
    match lookup(cx, row.id, request, None, &routed) {
        Lookup::Hit => {
            cx.keep_answered(|| raw.to_bytes());
            return true;
        }
        Lookup::Joined => {
            cx.queue.open_joined(request.raw(), request.arg(1));
            cx.keep_answered(|| raw.to_bytes());
        }
        Lookup::Miss(lease) => {
            let to = cx.open_for(&raw);
            fetch(cx, row, request, raw, (to, lease, &routed));
        }
        Lookup::Bypass(_) => {
            let link = cx.link_of(request.arg(1));
            let bypass = bypass(cx, row.id, request);
            cx.forward_on(link.as_ref().unwrap_or(&cx.link), raw, |to| Pending::Bypass(to, bypass));
        }
    }
    false
}

/// Looks up anew for a slot whose flight came to nothing. Says whether it was a hit.
pub fn read_again(cx: &Context, table: &Table, slot: u64, request: &[u8]) -> bool {
    let mut framer = RequestFramer::new(cx.process.settings.limits);
    let Ok(Frame::Request(_)) = framer.next(request) else { return false };
    let parsed = framer.request(request);
    let Some(row) = table.lookup(&parsed) else { return false };
    if !cx.topology.is_single() && cx.again.is_none() {
        cx.queue.keep(slot, Bytes::copy_from_slice(request));
    }
    let routed = Routed::new();
    match lookup(cx, row.id, &parsed, Some(slot), &routed) {
        Lookup::Hit => return true,
        Lookup::Joined => cx.queue.join(slot, request.into(), parsed.arg(1)),
        Lookup::Miss(lease) => fetch(cx, row, &parsed, Raw::Copy(request), (cx.slot(slot), lease, &routed)),
        Lookup::Bypass(_) => {
            let link = cx.link_of(parsed.arg(1));
            let pending = Pending::Bypass(cx.slot(slot), bypass(cx, row.id, &parsed));
            send(link.as_ref().unwrap_or(&cx.link), cx.now, |out| out.copy(request), pending);
        }
    }
    false
}

/// The link to the key's node, and why to that one, once it is asked for; `None` is the session's own.
type Routed = OnceCell<(Option<Route>, Option<Link>)>;

fn link_by<'r>(cx: &'r Context, routed: &'r Routed, key: &[u8]) -> &'r Link {
    routed.get_or_init(|| cx.route(key)).1.as_ref().unwrap_or(&cx.link)
}

/// Answers into `slot`, or into the next one.
#[inline]
fn lookup(
    cx: &Context,
    command: u16,
    request: &Request<'_>,
    slot: Option<u64>,
    routed: &Routed,
) -> Lookup<Ticket> {
    let key = request.arg(1);
    let name = EntryKey { key, ident: cx.ident, command, args: request.raw_after(1), by: by(cx, command) };
    let namespace = cx.process.namespaces.find(key);
    let serve = |reply: &[u8]| match slot {
        Some(slot) => cx.slot(slot).whole(reply),
        None => cx.queue.reply(reply),
    };
    if command == cx.process.get && is_dirty(cx, namespace, key, serve) {
        return Lookup::Hit;
    }
    cx.process.cache.lookup(
        &name,
        cx.now,
        cx.bounds(namespace, key),
        || {
            let (route, link) = routed.get_or_init(|| cx.route(key));
            link.as_ref().unwrap_or(&cx.link).client().cover_in(*route, key, namespace)
        },
        |behind_write| {
            // In a pipeline it would hold up what comes behind it, where the upstream would not. Nor does what was
            // released join another refill: of a key that is written all the time, readers would wait for ever.
            if behind_write && cx.queue.waiting() > 0 {
                return None;
            }
            // What goes behind it again would have to wait for that.
            if cx.again.is_some() {
                return None;
            }
            let slot = slot.unwrap_or_else(|| cx.queue.next());
            Some(Ticket { inbox: cx.outbound.inbox.clone(), session: cx.client.id, slot })
        },
        serve,
    )
}

/// By what a reply of this command is asked for: elements of `MGET` are kept as replies to `GET`.
#[inline(always)]
fn by(cx: &Context, command: u16) -> By {
    if command == cx.process.get { By::GET } else { By::ITSELF }
}

fn bypass(cx: &Context, command: u16, request: &Request<'_>) -> Box<Bypass> {
    cx.process.cache.touch(cx.now);
    let key = request.arg(1);
    let by = by(cx, command);
    let name = EntryKey { key, ident: cx.ident, command, args: request.raw_after(1), by };
    let instead = cx.process.settings.stale_if_error.get().then(|| EntryKeyBuf::new(&name));
    Box::new(Bypass { keys: smallvec![key.into()], instead, ..Bypass::default() })
}

fn fetch(
    cx: &Context,
    row: &Row,
    request: &Request<'_>,
    raw: Raw<'_>,
    (to, lease, routed): (ReplySlot, CacheLease, &Routed),
) {
    let key = request.arg(1);
    let link = link_by(cx, routed, key);
    debug_assert_eq!(lease.link(), link.client().id, "what is read on another link is not covered");
    if !lease.is_registered() {
        // The client does not wait for that: it is answered past the cache, and the reply is fetched once more.
        let mut bypass = bypass(cx, row.id, request);
        bypass.ahead = Some((lease.ahead(), BytesMut::new()));
        if cx.process.traces.are_on() {
            bypass.trace(link.client(), cx.now, &lease.name());
        }
        send(link, cx.now, |out| raw.write(out), Pending::Bypass(to, bypass));
        return register(&cx.outbound.inbox, link, vec![lease]);
    }
    cx.process.cache.touch(cx.now);
    let mut fill = Box::new(Fill::new(Some(to), lease, row.fields));
    if cx.process.traces.are_on() {
        fill.trace(link.client(), cx.now);
    }
    let write = |out: &mut Outgoing| {
        raw.write(out);
        out.with(|tail| ask_times(tail, row.fields, key, request.raw_after(1)));
    };
    send(link, cx.now, write, Pending::Fill(fill));
}
