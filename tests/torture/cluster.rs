//! The same clients in front of a cluster of three masters and three replicas: through sidecars, and past them with a client
//! that follows redirects.
//!
//! What Redis itself may lose is held against nobody, and nothing else is forgiven. Replication is asynchronous, so a master
//! that is killed, stopped or cut off takes acknowledged writes with it: from before that until its heir is known, the keys of
//! its slots are not written, and then they hold what the heir says. Where slots move with their keys, or a failover is
//! graceful, nothing may be lost, and no request for a single key may be answered by an error.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nearside::config::{Config, OnUpdate, Tracking};

use super::clients;
use super::cluster_faults::*;
use super::judging::{MAX_STALENESS, Report, Run, becomes_ready, conclude};
use super::model::Allowed;
use super::random::Random;
use super::scenario::ALL;
use super::toy::{self, Behind, Flaw};
use super::world::{MustServe, Setup, USERS, World};
use crate::support::cluster::Cluster;
use crate::support::cluster::changes::atomic_migration;
use crate::support::{Nearside, Redis};

const MASTERS: usize = 3;
const REPLICAS: usize = 3;
const SIDECARS: usize = 2;
const WRITERS: usize = 4;
const READERS: usize = 2;

/// The running pieces of one scenario.
pub struct Stage {
    pub world: Arc<World>,
    pub cluster: Cluster,
    pub random: Random,
    /// A node that has left.
    pub spare: Option<usize>,
}

/// Something that happens to the cluster, and is over when it returns.
type Fault = fn(&mut Stage);

#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    faults: &'static [Fault],
    change: fn(&mut Config),
    allowed: Allowed,
    foreign: u64,
    namespaces_only: bool,
    must_serve: MustServe,
    pace: u64,
}

/// Absent keys are as hot as others. While slots move a script is no unit, and one that uses what it does not declare may make
/// a second copy of it.
pub const OFTEN_ABSENT: Allowed =
    Allowed { keyless: false, undeclared: 0, remakes: false, removals: 3, ..ALL };

/// Where no slot moves.
const SCRIPTED: Allowed = Allowed { keyless: false, ..ALL };

/// Where what a key holds is looked up, it must not expire meanwhile.
const UNEXPIRED: Allowed = Allowed { expiry: false, ..OFTEN_ABSENT };

const fn scenario(name: &'static str, faults: &'static [Fault]) -> Scenario {
    Scenario {
        name,
        faults,
        change: |_| (),
        allowed: UNEXPIRED,
        foreign: 33,
        namespaces_only: false,
        must_serve: MustServe::Nothing,
        pace: 12,
    }
}

/// Where nothing is lost, and no single key is without a node that serves it.
const fn lossless(name: &'static str, faults: &'static [Fault]) -> Scenario {
    Scenario { allowed: OFTEN_ABSENT, must_serve: MustServe::SingleKeys, ..scenario(name, faults) }
}

impl Scenario {
    /// How long a request may take: longer than a graceful failover holds writes up where there must be no errors, else shorter
    /// than a promotion takes, so that what was under way when a master was lost is not executed by its heir.
    fn patience(&self) -> Duration {
        if self.must_serve != MustServe::Nothing { Duration::from_secs(6) } else { Duration::from_secs(1) }
    }
}

const MOVES: &[Fault] = &[reshard, reshard_quietly, reshard_many, fail_over];

const SCENARIOS: &[Scenario] = &[
    Scenario { must_serve: MustServe::Everything, ..scenario("calm", &[calm]) },
    lossless("resharding", &[reshard, reshard_quietly, reshard_many]),
    Scenario { pace: 100, ..lossless("resharding, few writes", &[reshard, reshard_quietly]) },
    scenario("SETSLOT without MIGRATE", &[take_slot]),
    Scenario { pace: 100, ..scenario("SETSLOT without MIGRATE, few writes", &[take_slot]) },
    Scenario { allowed: SCRIPTED, ..lossless("graceful failover", &[fail_over]) },
    lossless("failover while slots move", &[fail_over_in_move, reshard]),
    scenario("killed master, and back", &[kill_master]),
    scenario("isolated master", &[isolate_master]),
    scenario("stopped master", &[stop_master]),
    scenario("restarted empty", &[restart_all]),
    lossless("node added and removed", &[add_and_remove]),
    scenario("CLUSTER RESET", &[reset_master]),
    Scenario { change: |config| config.workers = 2, ..lossless("two workers", MOVES) },
    Scenario {
        change: |config| {
            config.tracking = Tracking::Off;
            config.namespaces.iter_mut().for_each(|namespace| namespace.tracking = Tracking::Off);
        },
        foreign: 0,
        namespaces_only: true,
        ..lossless("channels only", MOVES)
    },
    Scenario {
        change: |config| {
            config.tracking = Tracking::Prefix;
            config.namespaces.iter_mut().for_each(|namespace| namespace.tracking = Tracking::Prefix);
        },
        ..lossless("tracking by prefix", MOVES)
    },
    Scenario {
        change: |config| {
            config.refill_on_write = true;
            config.namespaces.iter_mut().for_each(|namespace| {
                namespace.refill_on_write = true;
                namespace.on_update = OnUpdate::Refresh;
            });
        },
        ..lossless("refill and refresh", MOVES)
    },
    Scenario {
        change: |config| config.workers = 2,
        ..scenario(
            "mix",
            &[
                calm,
                reshard,
                reshard_quietly,
                reshard_many,
                take_slot,
                fail_over,
                fail_over_in_move,
                add_and_remove,
                kill_master,
                isolate_master,
                stop_master,
                restart_all,
                reset_master,
            ],
        )
    },
];

