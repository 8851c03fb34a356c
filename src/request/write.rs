//! Writes going out, with their fence and their announcements.
//!
//! Invariants: the fence is taken before the write is sent. What is to be announced whatever the reply says follows
//! the write on the same connection in the same packet; the rest is decided by the reply, and sent when it comes. A
//! session with a login of its own announces over nearside's own link, when its write is answered: it may be allowed
//! to write and not to publish. In front of a cluster all is decided by the reply, and what is to be refilled is read then.

use super::context::Context;
use super::raw::Raw;
use super::refill;
use crate::cache::NO_LINK;
use crate::command::{Say, Tells};
use crate::io::Outgoing;
use crate::pending::{self, Link, Pending, Write, WriteSet, write_announcement};
use crate::process::Process;
use crate::reply::ReplySlot;

/// Announces writes that are done, of which no reply has told.
pub fn announce_later(set: WriteSet, cx: &Context, db: u32) {
    let keys = set.sayings.into_iter().flat_map(|saying| saying.keys);
    cx.outbound.say(NO_LINK, db, keys.map(|(key, _)| (key, Say::Look)).collect());
}

/// Takes the fence and sends the write with its announcements; the reply goes to `to`.
pub fn send(mut set: WriteSet, cx: &Context, link: &Link, to: ReplySlot, raw: Raw<'_>) {
    let (process, ident, now) = (&*cx.process, &cx.key.ident, cx.now);
    let handler = link.client();
    let (number, own) = (handler.id, ident.user.is_none());
    let asks = cx.again.as_ref().is_some_and(|again| again.asks);
    let refills = if asks { Vec::new() } else { refill::wanted(cx, link, &set) };
    let (fence, popped) = set.hold(process, now);
    // A node of a cluster may refuse any write, which then is sent again: nothing is said of it before that is known.
    let clustered = !cx.topology.is_single();
    if set.certain > 0 && (!own || clustered || handler.careful.get()) {
        set.saying(process, Tells::There);
    }
    // The read behind it is deaf to what is said before it.
    let look = !clustered && !refills.is_empty() && !set.sayings.is_empty() && handler.may_look();
    if look {
        look_behind(&mut set, process);
    }
    let (behind, say) = (set.certain, if look { Say::Look } else { Say::Update });
    let mut echoed = Vec::new();
    if behind > 0 {
        echoed = std::mem::take(&mut set.keys);
        echoed.retain(|key| process.namespaces.find(key).is_some());
        echoed.iter().for_each(|key| process.cache.expect_echo(key, number));
    }
    process.metrics.announcements.add(behind as u64);
    let write = |out: &mut Outgoing| {
        raw.write(out);
        if behind > 0 {
            out.copy(&set.publish);
        }
    };
    // What is read behind it would be deaf to what is said only then, too.
    let (leases, refills) = if clustered { (Vec::new(), refills) } else { refill::lease(cx, link, refills) };
    let pending = Pending::Write(Box::new(Write {
        fence,
        popped,
        barrier: set.barrier,
        announced: behind,
        say: if behind > 0 { say } else { Say::Nothing },
        echoed,
        sayings: set.sayings,
        via: if own { number } else { NO_LINK },
        db: set.db.unwrap_or(ident.db),
        leaves: set.leaves,
        refills,
        ..Write::new(Some(to))
    }));
    if pending::send(link, now, write, pending) {
        refill::send(cx, link, leases);
    }
}

/// Lets the upstream look behind the write whether its keys are there.
fn look_behind(set: &mut WriteSet, process: &Process) {
    set.sayings.clear();
    set.publish.clear();
    set.keys.sort_unstable();
    set.keys.dedup();
    let publish = &mut set.publish;
    set.certain = set.keys.iter().filter(|key| write_announcement(publish, process, key, Say::Look)).count();
}
