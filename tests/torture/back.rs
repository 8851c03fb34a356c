//! Write-back under faults: sidecars that are dirty on the same keys, others who write them upstream, and an upstream that is
//! stopped, cut off, or moves slots. What it has executed is judged once all is flushed.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nearside::config::Config;
use nearside::namespace::{Ack, OnConflict, Writing};
use nearside::resp::key_slot;

use super::faults::signal;
use super::random::Random;
use crate::support::chaos::{BOTH, Chaos, Role};
use crate::support::cluster::Cluster;
use crate::support::witness::{Executed, Sent, Witness, judge, logged, micros};
use crate::support::{Conn, Nearside, Redis};

const NAMES: [&str; 2] = ["a", "b"];
const CLIENTS: u64 = 2;
const KEYS: u64 = 3;
const FLUSHED: Duration = Duration::from_secs(30);

/// What is written to.
enum Upstream {
    One(Redis),
    Many(Box<Cluster>),
}

struct Stage {
    upstream: Upstream,
    chaos: Vec<Chaos>,
    random: Random,
}

type Fault = fn(&mut Stage);

pub struct Scenario {
    pub name: &'static str,
    faults: &'static [Fault],
    ack: Ack,
    on_conflict: OnConflict,
    is_cluster: bool,
}

/// What promises less than is judged.
pub const BLIND: Scenario =
    Scenario { on_conflict: OnConflict::KeepLocal, ..scenario("calm, keep-local", &[calm]) };

const fn scenario(name: &'static str, faults: &'static [Fault]) -> Scenario {
    Scenario { name, faults, ack: Ack::Disk, on_conflict: OnConflict::KeepRemote, is_cluster: false }
}

pub const SCENARIOS: &[Scenario] = &[
    scenario("calm", &[calm]),
    Scenario { ack: Ack::Memory, ..scenario("calm, acknowledged in memory", &[calm]) },
    scenario("links cut", &[cut, cut, refuse]),
    scenario("half-open links", &[half_open]),
    scenario("slow links", &[delay]),
    scenario("stopped upstream", &[stop]),
    scenario("CLIENT KILL, CLIENT PAUSE, SCRIPT FLUSH", &[kill, pause, forget_scripts]),
    Scenario { ack: Ack::Memory, ..scenario("mix, acknowledged in memory", MIX) },
    scenario("mix", MIX),
    Scenario { is_cluster: true, ..scenario("resharding", &[calm, reshard]) },
];

const MIX: &[Fault] = &[calm, cut, refuse, half_open, delay, stop, kill, pause, forget_scripts];

fn nap(stage: &mut Stage, from: u64, to: u64) {
    std::thread::sleep(Duration::from_millis(from + stage.random.below(to - from)));
}

fn calm(stage: &mut Stage) {
    nap(stage, 100, 400);
}

impl Stage {
    fn any(&mut self) -> usize {
        self.random.below(self.chaos.len() as u64) as usize
    }

    fn redis(&self) -> &Redis {
        match &self.upstream {
            Upstream::One(redis) => redis,
            Upstream::Many(_) => panic!("not of a cluster"),
        }
    }
}

fn cut(stage: &mut Stage) {
    let i = stage.any();
    let pairs = stage.chaos[i].pairs();
    match stage.random.below(3) {
        0 => stage.chaos[i].reset_all(),
        1 if !pairs.is_empty() => {
            let pair = stage.random.pick(&pairs);
            pair.cut_after(1 + stage.random.below(3000) as usize);
            nap(stage, 20, 300);
            pair.reset();
        }
        _ => pairs.iter().for_each(|pair| pair.half_close(BOTH[0])),
    }
    nap(stage, 20, 300);
}

fn refuse(stage: &mut Stage) {
    let i = stage.any();
    stage.chaos[i].refuse(true);
    stage.chaos[i].reset_all();
    nap(stage, 50, 700);
    stage.chaos[i].refuse(false);
    nap(stage, 200, 400);
}

/// What is said is executed, and not answered; or it is not heard.
fn half_open(stage: &mut Stage) {
    let i = stage.any();
    let pairs = stage.chaos[i].of(Role::Data);
    let way = *stage.random.pick(&BOTH);
    pairs.iter().for_each(|pair| pair.swallow(way));
    nap(stage, 50, 900);
    pairs.iter().for_each(|pair| pair.reset());
    nap(stage, 100, 300);
}

fn delay(stage: &mut Stage) {
    let i = stage.any();
    stage.chaos[i].delay(Duration::from_millis(2 + stage.random.below(60)));
    nap(stage, 200, 800);
    stage.chaos[i].delay(Duration::ZERO);
}

