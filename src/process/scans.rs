//! How far each `SCAN` over a cluster's nodes has come.
//!
//! Invariants: a scan ends only when for every hash slot it is proven that no key which was there throughout was passed over.
//! One node after the other is scanned, each from its own cursor 0 to 0: that is a leg. What a leg proves is told by looks:
//! what the node says that it owns, before the first page and behind each.
//! - A slot that the node had, not on the move, at each look, is done: its keys were there all the time, and a server's own
//!   `SCAN` gives all of them.
//! - One that was on the move, or left: each of its keys was given here or has gone over before its turn came. Whoever it went
//!   to is scanned after that, and then it is done, unless it has moved on from there.
//! - One that came, or came back, is not done by this leg. That a slot was away and came back between two looks shows by
//!   the node's configuration epoch, which grows as it takes a slot; then the leg proves nothing.
//!
//! The cursor that a client gets holds the number of the leg and the node's own cursor, so a page may be asked for again.
//! As many legs are known as scans are going on, up to a bound; a scan whose leg was forgotten begins anew, which gives keys
//! twice and none too few.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::node::Node;
use super::topology::Topology;
use crate::resp::{SLOTS, SlotSet};
use crate::upstream::NodeLine;

/// Legs that are known at a time; each has about 10 KB.
const MAX: NonZeroUsize = NonZeroUsize::new(2048).unwrap();

/// A cursor's lower bits are the leg's number, so those of a server with less than 2^31 buckets stay below 2^53.
const BITS: u32 = 22;

/// Beyond this a node's own cursor is kept with its leg: no cursor reaches 2^63.
const WIDE: u64 = 1 << (63 - BITS);

/// So many legs have one scan at most, besides one for each node: more, and slots move faster than they are scanned.
const LEGS: usize = 4096;

/// How often a slot is scanned anew because nobody knows the node that it is on its way to.
const UNKNOWN: usize = 64;

/// What a node says of itself, and of whose the slots are.
pub struct Look {
    owned: SlotSet,
    /// Slots on their way to another node, and its name.
    leaving: Vec<(u16, String)>,
    epoch: u64,
    owners: Vec<(u16, u16, String)>,
}

impl Look {
    /// From the reply to `CLUSTER NODES`. Where that is refused, from what is known anyhow.
    pub fn of(reply: &[u8], topology: &Topology, node: &Node) -> Self {
        let lines = NodeLine::all_of(reply).unwrap_or_default();
        let Some(me) = lines.iter().find(|line| line.is_myself) else {
            let is_its = |slot: &u16| topology.owner_of(*slot).is_some_and(|owner| owner.id == node.id);
            let owned = (0..SLOTS as u16).filter(is_its).collect();
            return Self { owned, leaving: Vec::new(), epoch: topology.epoch, owners: Vec::new() };
        };
        let owned = match me.is_master {
            true => me.slots.iter().flat_map(|(first, last)| *first..=*last).collect(),
            false => SlotSet::default(),
        };
        let owners = lines.iter().filter(|line| line.is_master);
        let owners =
            owners.flat_map(|line| line.slots.iter().map(|(a, b)| (*a, *b, line.id.clone()))).collect();
        Self { owned, leaving: me.leaving.clone(), epoch: me.config_epoch, owners }
    }

    /// Whether the node has other slots than the topology says.
    pub fn differs(&self, topology: &Topology, node: &Node) -> bool {
        let is_its = |slot: u16| topology.owner_of(slot).is_some_and(|owner| owner.id == node.id);
        (0..SLOTS as u16).any(|slot| is_its(slot) != self.owned.contains(slot))
    }

    fn target(&self, slot: u16) -> Option<&str> {
        self.leaving.iter().find(|(leaving, _)| *leaving == slot).map(|(_, to)| &**to)
    }

    fn owner(&self, slot: u16) -> Option<&str> {
        let owner = self.owners.iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        owner.map(|(_, _, id)| &**id)
    }

    /// The slots that the node has, and does not give away.
    fn kept(&self) -> SlotSet {
        let mut kept = self.owned.clone();
        self.leaving.iter().for_each(|(slot, _)| kept.remove(*slot));
        kept
    }
}

