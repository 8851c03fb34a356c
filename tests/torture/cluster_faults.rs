//! What happens to a cluster: what an operator does to it, and what goes wrong.

use std::sync::MutexGuard;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nearside::resp::key_slot;

use super::cluster::Stage;
use super::world::{Counter, Key, World};
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

/// A hot slot moves with its keys, one step after another.
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

    /// From now on the keys hold what the cluster says, and may be written again.
    fn settle(self, cluster: &Cluster, held: Vec<MutexGuard<'w, ()>>) {
        for key in &self.keys {
            let content = content(cluster, self.world, key);
            key.overturn(self.since, self.world.now(), content);
        }
        self.release(held);
    }

    /// They hold what they held before, and may be written again.
    fn release(self, held: Vec<MutexGuard<'w, ()>>) {
        self.counters.iter().for_each(|counter| counter.overturn());
        self.keys.iter().for_each(|key| key.lost.store(false, Relaxed));
        drop(held);
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
    stage.cluster.setslot_without_migrate(slot, from, to);
    affected.settle(&stage.cluster, held);
    nap(stage, 200, 600);
}

/// A replica and its master change places in agreement.
pub fn fail_over(stage: &mut Stage) {
    let master = some_master(stage);
    let replicas = stage.cluster.replicas_of(master);
    if let Some(replica) = replicas.first() {
        stage.cluster.failover(*replica, Failover::Graceful);
        in_time("the old master is a replica", || !stage.cluster.node(master).is_master());
    }
    stage.cluster.wait_ready();
    nap(stage, 200, 600);
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
    affected.settle(cluster, held);
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
    affected.release(held);
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
    affected.settle(&stage.cluster, held);
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
    let mut moved = Vec::new();
    for _ in 0..4 {
        let slot = hot_slot(stage);
        let from = owner(&stage.cluster, slot);
        if from != place {
            stage.cluster.migrate(slot, from, place);
            moved.push((slot, from));
        }
        nap(stage, 20, 100);
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
    affected.settle(&stage.cluster, held);
    nap(stage, 100, 500);
    if how == Reset::Hard {
        stage.cluster.forget(&old);
    }
    stage.cluster.rejoin(master);
    stage.cluster.replicate(master, replica);
    nap(stage, 200, 600);
}
