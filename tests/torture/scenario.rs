//! What is done to the server and the connections while the clients are at work, and what came of it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nearside::config::{Config, Namespace, OnUpdate, Tracking};

use super::clients;
use super::faults::*;
use super::history::{Bounds, Broken, Read, Verdict, Violation, check};
use super::misuse::*;
use super::model::Allowed;
use super::random::Random;
use super::table::spread;
use super::toy::{self, Flaw};
use super::world::{Setup, USERS, World, call};
use crate::support::chaos::Chaos;
use crate::support::filter::{Filter, Rule, no_redirect, only_broadcast};
use crate::support::{Nearside, Redis};

pub const MAX_STALENESS: Duration = Duration::from_millis(300);

/// A reply that waits in a socket for its reader.
const SLACK: Duration = Duration::from_millis(100);

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

const ALL: Allowed = Allowed { relative: true, expiry: true, undeclared: 12 };

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
    allowed: Allowed { relative: true, expiry: true, undeclared: 0 },
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

/// What came of a scenario.
pub struct Report {
    pub name: &'static str,
    pub verdict: Verdict,
    pub errors: u64,
    pub converged: u64,
    pub hits: f64,
    pub seconds: f64,
}

impl Report {
    pub fn passed(&self) -> bool {
        self.verdict.violations.is_empty() && self.hits >= 0.05
    }
}

pub const HEADER: &str = "scenario                              reads  writes errors  checks  hits  back  \
     | stale after a write: other sidecar p50/p99/max ms (n) | foreign | same sidecar | violations";

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = &self.verdict;
        write!(
            f,
            "{:<36} {:>7} {:>6} {:>6} {:>7} {:>4.0}% {:>5}",
            self.name,
            verdict.reads,
            verdict.writes,
            self.errors,
            self.converged,
            self.hits * 100.0,
            verdict.across_questions
        )?;
        let staleness = &verdict.staleness;
        for seen in [&staleness.other, &staleness.foreign, &staleness.same] {
            write!(f, " | {}", spread(seen))?;
        }
        let mut kinds: Vec<Broken> = verdict.violations.iter().map(|violation| violation.broken).collect();
        kinds.sort_unstable();
        write!(f, " | {} in {:.1} s", kinds.len(), self.seconds)?;
        for group in kinds.chunk_by(|a, b| a == b) {
            write!(f, ", {}: {}", group[0].name(), group.len())?;
        }
        Ok(())
    }
}

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
    let issued = reads.len();
    let hits: i64 = sidecars.iter().map(|sidecar| sidecar.stat("hits")).sum();
    let unready = sidecars.iter().filter(|sidecar| !becomes_ready(sidecar)).count();
    std::thread::sleep(MAX_STALENESS + SLACK);
    let (converged, mut verdict) = judge(&world, reads);
    if unready > 0 {
        let story = format!("{unready} sidecars cache nothing, though the upstream is there again");
        verdict.violations.push(Violation { broken: Broken::Convergence, story });
    }
    Report {
        name: scenario.name,
        verdict,
        errors: world.errors.load(Relaxed),
        converged,
        hits: hits as f64 / issued.max(1) as f64,
        seconds: begun.elapsed().as_secs_f64(),
    }
}

/// Whether what is read again is soon a hit again.
fn becomes_ready(sidecar: &Nearside) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        let hits = sidecar.stat("hits");
        let mut conn = sidecar.connect();
        for _ in 0..2 {
            call(&mut conn, &["GET", "users/ready"]);
        }
        if sidecar.stat("hits") > hits {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
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
    };
    let toys = (0..2).map(|_| toy::start(redis.address(), flaw)).collect();
    let world = Arc::new(World::new(toys, redis.address(), &setup));
    let reads = clients::run(&world, WRITERS, READERS, seed, || std::thread::sleep(lasting));
    std::thread::sleep(MAX_STALENESS + SLACK);
    judge(&world, reads).1
}

/// Asks everything once more, and judges it all.
fn judge(world: &World, reads: Vec<(usize, Read)>) -> (u64, Verdict) {
    let (converged, wrong) = clients::converge(world);
    let bounds = Bounds { max_staleness: MAX_STALENESS.as_micros() as u64, slack: SLACK.as_micros() as u64 };
    let mut verdict = check(&world.histories(reads), bounds, &|from, to| world.noise(from, to));
    let mut add = |broken, stories: Vec<String>| {
        verdict.violations.extend(stories.into_iter().map(|story| Violation { broken, story }));
    };
    add(Broken::Convergence, wrong);
    add(Broken::Identity, std::mem::take(&mut world.leaks.lock().unwrap()));
    add(Broken::HonestWrites, miscounted(world));
    add(Broken::HonestWrites, std::mem::take(&mut world.hangs.lock().unwrap()));
    add(Broken::HonestWrites, std::mem::take(&mut world.lost_updates.lock().unwrap()));
    add(Broken::Bounded, std::mem::take(&mut world.misused.lock().unwrap()));
    (converged, verdict)
}

/// Counters that do not stand between what was acknowledged and what was attempted.
fn miscounted(world: &World) -> Vec<String> {
    let Some(mut conn) = world.direct(0) else { return vec!["the server does not answer".into()] };
    let mut wrong = Vec::new();
    for counter in &world.counters {
        let (least, most) = (counter.acknowledged.load(Relaxed), counter.attempted.load(Relaxed));
        let value = conn.value(&counter.name).and_then(|value| value.parse().ok()).unwrap_or(0);
        let least = if world.vanishes { 0 } else { least };
        if !(least..=most).contains(&value) {
            wrong.push(format!("{} is {value}: {least} acknowledged, {most} attempted", counter.name));
        }
    }
    wrong
}

pub fn make_users(server: &Redis) {
    let mut conn = server.connect();
    for user in USERS {
        call(&mut conn, user).expect("the server takes its users");
    }
}
