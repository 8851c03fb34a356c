//! `MGET`, put together key by key: only what is missing is fetched, with one `MGET`, or one for each hash slot of a cluster.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use bytes::{BufMut, Bytes, BytesMut};

use super::back::is_dirty;
use super::context::Context;
use super::fetch::register;
use super::gathers::{Gather, Part as SentPart, Plan};
use super::links::Links;
use super::raw::Raw;
use crate::cache::{By, EntryKey, Lookup, Micros};
use crate::pending::{CacheLease, Fetch, Link, MgetAssembly, Missing, Part, Pending, Window, send};
use crate::process::Ticket;
use crate::reply::{ReplyQueue, ReplySlot};
use crate::resp::request::Request;
use crate::resp::{encode, key_slot};

/// Missing keys that are fetched at a time.
const MAX_FILLS: usize = 1024;

/// One `MGET` is put together in windows: each looks up so many keys at most, fetches so many, and holds so many bytes
/// of cached elements. The next one begins when the client has taken of what there is; no later request is looked at
/// before the last one.
const LOOKUPS: usize = 16 << 10;
const BYTES: usize = 1 << 20;

/// What is left of an `MGET` of more than one window.
pub struct Unfinished {
    /// The keys that are still to be looked up, as they came.
    keys: Bytes,
    left: usize,
    slot: u64,
    all_hit: bool,
    /// Stands while a window is being fetched.
    fetch: Weak<Fetch>,
}

/// What has become of an `MGET`.
pub enum Progress {
    /// There is none, or it waits for what was fetched, or for its client to take what there is.
    Waits,
    /// Something was done, and more is to be.
    Worked,
    /// Others are to have their turn first.
    GivesWay,
    /// Nothing is left to be sent; whether all of it was there.
    Over { hit: bool },
}

/// Keys behind one another, as a request has them.
struct Keys<'a>(&'a [u8]);

impl<'a> Iterator for Keys<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = memchr::memchr(b'\n', self.0)?;
        let digits = self.0.get(1..line - 1)?;
        let len = digits.iter().fold(0, |len, digit| len * 10 + usize::from(digit - b'0'));
        let key = self.0.get(line + 1..line + 1 + len)?;
        self.0 = self.0.get(line + len + 3..)?;
        Some(key)
    }
}

/// Answers an `MGET` from the cache, or fetches what is missing. What is left of it then waits for [`go_on`].
pub fn mget(cx: &Context, request: &Request<'_>, raw: Raw<'_>) -> (Progress, Option<Box<Unfinished>>) {
    let (elements, links) = (request.len() - 1, RefCell::new(Links::new(cx)));
    // As long as all are there, they go straight to where the client's replies are gathered.
    let first = cx.queue.reply_unless(|out| {
        encode::array(out, elements);
        let start = out.len();
        (1..=elements).find_map(|i| {
            if out.len() - start > BYTES || i > LOOKUPS {
                return Some((i, None, BytesMut::from(&out[start..])));
            }
            match lookup(cx, &links, request.arg(i), |reply| {
                out.extend_from_slice(reply);
            }) {
                Lookup::Hit => None,
                other => Some((i, Some(other), BytesMut::from(&out[start..]))),
            }
        })
    });
    let Some((at, found, held)) = first else {
        cx.keep_answered(|| raw.to_bytes());
        return (Progress::Over { hit: true }, None);
    };
    let slot = cx.open_for(&raw).slot;
    let keys = match raw {
        Raw::Own(whole) => whole.slice_ref(request.raw_after(at - 1)),
        Raw::Copy(_) => Bytes::copy_from_slice(request.raw_after(at - 1)),
    };
    let left = elements + 1 - at;
    let mut rest = Unfinished { keys, left, slot, all_hit: true, fetch: Weak::new() };
    window(cx, &mut rest, Some(elements), found, held);
    if rest.left == 0 {
        return (Progress::Over { hit: false }, None);
    }
    cx.queue.wake();
    (Progress::Worked, Some(Box::new(rest)))
}

