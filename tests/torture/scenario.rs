//! What is done to the server and the connections while the clients are at work, and what came of it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nearside::config::{Config, OnUpdate, Tracking};

use super::history::{Bounds, Broken, Read, Verdict, Violation, check};
use super::model::Allowed;
use super::random::Random;
use super::table::spread;
use super::toy::{self, Flaw};
use super::world::{self, Setup, USERS, World, call};
use crate::support::chaos::{BOTH, Chaos, Role, Way};
use crate::support::{Conn, Nearside, Redis, eventually};

pub const MAX_STALENESS: Duration = Duration::from_millis(300);

/// A reply that waits in a socket for its reader.
const SLACK: Duration = Duration::from_millis(100);

const SIDECARS: usize = 3;
const WRITERS: usize = 4;
const READERS: usize = 2;

/// The running pieces of one scenario.
pub struct Stage {
    world: Arc<World>,
    redis: Redis,
    replica: Option<Redis>,
    chaos: Vec<Chaos>,
    random: Random,
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
    /// Between two writes of one writer, in milliseconds. When writes are rare, what was missed once stays.
    pace: u64,
}

const ALL: Allowed = Allowed { relative: true, expiry: true, undeclared: true };

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
        pace: 12,
    }
}

/// Without tracking nobody learns of what is not announced: no foreign writers, no expiry that only the
/// server sees, no undeclared keys, and no write that is cut off from its announcement.
const CHANNELS: Scenario = Scenario {
    change: |config| config.tracking = Tracking::Off,
    allowed: Allowed { relative: true, expiry: true, undeclared: false },
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
    let chaos: Vec<_> = (0..SIDECARS).map(|_| Chaos::to(redis.address())).collect();
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
    let reads = world::run(&world, WRITERS, READERS, seed, || {
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
    let reads = world::run(&world, WRITERS, READERS, seed, || std::thread::sleep(lasting));
    std::thread::sleep(MAX_STALENESS + SLACK);
    judge(&world, reads).1
}

/// Asks everything once more, and judges it all.
fn judge(world: &World, reads: Vec<(usize, Read)>) -> (u64, Verdict) {
    let (converged, wrong) = world::converge(world);
    let bounds = Bounds { max_staleness: MAX_STALENESS.as_micros() as u64, slack: SLACK.as_micros() as u64 };
    let mut verdict = check(&world.histories(reads), bounds, &|from, to| world.noise(from, to));
    let mut add = |broken, stories: Vec<String>| {
        verdict.violations.extend(stories.into_iter().map(|story| Violation { broken, story }));
    };
    add(Broken::Convergence, wrong);
    add(Broken::Identity, std::mem::take(&mut world.leaks.lock().unwrap()));
    add(Broken::HonestWrites, miscounted(world));
    add(Broken::HonestWrites, std::mem::take(&mut world.hangs.lock().unwrap()));
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

fn make_users(server: &Redis) {
    let mut conn = server.connect();
    for user in USERS {
        call(&mut conn, user).expect("the server takes its users");
    }
}

/// Makes `replica` a replica of `master` and waits until it is in step.
fn follow(replica: &Redis, master: &Redis) {
    let mut conn = replica.connect();
    conn.text(&format!("REPLICAOF 127.0.0.1 {}", master.port));
    eventually("the replica is in step", || conn.text("INFO replication").contains("master_link_status:up"));
}

fn nap(stage: &mut Stage, from: u64, to: u64) {
    std::thread::sleep(Duration::from_millis(from + stage.random.below(to - from)));
}

fn calm(stage: &mut Stage) {
    nap(stage, 100, 400);
}

fn any(stage: &mut Stage) -> usize {
    stage.random.below(stage.chaos.len() as u64) as usize
}

fn delay(stage: &mut Stage) {
    let i = any(stage);
    stage.chaos[i].delay(Duration::from_millis(2 + stage.random.below(30)));
    nap(stage, 200, 800);
    stage.chaos[i].delay(Duration::ZERO);
}

fn delay_role(stage: &mut Stage, role: Role, longest: u64) {
    let i = any(stage);
    let longest = Duration::from_millis(1 + stage.random.below(longest));
    let way = *stage.random.pick(&BOTH);
    let pairs = stage.chaos[i].of(role);
    pairs.iter().for_each(|pair| pair.delay(way, longest));
    nap(stage, 200, 800);
    pairs.iter().for_each(|pair| pair.delay(way, Duration::ZERO));
}

/// Up to well above the bound.
fn delay_feed(stage: &mut Stage) {
    let longest = *stage.random.pick(&[10, 50, 200, 700]);
    delay_role(stage, Role::Feed, longest);
}

fn delay_data(stage: &mut Stage) {
    delay_role(stage, Role::Data, 30);
}

fn cut(stage: &mut Stage) {
    let i = any(stage);
    let pairs = stage.chaos[i].pairs();
    if !pairs.is_empty() {
        let pair = stage.random.pick(&pairs);
        let way = if stage.random.one_in(2) { Way::Up } else { Way::Down };
        match stage.random.below(4) {
            0 => pair.reset(),
            1 => pair.half_close(way),
            2 => pair.cut_after(1 + stage.random.below(3000) as usize),
            _ => stage.chaos[i].reset_all(),
        }
    }
    nap(stage, 20, 300);
}

fn cut_feed(stage: &mut Stage) {
    let i = any(stage);
    stage.chaos[i].of(Role::Feed).iter().for_each(|pair| pair.reset());
    nap(stage, 50, 300);
}

fn refuse(stage: &mut Stage) {
    let i = any(stage);
    stage.chaos[i].refuse(true);
    stage.chaos[i].reset_all();
    nap(stage, 50, 400);
    stage.chaos[i].refuse(false);
    nap(stage, 300, 400);
}

fn half_open(stage: &mut Stage, role: Role) {
    let i = any(stage);
    let pairs = stage.chaos[i].of(role);
    let ways: &[Way] = match stage.random.below(3) {
        0 => &[Way::Up],
        1 => &[Way::Down],
        _ => &BOTH,
    };
    pairs.iter().for_each(|pair| ways.iter().for_each(|way| pair.swallow(*way)));
    nap(stage, 100, 900);
    pairs.iter().for_each(|pair| pair.reset());
    nap(stage, 200, 300);
}

fn half_open_feed(stage: &mut Stage) {
    half_open(stage, Role::Feed);
}

fn half_open_data(stage: &mut Stage) {
    half_open(stage, Role::Data);
}

fn operator(stage: &Stage) -> Conn {
    stage.redis.connect()
}

fn kill_feed(stage: &mut Stage) {
    operator(stage).text("CLIENT KILL TYPE pubsub");
    nap(stage, 100, 400);
}

fn kill_data(stage: &mut Stage) {
    let mut conn = operator(stage);
    let clients = conn.text("CLIENT LIST TYPE normal");
    let tracked: Vec<&str> = clients.lines().filter(|line| line.contains("flags=t")).collect();
    let ids: Vec<&str> =
        tracked.iter().filter_map(|line| line.strip_prefix("id=")?.split(' ').next()).collect();
    if !ids.is_empty() {
        conn.text(&format!("CLIENT KILL ID {}", stage.random.pick(&ids)));
    }
    nap(stage, 50, 300);
}

fn signal(pid: u32, signal: &str) {
    let done = std::process::Command::new("kill").args([signal, &pid.to_string()]).status();
    assert!(done.is_ok_and(|status| status.success()), "kill {signal}");
}

fn stop(stage: &mut Stage) {
    signal(stage.redis.pid(), "-STOP");
    std::thread::sleep(Duration::from_secs(2));
    signal(stage.redis.pid(), "-CONT");
    nap(stage, 500, 1500);
}

fn pause(stage: &mut Stage) {
    let mode = *stage.random.pick(&["WRITE", "ALL"]);
    let millis = 100 + stage.random.below(600);
    operator(stage).text(&format!("CLIENT PAUSE {millis} {mode}"));
    nap(stage, 700, 900);
}

/// Does something to the whole server while no write is under way.
fn overturn(stage: &mut Stage, line: &str, content: impl Fn(&World, usize) -> Option<Option<u64>>) {
    let world = stage.world.clone();
    let gate = world.gate.write().unwrap();
    let content: Vec<_> = (0..world.keys.len()).map(|i| content(&world, i)).collect();
    let mut conn = operator(stage);
    let invoke = world.now();
    assert_eq!(conn.text(line), "+OK\r\n", "{line}");
    world.overturn(invoke, world.now(), &content);
    drop(gate);
    nap(stage, 100, 500);
}

fn flush(stage: &mut Stage) {
    match stage.random.below(3) {
        0 => overturn(stage, "FLUSHALL", |_, _| Some(None)),
        1 => overturn(stage, "FLUSHALL ASYNC", |_, _| Some(None)),
        _ => overturn(stage, "FLUSHDB", |world, i| (world.keys[i].db == 0).then_some(None)),
    }
}

fn swap(stage: &mut Stage) {
    // The keys stand in pairs: the same name in both databases. What the last write came to is for the
    // server to say.
    overturn(stage, "SWAPDB 0 1", |world, i| Some(held(world, i ^ 1)));
}

/// What a key holds by the server's account.
fn held(world: &World, i: usize) -> Option<u64> {
    let key = &world.keys[i];
    let mut conn = world.direct(key.db).expect("the server that counts");
    world.held(&mut conn, key).flatten()
}

fn restart(stage: &mut Stage) {
    let world = stage.world.clone();
    world.lost.store(true, Relaxed);
    let invoke = world.now();
    stage.redis.kill();
    let gate = world.gate.write().unwrap();
    nap(stage, 1, 300);
    stage.redis.restart();
    make_users(&stage.redis);
    world.overturn(invoke, world.now(), &vec![Some(None); world.keys.len()]);
    world.lost.store(false, Relaxed);
    drop(gate);
    nap(stage, 500, 1000);
}

fn overflow(stage: &mut Stage) {
    let mut conn = operator(stage);
    call(&mut conn, &["CONFIG", "SET", "client-output-buffer-limit", "pubsub 32kb 16kb 1"])
        .expect("a known setting");
    call(&mut conn, &["PUBLISH", "users/update", &"x".repeat(1 << 20)]);
    call(&mut conn, &["CONFIG", "SET", "client-output-buffer-limit", "pubsub 32mb 8mb 60"]);
    nap(stage, 200, 500);
}

fn fill_up(stage: &mut Stage) {
    let mut conn = operator(stage);
    for _ in 0..100 {
        let name = format!("filler{}", stage.random.below(1000));
        call(&mut conn, &["SET", &name, &"x".repeat(20_000)]);
    }
    nap(stage, 20, 100);
}

fn promote(stage: &mut Stage) {
    promotion(stage, false);
}

/// As a proxy in between may do it: what is open stays with the old server.
fn promote_split(stage: &mut Stage) {
    promotion(stage, true);
}

fn promotion(stage: &mut Stage, split: bool) {
    let world = stage.world.clone();
    nap(stage, 300, 800);
    let Some(replica) = stage.replica.take() else { return };
    // The replica lags behind, so acknowledged writes are lost.
    signal(replica.pid(), "-STOP");
    nap(stage, 20, 100);
    world.lost.store(true, Relaxed);
    let invoke = world.now();
    let gate = world.gate.write().unwrap();
    call(&mut operator(stage), &["CLIENT", "KILL", "TYPE", "replica"]);
    signal(replica.pid(), "-CONT");
    assert_eq!(replica.connect().text("REPLICAOF NO ONE"), "+OK\r\n");
    stage.chaos.iter().for_each(|chaos| chaos.target(replica.address()));
    // More than once: a connection may have been under way to the old server.
    for _ in 0..10 {
        let pairs = stage.chaos.iter().flat_map(Chaos::pairs);
        let old = pairs.filter(|pair| pair.target != replica.address());
        old.filter(|pair| !split || pair.role() != Role::Feed).for_each(|pair| pair.reset());
        std::thread::sleep(Duration::from_millis(10));
    }
    *world.server.lock().unwrap() = replica.address();
    let held: Vec<_> = (0..world.keys.len()).map(|i| Some(held(&world, i))).collect();
    world.overturn(invoke, world.now(), &held);
    world.lost.store(false, Relaxed);
    let old = std::mem::replace(&mut stage.redis, replica);
    drop(gate);
    nap(stage, 1000, 1500);
    follow(&old, &stage.redis);
    stage.replica = Some(old);
}
