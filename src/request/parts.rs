//! A request that goes out in parts, each to its node.
//!
//! Invariants: the fences on all that the parts write are taken before the first of them is sent. Each goes when its own part
//! is answered, which is before the client is: it is as with a write of these keys alone. Parts of one hash slot, and those of
//! one node, go on one link, in the order of the session's requests.

use std::sync::Arc;

use bytes::Bytes;

use super::context::{Context, keys_of};
use super::gathers::{Gather, Own, Part, Plan};
use super::links::Links;
use super::raw::Raw;
use super::write;
use crate::command::{Access, CacheRule, Row, Table};
use crate::pending::{Bypass, Link, Pending, WriteSet, send as send_on};
use crate::process::{Ident, Node, errors};
use crate::reply::{Refusal, ReplyQueue, ReplySlot};
use crate::resp::framer::{Frame, RequestFramer};
use crate::resp::request::Request;
use crate::router::LinkKey;
use crate::upstream::PING;

/// On which links the parts go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// On those that sessions share.
    Shared,
    /// On connections of their own: the servers may close those.
    Own,
    /// Likewise, where they may wait as long as they like.
    Waiting,
    /// Likewise, where a server that is busy takes them.
    Aside,
}

/// What is to be done with a part's reply; what it writes is fenced by now.
enum Ready {
    Write(Box<WriteSet>),
    Other(Box<dyn FnOnce(ReplySlot) -> Pending>),
}

/// Sends the parts of a request. Says in which slot the reply will be, and whether they may write keys that nobody can name.
pub fn send(cx: &Context, whole: &Raw<'_>, parts: Vec<Part>, plan: Plan, way: Way) -> (u64, bool) {
    let number = parts.len() + cx.outbound.own_parts.get();
    if way != Way::Shared && number > cx.process.settings.max_links.get() {
        let slot = cx.queue.next();
        cx.queue.reply(&errors::line(errors::TOO_MANY_OWN));
        return (slot, false);
    }
    // Only what goes on shared links can be sent again; and a page is asked for by its client.
    let keeps = way == Way::Shared && !matches!(plan, Plan::Scan(_));
    let slot = if keeps { cx.open_for(whole).slot } else { cx.queue.open() };
    let queue = ReplyQueue::of_parts(parts.len(), &cx.queue, slot);
    let all = 0..parts.len();
    let mut gather =
        Gather { slot, queue, parts, plan, own: Vec::new(), waits: way == Way::Waiting, is_back: false };
    if keeps {
        let requests = gather.parts.iter().map(|part| part.request.clone());
        (0..).zip(requests).for_each(|(part, request)| gather.queue.keep(part, request));
    }
    let mut links = Links::new(cx);
    let barrier = send_these(cx, &mut gather, all, |gather, part| {
        let node = gather.parts[part].node.clone();
        let link = match way {
            Way::Shared => links.to(&node),
            way => own_link(cx, gather, &node, way),
        };
        if way == Way::Waiting {
            // As in `Dedicated`: what is waited for was written on other links.
            send_on(&link, cx.now, |out| out.copy(PING), Pending::Ping);
        }
        link
    });
    cx.gathers.add(gather);
    (slot, barrier)
}

/// Sends these parts, each on the link that `link` gives just before.
fn send_these(
    cx: &Context,
    gather: &mut Gather,
    parts: impl Iterator<Item = usize> + Clone,
    mut link: impl FnMut(&mut Gather, usize) -> Link,
) -> bool {
    let (table, mut framer) = (cx.process.table(), RequestFramer::new(cx.process.settings.limits));
    let mut ready = |part: usize| ready(cx, &table, &mut framer, &gather.parts[part].request);
    let all: Vec<_> = parts.clone().map(&mut ready).collect();
    let mut barrier = false;
    for (part, ready) in parts.zip(all) {
        let (request, to) = (gather.parts[part].request.clone(), gather.to(part));
        let link = link(gather, part);
        match ready {
            Ready::Write(set) => {
                barrier |= set.is_barrier();
                write::send(*set, cx, &link, to, Raw::Own(request));
            }
            Ready::Other(pending) => {
                send_on(&link, cx.now, |out| out.append(request), pending(to));
            }
        }
    }
    barrier
}

