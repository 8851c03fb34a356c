//! What is done to the server and the connections while the clients are at work, and what came of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nearside::config::{Config, Namespace, OnUpdate, Tracking};

use super::clients;
use super::faults::*;
use super::history::Verdict;
use super::judging::{MAX_STALENESS, Report, Run, becomes_ready, conclude, judge};
use super::misuse::*;
use super::model::Allowed;
use super::random::Random;
use super::toy::{self, Behind, Flaw};
use super::world::{MustServe, Setup, USERS, World, call};
use crate::support::chaos::Chaos;
use crate::support::filter::{Filter, Rule, no_redirect, only_broadcast};
use crate::support::{Nearside, Redis};

const SIDECARS: usize = 3;
const WRITERS: usize = 4;
const READERS: usize = 2;

/// The running pieces of one scenario.
pub struct Stage {
    pub world: Arc<World>,
    pub redis: Redis,
    pub replica: Option<Redis>,
    pub chaos: Vec<Chaos>,
    pub random: Random,
}

/// Something that goes wrong and is over when it returns.
type Fault = fn(&mut Stage);

#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    faults: &'static [Fault],
    server: &'static [&'static str],
    change: fn(&mut Config),
    allowed: Allowed,
    vanishes: bool,
    foreign: u64,
    namespaces_only: bool,
    replica: bool,
    /// What the server is made to refuse.
    refuses: Option<Rule>,
    /// Between two writes of one writer, in milliseconds. When writes are rare, what was missed once stays.
    pace: u64,
}

pub const ALL: Allowed =
    Allowed { relative: true, expiry: true, undeclared: 12, keyless: true, remakes: true, removals: 12 };

const fn scenario(name: &'static str, faults: &'static [Fault]) -> Scenario {
    Scenario {
        name,
        faults,
        server: &[],
        change: |_| (),
        allowed: ALL,
        vanishes: false,
        foreign: 33,
        namespaces_only: false,
        replica: false,
        refuses: None,
        pace: 12,
    }
}

/// Without tracking nobody learns of what is not announced: no foreign writers, no expiry that only the
/// server sees, no undeclared keys, and no write that is cut off from its announcement.
const CHANNELS: Scenario = Scenario {
    change: |config| config.tracking = Tracking::Off,
    allowed: Allowed { undeclared: 0, ..ALL },
    foreign: 0,
    namespaces_only: true,
    ..scenario("channels only", &[calm, delay_feed, kill_feed, cut_feed, half_open_feed])
};

pub const SCENARIOS: &[Scenario] = &[
    scenario("calm", &[calm]),
    Scenario { pace: 150, ..scenario("calm, few writes", &[calm]) },
    scenario("slow network", &[delay, delay_feed, delay_data]),
    scenario("links cut", &[cut, cut, cut, cut, refuse]),
    scenario("half-open feed", &[half_open_feed]),
    scenario("half-open data link", &[half_open_data]),
    scenario("CLIENT KILL feed", &[kill_feed]),
    scenario("CLIENT KILL data link", &[kill_data]),
    scenario("stopped for 2 s", &[stop]),
    scenario("CLIENT PAUSE", &[pause]),
    scenario("FLUSHALL, FLUSHDB", &[flush]),
    Scenario { allowed: Allowed { expiry: false, ..ALL }, ..scenario("SWAPDB", &[swap]) },
    scenario("killed, restarted empty", &[restart]),
    scenario("output buffer of the feed", &[overflow]),
    Scenario {
        allowed: Allowed { expiry: false, ..ALL },
        replica: true,
        ..scenario("replica promoted", &[promote])
    },
    Scenario {
        allowed: Allowed { expiry: false, ..ALL },
        replica: true,
        ..scenario("replica promoted, feed left behind", &[promote_split])
    },
    Scenario {
        allowed: Allowed { relative: false, ..ALL },
        server: &["--maxmemory", "4mb", "--maxmemory-policy", "allkeys-random"],
        vanishes: true,
        ..scenario("eviction", &[fill_up])
    },
    Scenario { server: &["--tracking-table-max-keys", "5"], ..scenario("small tracking table", &[calm]) },
    Scenario {
        allowed: Allowed { undeclared: 2, ..ALL },
        change: |config| config.workers = 2,
        ..scenario("scripts with undeclared keys", &[calm, delay_feed, delay_data, cut, kill_feed])
    },
    Scenario {
        allowed: Allowed { expiry: false, ..ALL },
        server: &["--busy-reply-threshold", "20"],
        ..scenario("BUSY server", &[busy, busy_cut, swap])
    },
    scenario("maxclients", &[maxclients]),
    scenario("link killed under WATCH", &[kill_under_watch, kill_under_watch, kill_dedicated, cut]),
    scenario("HTTP on the port", &[http, http, calm]),
    CHANNELS,
    Scenario {
        change: |config| {
            config.on_update = OnUpdate::Refresh;
            config.namespaces.iter_mut().for_each(|namespace| namespace.on_update = OnUpdate::Refresh);
        },
        ..scenario("refresh on update", &[calm, delay_feed, cut])
    },
    Scenario {
        change: |config| {
            config.refill_on_write = true;
            config.namespaces.iter_mut().for_each(|namespace| namespace.refill_on_write = true);
        },
        ..scenario("refill on write", &[calm, delay_feed, delay_data, cut, kill_feed, kill_data])
    },
    Scenario {
        change: |config| {
            config.tracking = Tracking::Prefix;
            config.namespaces.iter_mut().for_each(|namespace| namespace.tracking = Tracking::Prefix);
        },
        ..scenario("tracking by prefix", &[calm, delay_feed, delay_data, cut, kill_feed, flush])
    },
    Scenario { refuses: Some(no_redirect), ..scenario("register: calm", &[calm]) },
    Scenario {
        refuses: Some(no_redirect),
        ..scenario("register: links", &[delay, delay_feed, delay_data, cut, half_open_feed, half_open_data])
    },
    Scenario {
        refuses: Some(no_redirect),
        allowed: Allowed { expiry: false, ..ALL },
        ..scenario("register: server", &[kill_feed, kill_data, stop, pause, flush, swap, restart, overflow])
    },
    Scenario {
        refuses: Some(no_redirect),
        server: &["--tracking-table-max-keys", "5"],
        pace: 60,
        ..scenario("register: small tracking table", &[calm, delay_feed])
    },
    Scenario {
        refuses: Some(no_redirect),
        change: |config| {
            let refresh = |(i, namespace): (usize, &mut Namespace)| match i {
                0 => namespace.refill_on_write = true,
                _ => namespace.on_update = OnUpdate::Refresh,
            };
            config.namespaces.iter_mut().enumerate().for_each(refresh);
            config.workers = 2;
        },
        ..scenario("register: refill, refresh, two workers", &[calm, delay_feed, delay_data, cut, kill_feed])
    },
    Scenario {
        refuses: Some(only_broadcast),
        ..scenario("broadcast", &[calm, delay_feed, delay_data, cut, kill_feed, half_open_feed, flush, stop])
    },
    Scenario { change: |config| config.workers = 2, ..scenario("two workers", &[calm, delay_feed, cut]) },
    Scenario {
        change: |config| config.max_memory = 16 << 10,
        ..scenario("small cache", &[calm, delay_feed])
    },
    MIX,
];

