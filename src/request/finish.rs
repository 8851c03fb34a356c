//! What was sent in parts is put together and handed over.
//!
//! Invariants: where one part failed, the client gets an error, never half a reply. If others may have done something by then,
//! the error says which, by their keys or their nodes; so many are named, and the others counted.

use bytes::Bytes;

use super::combine::{How, is_error};
use super::context::Context;
use super::gathers::{Gather, Part, Plan};
use super::parts;
use super::scan;
use super::split;
use crate::command::Access;
use crate::pending::Window;
use crate::process::errors;
use crate::reply::Refusal;
use crate::resp::Redirection;
use crate::resp::framer::{Frame, RequestFramer};
use crate::resp::scanner::elements;

/// Hands over what is there, and puts back what is to be sent again. Says whether anything was done.
pub fn finish(cx: &Context) -> bool {
    let over = cx.gathers.take_over();
    let any = !over.is_empty();
    over.into_iter().for_each(|gather| one(cx, gather));
    any
}

fn one(cx: &Context, mut gather: Gather) {
    let back = gather.back();
    if gather.queue.parts_failed() {
        // More came than is held, or what was to bring it is gone. What still comes is thrown away.
        gather.queue.close();
        return cx.slot(gather.slot).error(&errors::too_large(cx.process.settings.output_limit.get()));
    }
    if !back.is_empty() {
        // What is by the way of the cluster's changing first: that of which it is not known how long it takes.
        let takes_long = |(_, refusal): &&(usize, Refusal)| {
            !matches!(refusal.said, Some(Redirection::Moved { .. } | Redirection::Ask { .. }))
        };
        let refusal = back.iter().find(takes_long).or(back.first()).map(|(_, refusal)| refusal.clone());
        let parts = back.iter().map(|(part, _)| &gather.parts[*part].request);
        let rest = split::joined(parts, matches!(gather.plan, Plan::Combine { by_keys: false, .. }));
        if let Some(refusal) = refusal
            && cx.queue.put_back_rest(gather.slot, rest, refusal).is_ok()
        {
            gather.is_back = true;
            return cx.gathers.add(gather);
        }
        parts::refuse(&gather);
    }
    let Gather { slot, queue, parts, plan, own, .. } = gather;
    let to = cx.slot(slot);
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