/// Sends again what is left of the request in this slot. `None` if that did not go out in parts.
pub fn send_again(cx: &Context, slot: u64) -> Option<()> {
    let mut gather = cx.gathers.take_back(slot)?;
    gather.is_back = false;
    cx.queue.goes_again(slot);
    let back = gather.back();
    follow(cx, &mut gather, &back);
    back.iter().for_each(|(part, _)| gather.queue.goes_again(*part as u64));
    let mut links = Links::new(cx);
    let parts: Vec<_> = back.iter().map(|(part, _)| *part).collect();
    send_these(cx, &mut gather, parts.into_iter(), |gather, part| {
        let refusal = back.iter().find(|(of, _)| *of == part).and_then(|(_, refusal)| refusal.said.as_ref());
        match refusal.and_then(|said| cx.asked(said)) {
            Some(node) => cx.asking_link(node),
            None => links.to(&gather.parts[part].node),
        }
    });
    cx.gathers.add(gather);
    Some(())
}

/// What is there of a request that waits to be sent again is thrown away: all of it is to be. Precondition: it
/// [can](super::gathers::Gathers::begins_anew) be.
pub fn begin_anew(cx: &Context, slot: u64) {
    if let Some(gather) = cx.gathers.take_back(slot) {
        gather.queue.close();
    }
    cx.queue.forget_rest(slot);
}

/// Parts that are to be sent again go to who has their keys now. Of a node that is none any more, another that was not
/// asked takes the place.
fn follow(cx: &Context, gather: &mut Gather, back: &[(usize, Refusal)]) {
    let (table, mut framer) = (cx.process.table(), RequestFramer::new(cx.process.settings.limits));
    for (part, _) in back {
        let request = gather.parts[*part].request.clone();
        let Ok(Frame::Request(_)) = framer.next(&request) else { continue };
        let request = framer.request(&request);
        let node = match keys_of(table.lookup(&request), &request).first() {
            Some(key) => Some(cx.topology.owner(key)),
            None if cx.topology.has(&gather.parts[*part].node) => None,
            None => {
                let is_asked = |node: &Node| gather.parts.iter().any(|part| part.node.id == node.id);
                cx.topology.nodes().iter().find(|node| !is_asked(node))
            }
        };
        if let Some(node) = node {
            gather.parts[*part].node = node.clone();
        }
    }
}

/// What is left of the request in this slot is not sent again. `None` if that did not go out in parts.
pub fn give_up(cx: &Context, slot: u64) -> Option<()> {
    let mut gather = cx.gathers.take_back(slot)?;
    gather.is_back = false;
    cx.queue.goes_again(slot);
    refuse(&gather);
    cx.gathers.add(gather);
    cx.queue.wake();
    Some(())
}

/// What the parts that are to be sent again were refused with is their reply.
pub fn refuse(gather: &Gather) {
    gather.back().iter().for_each(|(part, refusal)| gather.to(*part).refuse(refusal));
}

fn ready(cx: &Context, table: &Table, framer: &mut RequestFramer, bytes: &Bytes) -> Ready {
    let relay = || Ready::Other(Box::new(Pending::Relay));
    let Ok(Frame::Request(_)) = framer.next(bytes) else { return relay() };
    let request = framer.request(bytes);
    match table.lookup(&request) {
        Some(row) if row.access == Access::Write => {
            let mut set = WriteSet::default();
            set.add(&cx.process, Some(row), &request);
            set.fence_now(&cx.process, cx.now);
            Ready::Write(Box::new(set))
        }
        Some(row) if is_cached(row, &request) => {
            let keys = keys_of(Some(row), &request);
            Ready::Other(Box::new(move |to| {
                Pending::Bypass(to, Box::new(Bypass { keys, ..Bypass::default() }))
            }))
        }
        _ => relay(),
    }
}

fn is_cached(row: &Row, request: &Request<'_>) -> bool {
    !matches!(row.cache(request), CacheRule::Never)
}

/// A connection to the node for this gather alone.
fn own_link(cx: &Context, gather: &mut Gather, node: &Arc<Node>, way: Way) -> Link {
    let mut key = LinkKey { node: node.clone(), ..cx.key.clone() };
    if way == Way::Aside {
        // A server that is busy takes no `SELECT`.
        key.ident = Ident { db: 0, ..key.ident };
    }
    let owner = crate::pending::Owner { queue: gather.queue.clone(), ..cx.owner() };
    let link = cx.outbound.router.dedicated(&key, owner);
    if way == Way::Waiting {
        link.client().exempt_from_timeout();
    }
    gather.own.push(Own::new(key, link.clone(), &cx.outbound.own_parts));
    link
}