fn stop(stage: &mut Stage) {
    let pid = stage.redis().pid();
    signal(pid, "-STOP");
    nap(stage, 100, 2000);
    signal(pid, "-CONT");
    nap(stage, 200, 800);
}

fn kill(stage: &mut Stage) {
    let mut conn = stage.redis().connect();
    let clients = conn.text("CLIENT LIST TYPE normal");
    let ids: Vec<&str> = clients
        .lines()
        .filter(|line| line.contains("flags=t"))
        .filter_map(|line| line.strip_prefix("id=")?.split(' ').next())
        .collect();
    if !ids.is_empty() {
        conn.text(&format!("CLIENT KILL ID {}", stage.random.pick(&ids)));
    }
    nap(stage, 50, 300);
}

fn pause(stage: &mut Stage) {
    let time = 50 + stage.random.below(700);
    stage.redis().connect().text(&format!("CLIENT PAUSE {time} WRITE"));
    nap(stage, time, time + 300);
}

fn forget_scripts(stage: &mut Stage) {
    stage.redis().connect().text("SCRIPT FLUSH");
    nap(stage, 50, 200);
}

/// The slot of one of the keys moves, key by key.
fn reshard(stage: &mut Stage) {
    let slot = key_slot(key(stage.random.below(KEYS)).as_bytes());
    let Upstream::Many(cluster) = &stage.upstream else { panic!("of a cluster") };
    let from = cluster.owner_of_slot(slot).expect("an owner").place;
    let others: Vec<_> =
        cluster.masters().iter().map(|node| node.place).filter(|place| *place != from).collect();
    let to = *stage.random.pick(&others);
    cluster.begin_move(slot, from, to);
    std::thread::sleep(Duration::from_millis(stage.random.below(100)));
    while cluster.move_keys(slot, from, to, 1) > 0 {
        std::thread::sleep(Duration::from_millis(stage.random.below(20)));
    }
    std::thread::sleep(Duration::from_millis(stage.random.below(100)));
    cluster.end_move(slot, from, to);
    nap(stage, 50, 250);
}

fn key(number: u64) -> String {
    format!("users/{number}")
}

/// What the clients have said and seen.
#[derive(Default)]
struct Notes {
    sent: Mutex<Vec<Sent>>,
    numbers: AtomicU64,
    problems: Mutex<Vec<String>>,
    refused: AtomicU64,
    over: AtomicBool,
}

impl Notes {
    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A client of the sidecar of this name. No two of one sidecar write the same keys, but those of both do.
    fn write(&self, address: SocketAddr, by: &'static str, client: u64, mut random: Random) {
        let mut conn = Conn::to(address);
        let mut newest = vec![0; KEYS as usize];
        while !self.over.load(Ordering::Relaxed) {
            let of = (0..KEYS).filter(|of| of % CLIENTS == client).collect::<Vec<_>>();
            let of = *random.pick(&of);
            let (key, number) = (key(of), self.number());
            let value = (!random.one_in(8)).then(|| format!("w{number}@{by}"));
            let text = match &value {
                // This one goes through.
                Some(value) if random.one_in(12) => format!("SET {key} {value} GET"),
                Some(value) => format!("SET {key} {value}"),
                None => format!("DEL {key}"),
            };
            let at = {
                let mut sent = self.sent.lock().unwrap();
                sent.push(Sent { by, key: key.clone(), value, at: micros(), acked: false });
                sent.len() - 1
            };
            match conn.try_reply_to(&text) {
                Ok(reply) if !reply.starts_with(b"-") => {
                    self.sent.lock().unwrap()[at].acked = true;
                    newest[of as usize] = number;
                }
                Ok(_) => drop(self.refused.fetch_add(1, Ordering::Relaxed)),
                Err(_) => conn = Conn::to(address),
            }
            if random.one_in(3) {
                self.read(&mut conn, &key, by, newest[of as usize]);
            }
            std::thread::sleep(Duration::from_micros(random.below(6000)));
        }
    }

    /// Nothing older than what was acknowledged here is read here.
    fn read(&self, conn: &mut Conn, key: &str, by: &str, newest: u64) {
        let Ok(reply) = conn.try_reply_to(&format!("GET {key}")) else { return };
        let reply = String::from_utf8_lossy(&reply).into_owned();
        let own =
            reply.lines().last().and_then(|value| value.strip_prefix('w')?.strip_suffix(&format!("@{by}")));
        if let Some(number) = own.and_then(|number| number.parse::<u64>().ok())
            && number < newest
        {
            self.problems.lock().unwrap().push(format!("{key}: w{number} was read after w{newest} at {by}"));
        }
    }