/// A slot whose keys were given by a leg, or have gone from one node to another by then.
#[derive(Clone)]
struct Gone {
    from: Option<Box<str>>,
    to: Box<str>,
}

/// One node's part of a scan.
#[derive(Clone)]
pub struct Leg {
    pub node: Arc<Node>,
    /// Slots that are done.
    done: SlotSet,
    /// Slots that were the node's at each look.
    kept: SlotSet,
    /// Slots that were its, and left, or are about to.
    going: SlotSet,
    /// Slots that have come here from where a leg has been.
    came: Vec<(u16, Gone)>,
    /// Likewise, to other nodes.
    gone: HashMap<u16, Gone>,
    had: SlotSet,
    epoch: u64,
    legs: usize,
    unknown: usize,
    /// The number of the leg before.
    before: Option<u32>,
    /// The node's own cursor, if it is too large for ours.
    wide: Option<u64>,
}

impl Leg {
    fn first(node: Arc<Node>) -> Self {
        Self {
            node,
            done: SlotSet::default(),
            kept: SlotSet::default(),
            going: SlotSet::default(),
            came: Vec::new(),
            gone: HashMap::new(),
            had: SlotSet::default(),
            epoch: 0,
            legs: 0,
            unknown: 0,
            before: None,
            wide: None,
        }
    }

    /// The look before the first page.
    pub fn begin(&mut self, look: &Look) {
        self.kept = look.kept();
        self.going = look.owned.without(&self.kept);
        self.note(look);
    }

    /// A look behind a page.
    pub fn go_on(&mut self, look: &Look) {
        if look.epoch != self.epoch && look.owned.without(&self.had).is_empty() {
            // What it took it had already: it was away in between.
            self.kept = SlotSet::default();
            self.going = SlotSet::default();
            self.came.clear();
        }
        let left = self.kept.without(&look.kept());
        self.kept = self.kept.without(&left);
        slots(&left).for_each(|slot| self.going.insert(slot));
        self.note(look);
    }

    fn note(&mut self, look: &Look) {
        self.had = look.owned.clone();
        self.epoch = look.epoch;
    }

    /// The node's own cursor has come to its end, and so was the last look.
    fn end(&mut self, look: &Look) {
        slots(&self.kept).for_each(|slot| self.done.insert(slot));
        let name = self.node.name.clone();
        let here = |owner: Option<&str>| owner.is_none() || owner == name.as_deref();
        for (slot, gone) in std::mem::take(&mut self.came) {
            let (to, owner) = (look.target(slot), look.owner(slot));
            let moved_on =
                to.or(owner.filter(|owner| !here(Some(owner)) && Some(*owner) != gone.from.as_deref()));
            match moved_on {
                Some(to) => drop(self.gone.insert(slot, Gone { from: name.clone(), to: to.into() })),
                None => self.done.insert(slot),
            }
        }
        for slot in slots(&self.going) {
            if let Some(to) = look.target(slot).or(look.owner(slot).filter(|owner| !here(Some(owner)))) {
                self.gone.insert(slot, Gone { from: name.clone(), to: to.into() });
            }
        }
        self.gone.retain(|slot, _| !self.done.contains(*slot));
    }

    /// The leg behind this one; `None` if all is done.
    fn next(&mut self, topology: &Topology) -> Option<Self> {
        let open = |leg: &Self| {
            let open = |slot: &u16| !leg.done.contains(*slot) && !leg.gone.contains_key(slot);
            (0..SLOTS as u16).filter(open).find_map(|slot| topology.owner_of(slot).cloned())
        };
        let node = loop {
            if let Some(node) = open(self) {
                break node;
            }
            let (slot, to) = self.gone.iter().next().map(|(slot, gone)| (*slot, gone.to.clone()))?;
            let known = topology.nodes().iter().find(|node| node.name.as_deref() == Some(&*to));
            if let Some(node) = known {
                break node.clone();
            }
            self.gone.remove(&slot);
            self.unknown += 1;
            if self.unknown > UNKNOWN {
                // Nobody is there whom its keys could have gone to.
                self.done.insert(slot);
            }
        };
        let is_here = |gone: &Gone| node.name.as_deref() == Some(&*gone.to);
        let (came, gone) = self.gone.drain().partition::<Vec<_>, _>(|(_, gone)| is_here(gone));
        Some(Self {
            done: self.done.clone(),
            came,
            gone: gone.into_iter().collect(),
            legs: self.legs + 1,
            unknown: self.unknown,
            ..Self::first(node)
        })
    }
}

