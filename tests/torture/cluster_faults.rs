//! What happens to a cluster: what an operator does to it, and what goes wrong.

use std::sync::MutexGuard;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nearside::resp::key_slot;

use super::cluster::{OFTEN_ABSENT, Stage};
use super::history::{By, NEVER, Version};
use super::judging::MAX_STALENESS;
use super::model::{Allowed, Op, op};
use super::random::Random;
use super::world::{Counter, Dialled, Key, To, World};
use crate::support::cluster::{Cluster, Failover, Reset, in_time};

fn nap(stage: &mut Stage, from: u64, to: u64) {
    std::thread::sleep(Duration::from_millis(from + stage.random.below(to - from)));
}

pub fn calm(stage: &mut Stage) {
    nap(stage, 100, 400);
}

/// The hash slot of some key that the clients use.
fn hot_slot(stage: &mut Stage) -> u16 {
    let world = stage.world.clone();
    key_slot(stage.random.pick(&world.keys).name.as_bytes())
}

fn owner(cluster: &Cluster, slot: u16) -> usize {
    let mut owner = None;
    in_time("somebody has the slot", || {
        owner = cluster.owner_of_slot(slot).map(|node| node.place);
        owner.is_some()
    });
    owner.expect("just seen")
}

fn some_master(stage: &mut Stage) -> usize {
    let places: Vec<_> = stage.cluster.masters().iter().map(|node| node.place).collect();
    *stage.random.pick(&places)
}

fn another_master(stage: &mut Stage, than: usize) -> usize {
    let masters = stage.cluster.masters();
    let places: Vec<_> = masters.iter().map(|node| node.place).filter(|place| *place != than).collect();
    *stage.random.pick(&places)
}

/// A hot slot moves with its keys, one step after another, while they are written.
pub fn reshard(stage: &mut Stage) {
    let slot = hot_slot(stage);
    let from = owner(&stage.cluster, slot);
    let to = another_master(stage, from);
    stage.cluster.begin_move(slot, from, to);
    nap(stage, 1, 150);
    while stage.cluster.move_keys(slot, from, to, 1) > 0 {
        nap(stage, 0, 20);
    }
    nap(stage, 0, 100);
    stage.cluster.end_move(slot, from, to);
    nap(stage, 50, 250);
}

/// A hot slot moves, and what it holds is changed by one who is not heard of: before the new owner has it, or then.
pub fn reshard_quietly(stage: &mut Stage) {
    let slot = hot_slot(stage);
    let from = owner(&stage.cluster, slot);
    let to = another_master(stage, from);
    let world = stage.world.clone();
    let quiet = Quiet::begin(&world, |of| of == slot, 1);
    let before = stage.random.one_in(2);
    if stage.random.one_in(2) {
        quiet.remove();
    }
    nap(stage, 60, 200);
    stage.cluster.begin_move(slot, from, to);
    nap(stage, 1, 100);
    while stage.cluster.move_keys(slot, from, to, 10) > 0 {}
    if before {
        quiet.change(&mut stage.random);
        nap(stage, 0, 500);
    }
    stage.cluster.end_move(slot, from, to);
    if !before {
        quiet.change(&mut stage.random);
    }
    quiet.end();
}

/// Keys that nobody writes for a while, so that what is cached of them stays until it is dropped for a reason. Then they are
/// changed past the sidecars, or through one where the others hear of nothing else.
struct Quiet<'w> {
    world: &'w World,
    keys: Vec<(&'w Key, MutexGuard<'w, ()>)>,
}

impl<'w> Quiet<'w> {
    /// So many of the keys in these slots.
    fn begin(world: &'w World, owns: impl Fn(u16) -> bool, most: usize) -> Self {
        let keys = world.keys.iter().filter(|key| owns(key_slot(key.name.as_bytes())));
        Self::of(world, keys.map(|key| (key, key.gate.lock().unwrap())).take(most).collect())
    }

    fn of(world: &'w World, keys: Vec<(&'w Key, MutexGuard<'w, ()>)>) -> Self {
        Self { world, keys }
    }

