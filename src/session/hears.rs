//! Subscriptions of a session in front of a cluster.
//!
//! Invariants:
//! - Channels and patterns are heard on one connection, to any node. Shard channels are heard at the node of their slot: one
//!   connection for each node. All that is heard goes to the client as it comes.
//! - Confirmations of shard channels count those on all connections.
//! - When a slot goes to another node, the session subscribes there, and its client sees nothing of that; or, if it cannot,
//!   sees that the subscription has ended. What is published meanwhile is not heard, as by any client of a cluster.
//! - A subscription whose connection is lost ends the session.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::command::{Command, again};
use super::dedicated::Dedicated;
use super::errand::{Errand, Tries};
use super::moving::Moving;
use super::roam::{nobody, node_of_slot, wake_at};
use super::state::{Mode, Session};
use crate::command::Table;
use crate::pending::{Awaited, Held, Keeps, Link, Pending, send};
use crate::process::Node;
use crate::reply::{Refusal, ReplySlot};
use crate::request::{Context, Raw};
use crate::resp::{encode, key_slot};
use crate::router::LinkKey;

impl Dedicated {
    /// The connection for subscriptions at this node.
    fn hearing(&mut self, cx: &Context, node: &Arc<Node>) -> Link {
        if let Some(link) = self.hears.iter().find(|link| link.client().node.id == node.id && !link.is_down())
        {
            return link.clone();
        }
        let link =
            cx.outbound.router.dedicated(&LinkKey { node: node.clone(), ..cx.key.clone() }, cx.owner());
        self.is_here(cx);
        self.hears.push(link.clone());
        link
    }

    /// The one on which channels and patterns are heard.
    fn hearing_channels(&mut self, cx: &Context) -> Link {
        let all = std::iter::once(&self.link).chain(&self.hears);
        let known = all.into_iter().find(|link| link.client().pushes.has_channels()).cloned();
        known.unwrap_or_else(|| {
            let any = self.hears.first().map(|link| link.client().node.clone());
            let node = any.unwrap_or_else(|| match cx.key.node.is_up() {
                true => cx.key.node.clone(),
                false => cx.process.first_node(),
            });
            self.hearing(cx, &node)
        })
    }

    fn shard_channels(&self) -> i64 {
        let all = std::iter::once(&self.link).chain(&self.hears);
        all.map(|link| link.client().pushes.shard_channels()).sum()
    }

    /// Says on this connection what changes its subscriptions.
    fn say_there(&self, cx: &Context, link: &Link, command: Command<'_>, (to, raw): (ReplySlot, Raw<'_>)) {
        let pushes = &link.client().pushes;
        pushes.listen();
        pushes.elsewhere.set(self.shard_channels() - pushes.shard_channels());
        link.client().astray.keeps(Keeps::One);
        let Command { row, request, .. } = command;
        let awaited = Awaited::of(row.map_or("", |row| &row.name), request.len() - 1);
        let _ = send(link, cx.now, |out| raw.write(out), Pending::Subscribe(to, awaited));
    }

    /// Gives up connections without subscriptions.
    pub(super) fn leave_unheard(&mut self) {
        self.hears.retain(|link| link.in_flight() > 0 || link.client().pushes.is_subscribed());
    }

    /// Whether shard channels are about to be heard elsewhere.
    pub(super) fn is_moving(&self) -> bool {
        !self.moving.is_empty()
    }
}

impl Session {
    /// `(P|S)SUBSCRIBE`, `(P|S)UNSUBSCRIBE`.
    pub(super) fn subscribe(&mut self, command: Command<'_>, raw: Raw<'_>) {
        let Command { row, request, .. } = command;
        let name = row.map_or("", |row| &*row.name);
        let is_sharded = matches!(name, "ssubscribe" | "sunsubscribe");
        let slot = request.get(1).filter(|_| is_sharded).map(key_slot);
        let node = slot.map(|slot| self.node_of(slot));
        let Mode::Dedicated(dedicated) = &mut self.mode else { return };
        let cx = &self.cx;
        dedicated.leave_unheard();
        let mut errand = Errand::new(raw.to_bytes(), slot, false);
        errand.is_hearing = true;
        dedicated.errand = Some(Box::new(errand));
        match node {
            Some(node) => {
                let link = dedicated.hearing(cx, &node);
                dedicated.say_there(cx, &link, command, (cx.open(), raw));
            }
            // From all of them, one after another.
            None if is_sharded => {
                let all = std::iter::once(&dedicated.link).chain(&dedicated.hears);
                let with = all.filter(|link| link.client().pushes.shard_channels() > 0);
                let mut links: Vec<_> = with.cloned().collect();
                if links.is_empty() {
                    links.push(dedicated.hearing_channels(cx));
                }
                let mut left = dedicated.shard_channels();
                for link in links {
                    let pushes = &link.client().pushes;
                    left -= pushes.shard_channels();
                    let to = (cx.open(), Raw::Copy(request.raw()));
                    dedicated.say_there(cx, &link, command, to);
                    pushes.elsewhere.set(left);
                }
            }
            None => {
                let link = dedicated.hearing_channels(cx);
                dedicated.say_there(cx, &link, command, (cx.open(), raw));
            }
        }
    }