/// For servers that can.
const AT_ONCE: Scenario = lossless("atomic slot migration", &[move_at_once]);

/// All that this server can play; says what is left out.
pub fn scenarios() -> Vec<Scenario> {
    let mut all = SCENARIOS.to_vec();
    match atomic_migration(&mut Redis::start().connect()) {
        Some(_) => all.insert(all.len() - 1, AT_ONCE),
        None => println!("left out: {}, which takes a Redis from 8.4, or a Valkey from 9.0", AT_ONCE.name),
    }
    all
}

/// Runs one scenario for about so long.
pub fn play(scenario: &Scenario, lasting: Duration, seed: u64) -> Report {
    let begun = Instant::now();
    let cluster = start();
    let sidecar = || {
        Nearside::cluster_with(&cluster, |config| {
            config.max_staleness = MAX_STALENESS;
            config.namespaces.iter_mut().for_each(|namespace| namespace.max_staleness = MAX_STALENESS);
            config.upstream_timeout = Some(scenario.patience());
            (scenario.change)(config);
        })
    };
    let sidecars: Vec<_> = (0..SIDECARS).map(|_| sidecar()).collect();
    let addresses = sidecars.iter().map(|sidecar| sidecar.address).collect();
    let (stage, reads) = run(scenario, cluster, addresses, lasting, seed);
    let masters = stage.cluster.masters();
    let keys: Vec<_> = masters.iter().flat_map(|node| stage.cluster.keys_of(node, 1)).collect();
    let ready = |sidecar: &Nearside| becomes_ready(sidecar, &keys);
    conclude(
        Run { name: scenario.name, begun, world: &stage.world, sidecars: &sidecars, ready: &ready },
        reads,
    )
}

/// Runs the mix of all that may happen.
pub fn play_mix(lasting: Duration, seed: u64) -> Report {
    play(SCENARIOS.last().expect("the mix"), lasting, seed)
}

/// The same with toys in the place of sidecars.
pub fn play_toy(flaw: Flaw, name: &str, lasting: Duration, seed: u64) -> Report {
    let begun = Instant::now();
    let scenario =
        SCENARIOS.iter().chain([&AT_ONCE]).find(|scenario| scenario.name == name).expect("a scenario");
    let cluster = start();
    let toys = (0..SIDECARS).map(|_| toy::start(behind(&cluster, scenario), flaw)).collect();
    let (stage, reads) = run(scenario, cluster, toys, lasting, seed);
    conclude(Run { name: scenario.name, begun, world: &stage.world, sidecars: &[], ready: &|_| true }, reads)
}

fn start() -> Cluster {
    // As settings, since a node that is started again must know them.
    let users = USERS.iter().flat_map(|user| ["--user"].iter().chain(&user[2..]).copied());
    Cluster::with(MASTERS, REPLICAS, &users.collect::<Vec<_>>())
}

fn behind(cluster: &Cluster, scenario: &Scenario) -> Behind {
    let seeds = cluster.nodes().iter().map(|node| node.address()).collect();
    Behind::Cluster(seeds, scenario.patience())
}

fn run(
    scenario: &Scenario,
    cluster: Cluster,
    sidecars: Vec<std::net::SocketAddr>,
    lasting: Duration,
    seed: u64,
) -> (Stage, Vec<(usize, super::history::Read)>) {
    let setup = Setup {
        writers: WRITERS,
        allowed: scenario.allowed,
        vanishes: false,
        foreign: scenario.foreign,
        namespaces_only: scenario.namespaces_only,
        pace: Duration::from_millis(scenario.pace),
        cluster: true,
        must_serve: scenario.must_serve,
    };
    let direct = toy::start(behind(&cluster, scenario), Flaw::None);
    let world = Arc::new(World::new(sidecars, direct, &setup));
    let mut stage = Stage { world: world.clone(), cluster, random: Random::new(seed), spare: None };
    let reads = clients::run(&world, WRITERS, READERS, seed, || {
        let until = Instant::now() + lasting;
        while Instant::now() < until {
            let fault = *stage.random.pick(scenario.faults);
            fault(&mut stage);
        }
    });
    stage.cluster.wait_ready();
    (stage, reads)
}