fn slots(set: &SlotSet) -> impl Iterator<Item = u16> + '_ {
    (0..SLOTS as u16).filter(|slot| set.contains(*slot))
}

/// A page of a scan that is asked for.
pub struct Scanning {
    number: u32,
    pub leg: Arc<Mutex<Leg>>,
    /// The node's own cursor.
    pub cursor: u64,
    /// That of a scan whose leg was forgotten was taken for the first.
    pub is_anew: bool,
}

/// What a client is told behind a page.
pub enum Behind {
    Cursor(u64),
    /// Slots move all the time.
    GivenUp,
}

/// The legs of all scans.
pub struct Scans(Mutex<Known>);

struct Known {
    legs: LruCache<u32, Arc<Mutex<Leg>>>,
    /// The last number that was given.
    last: u32,
}

impl Default for Scans {
    fn default() -> Self {
        // Not those of the process before, nor of another beside.
        let last = RandomState::new().hash_one(0) as u32;
        Self(Mutex::new(Known { legs: LruCache::new(MAX), last }))
    }
}

impl Scans {
    fn add(&self, leg: Leg) -> (u32, Arc<Mutex<Leg>>) {
        let mut known = self.0.lock();
        let number = (known.last.wrapping_add(1) % (1 << BITS)).max(1);
        known.last = number;
        let leg = Arc::new(Mutex::new(leg));
        known.legs.push(number, leg.clone());
        (number, leg)
    }

    /// The page that this cursor of ours stands for. `None` if there is no node.
    pub fn page(&self, cursor: u64, topology: &Topology) -> Option<Scanning> {
        let number = (cursor % (1 << BITS)) as u32;
        let known = self.0.lock().legs.get(&number).cloned();
        let stands = |leg: &Arc<Mutex<Leg>>| topology.has(&leg.lock().node);
        if let Some(leg) = known.filter(|_| cursor != 0).filter(stands) {
            let (wide, before) = {
                let leg = leg.lock();
                (leg.wide, leg.before)
            };
            if let Some(before) = before {
                self.0.lock().legs.pop(&before);
            }
            return Some(Scanning { number, leg, cursor: wide.unwrap_or(cursor >> BITS), is_anew: false });
        }
        let node = (0..SLOTS as u16).find_map(|slot| topology.owner_of(slot)).or(topology.nodes().first())?;
        let (number, leg) = self.add(Leg::first(node.clone()));
        Some(Scanning { number, leg, cursor: 0, is_anew: cursor != 0 })
    }

    /// The page was had, with `own` as the node's own cursor behind it.
    pub fn behind(&self, scanning: &Scanning, own: u64, look: &Look, topology: &Topology) -> Behind {
        let leg = scanning.leg.lock();
        let cursor = |number: u32, own: u64| Behind::Cursor(own << BITS | u64::from(number));
        if own >= WIDE {
            let wide = Leg { wide: Some(own), before: None, ..leg.clone() };
            drop(leg);
            return cursor(self.add(wide).0, 0);
        }
        if own > 0 {
            drop(leg);
            return cursor(scanning.number, own);
        }
        // The page may be asked for again.
        let mut ended = leg.clone();
        drop(leg);
        ended.end(look);
        match ended.next(topology) {
            None => Behind::Cursor(0),
            Some(next) if next.legs > LEGS + topology.nodes().len() => Behind::GivenUp,
            Some(next) => cursor(self.add(Leg { before: Some(scanning.number), ..next }).0, 0),
        }
    }
}

#[cfg(test)]
mod tests;