/// Goes on with an `MGET` of several windows.
pub fn go_on(cx: &Context, unfinished: &mut Option<Box<Unfinished>>) -> Progress {
    let Some(rest) = unfinished else { return Progress::Waits };
    let mut windows = 0;
    while rest.left > 0 && cx.queue.is_unanswered(rest.slot) {
        // The queue wakes when there is room, the fetch at its end.
        if cx.queue.is_full() || rest.fetch.strong_count() > 0 {
            return if windows > 0 { Progress::Worked } else { Progress::Waits };
        }
        if windows == 1 {
            return Progress::GivesWay;
        }
        windows += 1;
        window(cx, rest, None, None, BytesMut::new());
    }
    let hit = rest.all_hit;
    *unfinished = None;
    Progress::Over { hit }
}

/// Puts the next window together, of which `held` is there and the next key was `found` so, and delivers it or has
/// fetched what is missing. The first one begins the reply, of so many `elements`.
fn window(
    cx: &Context,
    rest: &mut Unfinished,
    elements: Option<usize>,
    mut found: Option<Lookup<Ticket>>,
    mut held: BytesMut,
) {
    let mut parts = vec![Part::Held(0..held.len())];
    let (mut missing, mut unregistered) = (Vec::new(), Vec::new());
    let all = rest.keys.clone();
    let (mut keys, mut looked, links) = (Keys(&all), 0, RefCell::new(Links::new(cx)));
    while looked < LOOKUPS && held.len() <= BYTES && missing.len() < MAX_FILLS && rest.left > 0 {
        let Some(key) = keys.next() else { break };
        (rest.left, looked) = (rest.left - 1, looked + 1);
        let start = held.len();
        let found =
            found.take().unwrap_or_else(|| lookup(cx, &links, key, |reply| held.extend_from_slice(reply)));
        match found {
            Lookup::Hit => match parts.last_mut() {
                Some(Part::Held(range)) => range.end = held.len(),
                _ => parts.push(Part::Held(start..held.len())),
            },
            other => {
                parts.push(Part::Missing);
                let mut lease = if let Lookup::Miss(lease) = other { Some(lease) } else { None };
                unregistered.extend(lease.take_if(|lease| !lease.is_registered()));
                missing.push(Missing { key: key.into(), past: lease.is_none(), lease, reply: 0..0 });
            }
        }
    }
    let behind = keys.0.len();
    rest.keys = all.slice(all.len() - behind..);
    cx.process.cache.touch(cx.now);
    let (to, last, held) = (cx.slot(rest.slot), rest.left == 0, held.freeze());
    let mut window = Window { to, elements, last, held, parts, fetch: None };
    if missing.is_empty() {
        return window.deliver([]);
    }
    rest.all_hit = false;
    let fetch = Rc::new(Fetch(cx.queue.clone()));
    rest.fetch = Rc::downgrade(&fetch);
    window.fetch = Some(fetch);
    let mut links = links.into_inner();
    match cx.topology.is_single() {
        true => fetch_missing(&cx.link, cx.now, Some(window), missing),
        false => fetch_by_slot(cx, &mut links, window, missing),
    }
    for (link, leases) in by_link(&mut links, unregistered) {
        register(&cx.outbound.inbox, &link, leases);
    }
}

/// Leases, by the links on which their keys are read.
fn by_link(links: &mut Links<'_>, leases: Vec<CacheLease>) -> Vec<(Link, Vec<CacheLease>)> {
    let mut of: Vec<(Link, Vec<CacheLease>)> = Vec::new();
    for lease in leases {
        let link = links.of(lease.name().key);
        match of.iter_mut().find(|(known, _)| known.is(&link)) {
            Some((_, theirs)) => theirs.push(lease),
            None => of.push((link, vec![lease])),
        }
    }
    of
}

/// What is missing, by hash slots in the order in which they come: a server takes no others in one command. Beside each its
/// place.
fn by_slot(missing: Vec<Missing>) -> Vec<(Vec<u32>, Vec<Missing>)> {
    let (mut slots, mut groups) = (HashMap::<u16, usize>::new(), Vec::<(Vec<u32>, Vec<Missing>)>::new());
    for (place, missing) in missing.into_iter().enumerate() {
        let at = *slots.entry(key_slot(&missing.key)).or_insert(groups.len());
        if at == groups.len() {
            groups.push(Default::default());
        }
        groups[at].0.push(place as u32);
        groups[at].1.push(missing);
    }
    groups
}

