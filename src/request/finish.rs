//! What was sent in parts is put together and handed over.
//!
//! Invariants: where one part failed, the client gets an error, never half a reply. If others may have done something by then,
//! the error says which, by their keys or their nodes; so many are named, and the others counted.

use bytes::Bytes;

use super::combine::{How, is_error};
use super::context::Context;
use super::gathers::{Gather, Part, Plan};
use super::scan;
use crate::command::Access;
use crate::pending::Window;
use crate::process::errors;
use crate::resp::framer::{Frame, RequestFramer};
use crate::resp::scanner::elements;

/// Hands over what is there. Says whether anything was.
pub fn finish(cx: &Context) -> bool {
    let mut any = false;
    while let Some(gather) = cx.gathers.take_over() {
        any = true;
        one(cx, gather);
    }
    any
}

fn one(cx: &Context, gather: Gather) {
    let Gather { slot, queue, parts, plan, own, .. } = gather;
    let to = cx.slot(slot);
    if queue.parts_left() > 0 {
        // More came than is held, or what was to bring it is gone. What still comes is thrown away.
        queue.close();
        return to.error(&errors::too_large(cx.process.settings.output_limit));
    }
    own.iter().for_each(|own| cx.outbound.router.give_back(&own.key, own.link.clone()));
    drop(own);
    let replies: Vec<_> = (0..parts.len()).map(|part| queue.take_part(part)).collect();
    match plan {
        Plan::Combine { how, by_keys } => to.piece(combined(cx, &how, by_keys, &parts, &replies), true),
        Plan::Window { window, places } => window_of(&window, &places, &replies),
        Plan::Scan(scanning) => scan::page(cx, &to, *scanning, &replies),
    }
}

fn combined(cx: &Context, how: &How, by_keys: bool, parts: &[Part], replies: &[Bytes]) -> Bytes {
    let failed = replies.iter().find(|reply| is_error(reply));
    if let Some(failed) = failed.filter(|_| *how != How::OneSucceeded) {
        return failure(cx, by_keys, parts, replies, failed);
    }
    how.combine(replies).unwrap_or_else(|| errors::line(errors::MISFITS).into())
}

/// One part failed so.
fn failure(cx: &Context, by_keys: bool, parts: &[Part], replies: &[Bytes], failed: &Bytes) -> Bytes {
    let is_done = |reply: &Bytes| !is_error(reply);
    if !replies.iter().any(|reply| is_done(reply) || errors::may_be_done(reply)) {
        // Nothing was done anywhere: it is as from one server.
        return failed.clone();
    }
    let mut named =
        Named { cx, by_keys, framer: RequestFramer::new(cx.process.settings.limits), only_reads: true };
    let [mut done, mut unsure, mut undone] = [(); 3].map(|()| Names::default());
    for (part, reply) in parts.iter().zip(replies) {
        let names = match () {
            () if is_done(reply) => &mut done,
            () if errors::may_be_done(reply) => &mut unsure,
            () => &mut undone,
        };
        named.add(part, names);
    }
    if named.only_reads {
        let at = parts.iter().zip(replies).find(|(_, reply)| is_error(reply));
        let at = at.map(|(part, _)| part.node.upstream.address.to_string()).unwrap_or_default();
        return errors::line(&errors::failed_at(failed, &at)).into();
    }
    errors::line(&errors::done_in_part(failed, &done.told(), &unsure.told(), &undone.told())).into()
}

/// Tells whom a part is about.
struct Named<'c> {
    cx: &'c Context,
    by_keys: bool,
    framer: RequestFramer,
    only_reads: bool,
}

impl Named<'_> {
    fn add(&mut self, part: &Part, names: &mut Names) {
        let Ok(Frame::Request(_)) = self.framer.next(&part.request) else { return };
        let (request, table) = (self.framer.request(&part.request), self.cx.process.table());
        let Some(row) = table.lookup(&request) else { return };
        self.only_reads &= row.access == Access::Read;
        if self.by_keys {
            let _ = row.keys(&request, |i, _| names.add(request.arg(i)));
        } else {
            names.add(part.node.upstream.address.to_string().as_bytes());
        }
    }
}

/// Names of which so many are shown.
#[derive(Default)]
struct Names {
    shown: Vec<String>,
    more: usize,
}

impl Names {
    const SHOWN: usize = 8;
    const BYTES: usize = 64;

    fn add(&mut self, name: &[u8]) {
        if self.shown.len() == Self::SHOWN {
            self.more += 1;
            return;
        }
        let (start, cut) = (&name[..name.len().min(Self::BYTES)], name.len() > Self::BYTES);
        self.shown.push(format!("{}{}", start.escape_ascii(), if cut { "…" } else { "" }));
    }

    fn told(&self) -> Option<String> {
        let more = if self.more > 0 { format!(" and {} more", self.more) } else { String::new() };
        (!self.shown.is_empty()).then(|| format!("{}{more}", self.shown.join(", ")))
    }
}

/// What was missing of a window is there.
fn window_of(window: &Window, places: &[Vec<u32>], replies: &[Bytes]) {
    if let Some(failed) = replies.iter().find(|reply| is_error(reply)) {
        return window.refuse(failed.clone());
    }
    let mut all = vec![Bytes::new(); places.iter().map(Vec::len).sum()];
    for (places, reply) in places.iter().zip(replies) {
        let Some(elements) = elements(reply).filter(|elements| elements.len() == places.len()) else {
            return window.refuse(errors::line(errors::MISFITS).into());
        };
        for (place, element) in places.iter().zip(elements) {
            if let Some(at) = all.get_mut(*place as usize) {
                *at = reply.slice(element);
            }
        }
    }
    window.deliver(all);
}