    fn remove(&self) {
        for (key, _) in &self.keys {
            let command = ["DEL".to_owned(), key.name.clone()].to_vec();
            self.write(key, Op { commands: vec![command], content: None, expires: None });
        }
    }

    fn change(&self, random: &mut Random) {
        let allowed = Allowed { relative: false, expiry: false, removals: 5, ..OFTEN_ABSENT };
        for (key, _) in &self.keys {
            let most = key.log.lock().unwrap().iter().filter_map(|version| version.content).max();
            // The writers' numbers are even.
            let n = most.unwrap_or(0) + 1;
            // Several commands, or keys, may not be served while the slot moves.
            let mut ops = (0..20).map(|_| op(key.kind, &key.name, n, None, allowed, random));
            if let Some(op) = ops.find(|op| op.commands.len() == 1).filter(|_| n % 2 == 1) {
                self.write(key, op);
            }
        }
    }

    fn write(&self, key: &Key, op: Op) {
        let (to, by) = match self.world.foreign {
            // Of what is not announced nobody would hear.
            0 => (To::Sidecar(0, 0), By::Sidecar(0)),
            _ => (To::Server(0), By::Foreign),
        };
        let invoke = self.world.now();
        let replies = Dialled::new(self.world).send(to, &op.commands);
        let is_done = replies.is_some_and(|replies| replies.iter().all(|reply| reply[0] != b'-'));
        let complete = if is_done { self.world.now() } else { NEVER };
        key.log.lock().unwrap().push(Version { content: op.content, invoke, complete, by });
    }

    /// Waits until nobody may serve what was before.
    fn end(self) {
        std::thread::sleep(MAX_STALENESS + Duration::from_millis(200));
    }
}

/// All hot slots of a master move as fast as they can, and come back.
pub fn reshard_many(stage: &mut Stage) {
    let from = some_master(stage);
    let to = another_master(stage, from);
    for slot in hot_slots_of(stage, from) {
        stage.cluster.migrate(slot, from, to);
        stage.cluster.migrate(slot, to, from);
    }
    nap(stage, 50, 250);
}

/// A hot slot moves at once.
pub fn move_at_once(stage: &mut Stage) {
    let slot = hot_slot(stage);
    let from = owner(&stage.cluster, slot);
    let to = another_master(stage, from);
    stage.cluster.migrate_atomically(slot, from, to);
    nap(stage, 50, 250);
}

fn hot_slots_of(stage: &Stage, node: usize) -> Vec<u16> {
    let me = stage.cluster.node(node).itself().expect("it answers");
    let slots = stage.world.keys.iter().map(|key| key_slot(key.name.as_bytes()));
    let mut slots: Vec<_> = slots.filter(|slot| me.owns(*slot)).collect();
    slots.dedup();
    slots
}

/// Keys and counters whose content is Redis' own doing for a while.
struct Affected<'w> {
    world: &'w World,
    keys: Vec<&'w Key>,
    counters: Vec<&'w Counter>,
    since: u64,
}

/// What is in these slots. Nobody begins to write it until [`Affected::settle`]; what is under way goes on.
fn affect(world: &World, owns: impl Fn(u16) -> bool) -> Affected<'_> {
    let is_affected = |name: &str| owns(key_slot(name.as_bytes()));
    let keys: Vec<_> = world.keys.iter().filter(|key| is_affected(&key.name)).collect();
    let counters = world.counters.iter().filter(|counter| is_affected(&counter.name)).collect();
    keys.iter().for_each(|key| key.lost.store(true, Relaxed));
    Affected { world, keys, counters, since: world.now() }
}