/// Fetches a window's missing keys from the nodes of a cluster.
fn fetch_by_slot(cx: &Context, links: &mut Links<'_>, window: Window, missing: Vec<Missing>) {
    let (slot, (places, groups)) =
        (window.to.slot, by_slot(missing).into_iter().unzip::<_, _, Vec<_>, Vec<_>>());
    let queue = ReplyQueue::of_parts(groups.len(), &cx.queue, slot);
    let mut parts = Vec::with_capacity(groups.len());
    for (i, missing) in groups.into_iter().enumerate() {
        let Some(first) = missing.first() else { continue };
        let (node, link) = (cx.topology.owner(&first.key).clone(), links.of(&first.key));
        let mut request = BytesMut::new();
        encode_mget(&mut request, &missing);
        let request = request.freeze();
        queue.keep(i as u64, request.clone());
        parts.push(SentPart { node, request });
        let (to, elements) = (ReplySlot { queue: queue.clone(), slot: i as u64 }, Some(missing.len()));
        let (held, asked) = (Bytes::new(), missing.iter().map(|_| Part::Missing).collect());
        let part = Window { to, elements, last: true, held, parts: asked, fetch: None };
        fetch_missing(&link, cx.now, Some(part), missing);
    }
    let plan = Plan::Window { window, places };
    cx.gathers.add(Gather { slot, queue, parts, plan, own: Vec::new(), waits: false, is_back: false });
}

fn encode_mget(out: &mut BytesMut, missing: &[Missing]) {
    out.put_slice(format!("*{}\r\n$4\r\nMGET\r\n", missing.len() + 1).as_bytes());
    missing.iter().for_each(|missing| encode::bulk(out, &missing.key));
}

/// Reads what is leased, elements of `MGET`, into the cache, though no client waits for it.
pub fn fetch_unasked(link: &Link, leases: Vec<CacheLease>, now: Micros) {
    let missing = |lease: CacheLease| {
        let key = lease.name().key.into();
        Missing { key, past: false, lease: Some(lease), reply: 0..0 }
    };
    let missing: Vec<_> = leases.into_iter().map(missing).collect();
    if link.client().process.is_single() {
        return fetch_missing(link, now, None, missing);
    }
    by_slot(missing).into_iter().for_each(|(_, missing)| fetch_missing(link, now, None, missing));
}

/// Sends the `MGET`, and asks how long that is good which is to be kept.
fn fetch_missing(link: &Link, now: Micros, window: Option<Window>, missing: Vec<Missing>) {
    debug_assert!(missing.iter().filter_map(|missing| missing.lease.as_ref()).all(CacheLease::is_registered));
    let mut out = BytesMut::new();
    encode_mget(&mut out, &missing);
    for fill in missing.iter().filter(|missing| missing.lease.is_some()) {
        encode::command(&mut out, &[b"PTTL", &fill.key]);
    }
    let mut assembly = Box::new(MgetAssembly::new(window, missing));
    if link.client().process.traces.are_on() && assembly.window.is_some() {
        assembly.trace(link.client(), now);
    }
    send(link, now, |to| to.append(out.freeze()), Pending::MgetAssembly(assembly));
}

fn lookup(
    cx: &Context,
    links: &RefCell<Links<'_>>,
    key: &[u8],
    mut serve: impl FnMut(&[u8]),
) -> Lookup<Ticket> {
    let name = EntryKey { key, ident: cx.ident, command: cx.process.get, args: b"", by: By::MGET };
    let namespace = cx.process.namespaces.find(key);
    if is_dirty(cx, namespace, key, &mut serve) {
        return Lookup::Hit;
    }
    let cover = || links.borrow_mut().of(key).client().cover(key, namespace);
    cx.process.cache.lookup(&name, cx.now, cx.bounds(namespace, key), cover, |_| None, serve)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_one_by_one() {
        let mut keys = Keys(b"$1\r\na\r\n$0\r\n\r\n$11\r\n$1\r\nx\r\n$2\r\n\r\n");
        assert_eq!(keys.next(), Some(&b"a"[..]));
        assert_eq!(keys.next(), Some(&b""[..]));
        assert_eq!(keys.next(), Some(&b"$1\r\nx\r\n$2\r\n"[..]));
        assert_eq!((keys.next(), keys.0), (None, &b""[..]));
    }
}
