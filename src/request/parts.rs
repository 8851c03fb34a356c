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
use crate::reply::{ReplyQueue, ReplySlot};
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

/// Sends the parts. Says in which slot the reply will be, and whether they may write keys that nobody can name.
pub fn send(cx: &Context, parts: Vec<Part>, plan: Plan, way: Way) -> (u64, bool) {
    let number = parts.len() + cx.outbound.own_parts.get();
    if way != Way::Shared && number > cx.process.settings.max_links {
        let slot = cx.queue.next();
        cx.queue.reply(&errors::line(errors::TOO_MANY_OWN));
        return (slot, false);
    }
    let slot = cx.queue.open();
    send_into(cx, slot, parts, plan, way)
}

/// Likewise, into a slot that is open.
pub fn send_into(cx: &Context, slot: u64, parts: Vec<Part>, plan: Plan, way: Way) -> (u64, bool) {
    let queue = ReplyQueue::of_parts(parts.len(), cx.queue.clone());
    let mut gather = Gather { slot, queue, parts, plan, own: Vec::new(), waits: way == Way::Waiting };
    let (table, mut framer) = (cx.process.table(), RequestFramer::new(cx.process.settings.limits));
    let mut ready = |part: &Part| ready(cx, &table, &mut framer, &part.request);
    let all: Vec<_> = gather.parts.iter().map(&mut ready).collect();
    let (mut links, mut barrier) = (Links::new(cx), false);
    for (i, ready) in all.into_iter().enumerate() {
        let (node, request) = (gather.parts[i].node.clone(), gather.parts[i].request.clone());
        let link = match way {
            Way::Shared => links.to(&node),
            way => own_link(cx, &mut gather, &node, way),
        };
        if way == Way::Waiting {
            // As in `Dedicated`: what is waited for was written on other links.
            send_on(&link, cx.now, |out| out.copy(PING), Pending::Ping);
        }
        let to = gather.to(i);
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
    cx.gathers.add(gather);
    (slot, barrier)
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