    /// One who writes the same keys upstream.
    fn write_beside(&self, upstream: &Others, mut random: Random) {
        while !self.over.load(Ordering::Relaxed) {
            let text = format!("SET {} f{}", key(random.below(KEYS)), self.number());
            upstream.say(&text);
            std::thread::sleep(Duration::from_millis(5 + random.below(60)));
        }
    }
}

/// Where another finds the upstream.
struct Others(Vec<SocketAddr>);

impl Others {
    /// To whichever node takes it.
    fn say(&self, text: &str) {
        let _ = self.0.iter().try_for_each(|node| {
            let said = Conn::try_to(*node).and_then(|mut conn| conn.try_reply_to(text));
            if said.is_ok_and(|reply| reply.starts_with(b"+OK")) { Err(()) } else { Ok(()) }
        });
    }
}

/// What came of a scenario.
pub struct Outcome {
    pub line: String,
    pub problems: Vec<String>,
}

/// Runs one scenario for about so long.
pub fn play(scenario: &Scenario, lasting: Duration, seed: u64) -> Outcome {
    let journals = tempfile::tempdir().unwrap();
    let upstream = match scenario.is_cluster {
        true => Upstream::Many(Box::new(Cluster::start(3, 0))),
        false => Upstream::One(Redis::start()),
    };
    let nodes: Vec<SocketAddr> = match &upstream {
        Upstream::One(redis) => vec![redis.address()],
        Upstream::Many(cluster) => cluster.nodes().iter().map(|node| node.address()).collect(),
    };
    let mut witnesses: Vec<_> = nodes.iter().map(|node| Witness::of(*node)).collect();
    let mut chaos = Vec::new();
    let sidecars: Vec<_> = NAMES
        .iter()
        .map(|name| {
            let change = |config: &mut Config| {
                // So that it is known by its connection what it has read.
                config.workers = 1;
                config.upstream_timeout = Some(Duration::from_secs(1));
                config.namespaces[0].writing = Some(Writing {
                    flush_after: Duration::from_millis(20),
                    flush_bytes: 8 << 20,
                    journal: Some(journals.path().join(name)),
                    ack: scenario.ack,
                    on_conflict: scenario.on_conflict,
                    journal_max: 256 << 20,
                });
            };
            match &upstream {
                Upstream::One(redis) => {
                    chaos.push(Chaos::to(redis.address()));
                    Nearside::with(chaos[chaos.len() - 1].address, change)
                }
                Upstream::Many(cluster) => Nearside::cluster_with(cluster, change),
            }
        })
        .collect();
    let (notes, mut stage) = (Notes::default(), Stage { upstream, chaos, random: Random::new(seed) });
    let (others, seeds) = (Others(nodes), &mut Random::new(seed + 1));
    std::thread::scope(|scope| {
        for (sidecar, name) in sidecars.iter().zip(NAMES) {
            for client in 0..CLIENTS {
                let (notes, random) = (&notes, Random::new(seeds.next()));
                scope.spawn(move || notes.write(sidecar.address, name, client, random));
            }
        }
        let random = Random::new(seeds.next());
        scope.spawn(|| notes.write_beside(&others, random));
        let until = Instant::now() + lasting;
        while Instant::now() < until {
            let fault = *stage.random.pick(scenario.faults);
            fault(&mut stage);
        }
        notes.over.store(true, Ordering::Relaxed);
    });
    let mut problems = std::mem::take(&mut *notes.problems.lock().unwrap());
    let mut log = Vec::new();
    for (sidecar, name) in sidecars.iter().zip(NAMES) {
        let (mut conn, deadline) = (sidecar.connect(), Instant::now() + FLUSHED);
        while conn.text("NEARSIDE SYNC") != "+OK\r\n" {
            if Instant::now() > deadline {
                problems.push(format!("{name} is not flushed: {}", sidecar.stats()));
                break;
            }
        }
        log.extend(logged(&conn.text("NEARSIDE CONFLICTS COUNT 1000000")));
    }
    let mut history: Vec<Executed> =
        witnesses.iter_mut().flat_map(|witness| witness.history().to_vec()).collect();
    // A key is on one node at a time, and all have one clock.
    history.sort_by_key(|event| event.at);
    let sent = notes.sent.into_inner().unwrap();
    problems.extend(judge(&history, &sent, &log));
    let flushes = history.iter().filter(|event| event.is_flush()).count();
    let acked = sent.iter().filter(|sent| sent.acked).count();
    let line = format!(
        "{:<45} {:>6} written {acked:>6} acknowledged {:>5} refused {flushes:>6} flushes {:>5} conflicts  {}",
        scenario.name,
        sent.len(),
        notes.refused.load(Ordering::Relaxed),
        log.len(),
        if problems.is_empty() { "ok" } else { "FAILED" },
    );
    Outcome { line, problems }
}
