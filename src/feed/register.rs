//! Registering keys with the upstream: it tells the feed once of the next change of each.
//!
//! Invariants:
//! - A registration is confirmed when the upstream has answered `EXISTS`, and all that it had told before is applied: answers
//!   and reports come on one connection, in order. So whoever took his lease before he asked for the registration, and reads
//!   behind the confirmation, misses no change (see [`Lease::is_registered`](crate::cache::Lease::is_registered)).
//! - `EXISTS` reads nothing but that the key is there or not, and registers it either way (seen on Redis 7.0 and 8.2, Valkey
//!   9.1; `trackingRememberKeys` remembers all keys of a command that only reads).
//! - One question is under way at a time: what is asked for meanwhile goes with the next, so that under load one command
//!   registers many keys.
//! - In front of a cluster one command registers keys of one hash slot.
//! - What cannot be registered is let go, and counted.

use std::collections::HashMap;
use std::time::Instant;

use bytes::BytesMut;
use tracing::{info, warn};

use super::client::{Awaited, FeedClient};
use super::hooks::Hooks;
use crate::cache::Waiter;
use crate::process::{Registration, Reports};
use crate::resp::scanner::Kind;
use crate::resp::{encode, key_slot};
use crate::upstream::{Link, Said};

/// Keys of one command: what the upstream is kept at by that is short.
const BATCH: usize = 256;

/// Asks for all keys that wait.
pub(super) fn register<W: Waiter, H: Hooks>(link: &Link<FeedClient<W, H>>) {
    let client = link.client();
    let hooks = &client.feed.hooks;
    if client.registering.get() > 0 {
        return;
    }
    let waiting = hooks.registrar().take();
    if !client.armed.get() || hooks.reports() != Reports::Registered || !link.is_up() {
        // Nobody waits: the coverage under which they were to be read has ended.
        return drop(waiting);
    }
    client.alone.take().into_iter().for_each(|one| send(link, vec![one]));
    if hooks.is_of_cluster() {
        // There, the keys of one command must be of one hash slot.
        let mut slots: HashMap<u16, Vec<Registration>> = HashMap::new();
        for (slot, part) in waiting.into_iter().flat_map(|registration| registration.divide(key_slot)) {
            slots.entry(slot).or_default().push(part);
        }
        return slots.into_values().for_each(|waiting| send_all(link, waiting));
    }
    send_all(link, waiting);
}

fn send_all<W: Waiter, H: Hooks>(link: &Link<FeedClient<W, H>>, waiting: Vec<Registration>) {
    let mut batch = Vec::new();
    let mut keys = 0;
    for registration in waiting {
        keys += registration.leases.len();
        batch.push(registration);
        if keys >= BATCH {
            send(link, std::mem::take(&mut batch));
            keys = 0;
        }
    }
    send(link, batch);
}

fn send<W: Waiter, H: Hooks>(link: &Link<FeedClient<W, H>>, batch: Vec<Registration>) {
    if batch.is_empty() {
        return;
    }
    let client = link.client();
    let words: Vec<&[u8]> =
        std::iter::once(&b"EXISTS"[..]).chain(batch.iter().flat_map(Registration::keys)).collect();
    client.feed.hooks.metrics().registrations.add(words.len() as u64 - 1);
    let mut command = BytesMut::new();
    encode::command(&mut command, &words);
    if link.send(|out| out.append(command.freeze()), Awaited::Registered(batch)).is_ok() {
        client.registering.set(client.registering.get() + 1);
    }
}

impl<W: Waiter, H: Hooks> FeedClient<W, H> {
    /// The answer to `EXISTS` of these keys.
    pub(super) fn registered(&self, batch: Vec<Registration>, frame: &[u8], kind: Kind) {
        let (metrics, registrar) = (self.feed.hooks.metrics(), self.feed.hooks.registrar());
        self.registering.set(self.registering.get().saturating_sub(1));
        if self.registering.get() == 0 {
            registrar.wake();
        }
        if kind != Kind::Error {
            return batch.into_iter().for_each(Registration::confirm);
        }
        if frame.starts_with(b"-MOVED ") || frame.starts_with(b"-ASK ") {
            // They are another node's, or will be: let go, they are read there.
            return self.feed.hooks.slots_doubted();
        }
        let said = String::from_utf8_lossy(frame);
        let reply = said.trim_end();
        if Said::of(kind, frame) == Said::NotNow {
            return self.tell_put_off("EXISTS", frame);
        }
        let lower = reply.to_ascii_lowercase();
        if lower.contains("'exists' command") || lower.contains("unknown command") {
            info!(
                reply,
                "the upstream does not allow EXISTS: no key can be registered, and the feed connects anew"
            );
            self.feed.unregistrable.set(Some(Instant::now()));
            self.ended.notify_one();
            return;
        }
        // Of several keys it does not say which.
        let alone: Vec<_> = batch.into_iter().flat_map(Registration::split).collect();
        if alone.len() > 1 {
            self.alone.borrow_mut().extend(alone);
            return;
        }
        metrics.registrations_refused.inc();
        registrar.refuse(alone.iter().flat_map(Registration::keys));
        if let Some(untold) = metrics.registrations_refused_told.now() {
            warn!(
                reply,
                untold,
                "the upstream does not allow nearside to register a key: it is not cached; let its user say EXISTS of it (+exists, \
                 ~*)"
            );
        }
    }
}