/// Everything that leaves the data where it is, or empties it.
pub const MIX: Scenario = scenario(
    "mix",
    &[
        calm,
        delay,
        delay_feed,
        delay_data,
        cut,
        cut,
        cut,
        refuse,
        half_open_feed,
        half_open_data,
        kill_feed,
        kill_data,
        kill_dedicated,
        pause,
        flush,
        restart,
        overflow,
    ],
);

/// Runs one scenario for about so long.
pub fn play(scenario: &Scenario, lasting: Duration, seed: u64) -> Report {
    let begun = Instant::now();
    let redis = Redis::with(scenario.server);
    let replica = scenario.replica.then(Redis::start);
    for server in [Some(&redis), replica.as_ref()].into_iter().flatten() {
        make_users(server);
    }
    if let Some(replica) = &replica {
        follow(replica, &redis);
    }
    let filter = scenario.refuses.map(|rule| Filter::to(redis.address(), rule));
    let server = filter.as_ref().map_or(redis.address(), |filter| filter.address);
    let chaos: Vec<_> = (0..SIDECARS).map(|_| Chaos::to(server)).collect();
    let start = |chaos: &Chaos| {
        Nearside::with(chaos.address, |config| {
            config.max_staleness = MAX_STALENESS;
            config.namespaces.iter_mut().for_each(|namespace| namespace.max_staleness = MAX_STALENESS);
            config.upstream_timeout = Some(Duration::from_secs(1));
            (scenario.change)(config);
        })
    };
    let sidecars: Vec<_> = chaos.iter().map(start).collect();
    let setup = Setup {
        writers: WRITERS,
        allowed: scenario.allowed,
        vanishes: scenario.vanishes,
        foreign: scenario.foreign,
        namespaces_only: scenario.namespaces_only,
        pace: Duration::from_millis(scenario.pace),
        cluster: false,
        must_serve: MustServe::Nothing,
    };
    let addresses = sidecars.iter().map(|sidecar| sidecar.address).collect();
    let world = Arc::new(World::new(addresses, redis.address(), &setup));
    let mut stage = Stage { world: world.clone(), redis, replica, chaos, random: Random::new(seed) };
    let reads = clients::run(&world, WRITERS, READERS, seed, || {
        let until = Instant::now() + lasting;
        while Instant::now() < until {
            let fault = *stage.random.pick(scenario.faults);
            fault(&mut stage);
        }
    });
    let ready = |sidecar: &Nearside| becomes_ready(sidecar, &["users/ready"]);
    conclude(Run { name: scenario.name, begun, world: &world, sidecars: &sidecars, ready: &ready }, reads)
}

/// Lets the clients loose on flawed caches.
pub fn play_toy(flaw: Flaw, lasting: Duration, seed: u64) -> Verdict {
    let redis = Redis::start();
    make_users(&redis);
    let setup = Setup {
        writers: WRITERS,
        allowed: ALL,
        vanishes: false,
        foreign: 33,
        namespaces_only: false,
        pace: Duration::from_millis(5),
        cluster: false,
        must_serve: MustServe::Nothing,
    };
    let toys = (0..2).map(|_| toy::start(Behind::Server(redis.address()), flaw)).collect();
    let world = Arc::new(World::new(toys, redis.address(), &setup));
    let reads = clients::run(&world, WRITERS, READERS, seed, || std::thread::sleep(lasting));
    judge(&world, reads).1
}

pub fn make_users(server: &Redis) {
    let mut conn = server.connect();
    for user in USERS {
        call(&mut conn, user).expect("the server takes its users");
    }
}