impl<'w> Affected<'w> {
    /// Waits until nothing is under way.
    fn hold(&self) -> Vec<MutexGuard<'w, ()>> {
        self.keys.iter().map(|key| key.gate.lock().unwrap()).collect()
    }

    /// From now on the keys hold what the cluster says; some are changed past the sidecars, and then all may be written again.
    fn settle(self, cluster: &Cluster, held: Vec<MutexGuard<'w, ()>>, random: &mut Random) {
        for key in &self.keys {
            let content = content(cluster, self.world, key);
            key.overturn(self.since, self.world.now(), content);
        }
        let keys = self.keys.iter().copied().zip(held).collect();
        let quiet = Quiet::of(self.world, keys);
        if random.one_in(2) {
            quiet.change(random);
        }
        quiet.end();
        self.release();
    }

    /// They hold what they held before, and may be written again.
    fn release(self) {
        self.counters.iter().for_each(|counter| counter.overturn());
        self.keys.iter().for_each(|key| key.lost.store(false, Relaxed));
    }
}

/// What a key holds, by the word of its owner.
fn content(cluster: &Cluster, world: &World, key: &Key) -> Option<u64> {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let node = cluster.node(owner(cluster, key_slot(key.name.as_bytes())));
        if let Some(content) = world.held(&mut node.connect(), key) {
            return content;
        }
        assert!(Instant::now() < until, "{} holds what was never written", key.name);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Another master takes a hot slot; the keys do not come with it, and the old owner drops them.
pub fn take_slot(stage: &mut Stage) {
    let slot = hot_slot(stage);
    let from = owner(&stage.cluster, slot);
    let to = another_master(stage, from);
    let world = stage.world.clone();
    let affected = affect(&world, |of| of == slot);
    let held = affected.hold();
    // So that they are read, and cached.
    nap(stage, 60, 250);
    stage.cluster.setslot_without_migrate(slot, from, to);
    affected.settle(&stage.cluster, held, &mut stage.random);
    nap(stage, 200, 600);
}

/// A replica and its master change places in agreement.
pub fn fail_over(stage: &mut Stage) {
    let master = some_master(stage);
    let Some(replica) = stage.cluster.replicas_of(master).first().copied() else { return };
    let (world, me) = (stage.world.clone(), stage.cluster.node(master).itself().expect("it answers"));
    // The others are written all the time.
    let quiet = Quiet::begin(&world, |slot| me.owns(slot), 2);
    nap(stage, 50, 200);
    stage.cluster.failover(replica, Failover::Graceful);
    quiet.change(&mut stage.random);
    in_time("the old master is a replica", || !stage.cluster.node(master).is_master());
    quiet.end();
    stage.cluster.wait_ready();
    nap(stage, 50, 300);
}

/// While a hot slot is on its way, and what is told of that is the old owner's alone.
pub fn fail_over_in_move(stage: &mut Stage) {
    let slot = hot_slot(stage);
    let from = owner(&stage.cluster, slot);
    let to = another_master(stage, from);
    stage.cluster.begin_move(slot, from, to);
    nap(stage, 1, 100);
    while stage.cluster.move_keys(slot, from, to, 10) > 0 {}
    stage.cluster.end_move(slot, from, to);
    if let Some(replica) = stage.cluster.replicas_of(to).first() {
        stage.cluster.failover(*replica, Failover::Graceful);
    }
    stage.cluster.wait_ready();
    nap(stage, 100, 300);
}

/// The master is lost as `strike` does it, and its replica takes its place. Says who that is.
fn lose_master(stage: &mut Stage, master: usize, strike: fn(&Cluster, usize)) {
    let world = stage.world.clone();
    let cluster = &stage.cluster;
    let me = cluster.node(master).itself().expect("it answers");
    let affected = affect(&world, |slot| me.owns(slot));
    strike(cluster, master);
    let held = affected.hold();
    cluster.wait_promoted(cluster.node(master));
    affected.settle(cluster, held, &mut stage.random);
}

pub fn kill_master(stage: &mut Stage) {
    let master = some_master(stage);
    nap(stage, 100, 500);
    lose_master(stage, master, |cluster, master| cluster.node(master).kill());
    nap(stage, 200, 800);
    stage.cluster.node(master).restart();
    stage.cluster.wait_ready();
    nap(stage, 200, 600);
}

/// Clients still reach it.
pub fn isolate_master(stage: &mut Stage) {
    let master = some_master(stage);
    nap(stage, 100, 500);
    lose_master(stage, master, |cluster, master| {
        cluster.cut_bus(master);
        in_time("it serves nothing more", || !cluster.node(master).state_is_ok());
    });
    nap(stage, 200, 1000);
    stage.cluster.restore_bus(master);
    stage.cluster.wait_ready();
    nap(stage, 200, 600);
}

pub fn stop_master(stage: &mut Stage) {
    let master = some_master(stage);
    nap(stage, 100, 500);
    let slots = stage.cluster.node(master).itself().expect("it answers");
    lose_master(stage, master, |cluster, master| cluster.node(master).pause());
    nap(stage, 200, 1000);
    // For a moment it takes itself for the master, and forgets what it accepts.
    let world = stage.world.clone();
    let affected = affect(&world, |slot| slots.owns(slot));
    let held = affected.hold();
    stage.cluster.node(master).resume();
    in_time("it is a replica", || !stage.cluster.node(master).is_master());
    drop(held);
    affected.release();
    stage.cluster.wait_ready();
    nap(stage, 200, 600);
}

/// All nodes are killed, and come back without data.
pub fn restart_all(stage: &mut Stage) {
    let world = stage.world.clone();
    let affected = affect(&world, |_| true);
    let all: Vec<_> = stage.cluster.up().map(|node| node.place).collect();
    all.iter().for_each(|place| stage.cluster.node(*place).kill());
    let held = affected.hold();
    nap(stage, 1, 300);
    all.iter().for_each(|place| stage.cluster.node(*place).restart());
    stage.cluster.wait_ready();
    affected.settle(&stage.cluster, held, &mut stage.random);
    nap(stage, 500, 1000);
}

/// A node joins, gets hot slots, gives them back, and leaves.
pub fn add_and_remove(stage: &mut Stage) {
    let place = match stage.spare.take() {
        Some(place) => {
            stage.cluster.rejoin(place);
            place
        }
        None => stage.cluster.add_node(),
    };
    nap(stage, 50, 200);
    let (world, mut moved) = (stage.world.clone(), Vec::new());
    for _ in 0..4 {
        let slot = hot_slot(stage);
        let from = owner(&stage.cluster, slot);
        if from != place {
            let quiet = Quiet::begin(&world, |of| of == slot, 1);
            stage.cluster.migrate(slot, from, place);
            moved.push((slot, from));
            quiet.change(&mut stage.random);
            quiet.end();
        }
        nap(stage, 1, 50);
    }
    nap(stage, 100, 400);
    for (slot, from) in moved {
        stage.cluster.migrate(slot, place, from);
        nap(stage, 1, 50);
    }
    nap(stage, 50, 200);
    stage.cluster.remove_node(place);
    stage.cluster.wait_ready();
    stage.spare = Some(place);
    nap(stage, 100, 400);
}

/// A master forgets all, and goes on running; after a while its replica is told to take its place.
pub fn reset_master(stage: &mut Stage) {
    let master = some_master(stage);
    let Some(replica) = stage.cluster.replicas_of(master).first().copied() else { return };
    let world = stage.world.clone();
    let (me, old) = {
        let node = stage.cluster.node(master);
        (node.itself().expect("it answers"), node.id())
    };
    let how = if stage.random.one_in(2) { Reset::Hard } else { Reset::Soft };
    let affected = affect(&world, |slot| me.owns(slot));
    let held = affected.hold();
    stage.cluster.reset_node(master, how);
    nap(stage, 50, 800);
    stage.cluster.failover(replica, Failover::Force);
    affected.settle(&stage.cluster, held, &mut stage.random);
    nap(stage, 100, 500);
    if how == Reset::Hard {
        stage.cluster.forget(&old);
    }
    stage.cluster.rejoin(master);
    stage.cluster.replicate(master, replica);
    nap(stage, 200, 600);
}