    /// Goes on with subscriptions whose node has refused them, or has lost them. Says whether anything was done.
    pub(super) fn poll_hearing(&mut self, now: Instant, table: &Table) -> bool {
        let Mode::Dedicated(dedicated) = &mut self.mode else { return false };
        let is_errand = dedicated.errand.as_ref().is_some_and(|errand| errand.is_hearing);
        if dedicated.hears.is_empty() && !is_errand {
            return false;
        }
        let mut done = is_errand && self.poll_subscribing(now, table);
        let Mode::Dedicated(dedicated) = &mut self.mode else { return done };
        dedicated.note_moved();
        for mut moving in std::mem::take(&mut dedicated.moving) {
            match dedicated.follow(&self.cx, &mut moving, now) {
                true => done = true,
                false => dedicated.moving.push(moving),
            }
        }
        done
    }

    /// A subscription that the client has asked for.
    fn poll_subscribing(&mut self, now: Instant, table: &Table) -> bool {
        let Mode::Dedicated(dedicated) = &mut self.mode else { return false };
        let Some(errand) = &mut dedicated.errand else { return false };
        if let Some((mut held, _)) = errand.waiting.take_if(|(_, way)| way.not_before <= now) {
            errand.tries.send();
            let bytes = errand.request();
            let Some(to) = held.slots.pop() else { return true };
            let node = errand.slot.map(|slot| self.node_of(slot));
            let Mode::Dedicated(dedicated) = &mut self.mode else { return true };
            let cx = &self.cx;
            dedicated.leave_unheard();
            let link = match node {
                Some(node) => dedicated.hearing(cx, &node),
                None => dedicated.hearing_channels(cx),
            };
            again(&cx.process, table, &bytes.clone(), |command| {
                dedicated.say_there(cx, &link, command, (to, Raw::Own(bytes)));
            });
            return true;
        }
        let Some(held) = dedicated.hears.iter().find_map(refused) else { return false };
        self.was_refused(held);
        true
    }
}

/// What the node has refused, once all has come that was under way.
fn refused(link: &Link) -> Option<Held> {
    match link.in_flight() {
        0 => link.client().astray.take(),
        _ => None,
    }
}

impl Dedicated {
    /// Notes which shard channels are to be heard elsewhere.
    fn note_moved(&mut self) {
        let moved: Vec<_> = self.hears.iter().flat_map(|link| link.client().astray.take_moved()).collect();
        for channel in moved {
            let slot = key_slot(&channel);
            match self.moving.iter_mut().find(|moving| moving.slot == slot && moving.asked.is_none()) {
                Some(moving) => moving.channels.push(channel),
                None => self.moving.push(Moving {
                    slot,
                    channels: vec![channel],
                    tries: Tries::default(),
                    waiting: None,
                    asked: None,
                }),
            }
        }
    }

    /// Goes on with channels that are to be heard elsewhere. Says whether that is done, or has come to nothing.
    fn follow(&mut self, cx: &Context, moving: &mut Moving, now: Instant) -> bool {
        let Some((link, before)) = moving.asked.clone() else {
            if moving.waiting.as_ref().is_none_or(|way| way.not_before <= now) {
                self.ask_to_hear(cx, moving);
            }
            return false;
        };
        if link.in_flight() > 0 {
            return false;
        }
        let unsent = || Refusal { said: None, by: None, line: Bytes::new() };
        let lost = || Held { refusal: unsent(), was_sent: false, slots: Vec::new() };
        let held = refused(&link).or_else(|| (!link.is_up()).then(lost));
        let Some(held) = held else {
            let heard = link.client().pushes.shard_channels() - before;
            if heard >= moving.channels.len() as i64 {
                cx.process.metrics.shard_channels_moved.add(heard as u64);
                return true;
            }
            self.tell_ended(cx, &link, &moving.channels);
            return true;
        };
        moving.asked = None;
        moving.waiting = moving.tries.next(&cx.process, &held, false);
        match &moving.waiting {
            Some(way) => wake_at(&cx.queue, way.not_before),
            None => self.tell_ended(cx, &link, &moving.channels),
        }
        moving.waiting.is_none()
    }

    fn ask_to_hear(&mut self, cx: &Context, moving: &mut Moving) {
        let link = self.hearing(cx, &node_of_slot(&cx.process, moving.slot));
        if link.in_flight() > 0 {
            // It is asked when that is answered.
            return;
        }
        (moving.waiting, moving.asked) = (None, Some((link.clone(), link.client().pushes.shard_channels())));
        moving.tries.send();
        link.client().astray.keeps(Keeps::One);
        link.client().pushes.listen();
        let command =
            std::iter::once(&b"SSUBSCRIBE"[..]).chain(moving.channels.iter().map(|channel| &**channel));
        let mut out = BytesMut::new();
        encode::command(&mut out, &command.collect::<Vec<_>>());
        let awaited = Awaited::of("ssubscribe", moving.channels.len());
        let pending = Pending::Subscribe(nobody(cx), awaited);
        let _ = send(&link, cx.now, |to| to.append(out.freeze()), pending);
    }

    /// The client is told that it does not hear these channels any more.
    fn tell_ended(&self, cx: &Context, link: &Link, channels: &[Bytes]) {
        cx.process.metrics.shard_channels_lost.add(channels.len() as u64);
        for channel in channels {
            cx.queue.push(link.client().pushes.ended(channel, self.shard_channels()));
        }
    }
}
