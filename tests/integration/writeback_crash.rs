//! The program dies, at each step of a write that was acknowledged and at random, and starts again with the same journal, while
//! others write the same keys upstream.

use crate::support;

use std::io::Write as _;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::faults::{Fault, Faults};
use support::program::Program;
use support::witness::{Sent, Witness, judge, logged, micros};
use support::{Conn, Redis, free_port, line};

/// Where it can be told to die.
const PLACES: [&str; 8] = [
    "before-journal",
    "after-journal",
    "after-acknowledgement",
    "after-flush",
    "before-reply",
    "after-reply",
    "before-forget",
    "after-forget",
];

const WRITERS: u64 = 2;
const KEYS: u64 = 2;
const DEADLINE: Duration = Duration::from_secs(20);

/// How it dies.
#[derive(Clone, Copy)]
enum Death {
    /// By itself, there, when it comes there so many times.
    At(&'static str, u64),
    /// After so long, or so long after a first write was acknowledged.
    After(Duration),
    AfterFirst(Duration),
}

struct Bench {
    redis: Redis,
    journal: tempfile::TempDir,
    witness: Mutex<Witness>,
    settings: Vec<&'static str>,
    /// The journal's disk fails, now and then.
    faults: Option<Faults>,
    /// Lives in which that was noticed.
    failures: AtomicU64,
    sent: Mutex<Vec<Sent>>,
    numbers: AtomicU64,
    random: Mutex<u64>,
}

impl Bench {
    fn new(settings: &[&'static str]) -> Self {
        let redis = Redis::start();
        let witness = Mutex::new(Witness::of(redis.address()));
        let seed = std::env::var("NEARSIDE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        Self {
            redis,
            witness,
            journal: tempfile::tempdir().unwrap(),
            settings: settings.to_vec(),
            faults: None,
            failures: AtomicU64::new(0),
            sent: Mutex::default(),
            numbers: AtomicU64::new(0),
            random: Mutex::new(seed.unwrap_or(11)),
        }
    }

    fn below(&self, n: u64) -> u64 {
        let mut random = self.random.lock().unwrap();
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*random >> 33) % n
    }

    /// `None` if it died before it was ready: it had something to flush.
    fn start(&self, death: Option<Death>) -> Option<Program> {
        let (port, admin) = (free_port(), free_port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_nearside"));
        command.args(["--listen", &port.to_string(), "--admin", &admin.to_string(), "--workers", "2"]);
        command.args(["--upstream", &format!("redis://127.0.0.1:{}", self.redis.port)]);
        command.args(["--namespace", "users", "--write", "back", "--flush-after", "5ms"]);
        command.args(&self.settings);
        if !self.settings.contains(&"memory") {
            command.args(["--ack", "disk", "--journal", self.journal.path().to_str().unwrap()]);
        }
        if let Some(Death::At(place, times)) = death {
            command.env("NEARSIDE_CRASH", format!("{place}:{times}"));
        }
        if let Some(faults) = &self.faults {
            faults.within(&mut command);
        }
        let mut program = Program::spawn(&mut command, port, admin);
        let deadline = Instant::now() + DEADLINE;
        while !program.logged().contains("ready for clients") {
            if program.child.try_wait().unwrap().is_some() {
                let by_itself = matches!(death, Some(Death::At(..)));
                assert!(by_itself, "it has ended: {}", program.logged());
                return None;
            }
            assert!(Instant::now() < deadline, "it is not ready: {}", program.logged());
            std::thread::sleep(Duration::from_millis(2));
        }
        Some(program)
    }

    /// One life of the program, with clients until it has died.
    fn live(&self, death: Death) {
        let Some(mut program) = self.start(Some(death)) else { return };
        let dead = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let port = program.port;
            for writer in 0..WRITERS {
                scope.spawn(move || self.write(port, writer));
            }
            scope.spawn(|| self.write_beside(&dead));
            if let Some(faults) = &self.faults {
                scope.spawn(|| self.harm(faults, &dead));
            }
            if let Death::AfterFirst(_) = death {
                self.wait_for_more(&program);
            }
            if let Death::After(time) | Death::AfterFirst(time) = death {
                std::thread::sleep(time);
                program.signal(Signal::KILL);
            }
            let deadline = Instant::now() + DEADLINE;
            while program.child.try_wait().unwrap().is_none() {
                if Instant::now() > deadline {
                    // The others end with it.
                    program.signal(Signal::KILL);
                    panic!("it does not die: {}", program.logged());
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            dead.store(true, Ordering::Relaxed);
        });
        let has_failed = program.logged().contains("the journal cannot be written");
        self.failures.fetch_add(has_failed.into(), Ordering::Relaxed);
    }

    fn acked(&self) -> usize {
        self.sent.lock().unwrap().iter().filter(|sent| sent.acked).count()
    }

    fn wait_for_more(&self, program: &Program) {
        let (before, deadline) = (self.acked(), Instant::now() + DEADLINE);
        while self.acked() == before {
            if Instant::now() > deadline {
                program.signal(Signal::KILL);
                panic!("nothing is acknowledged");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A client of the program, with keys of its own.
    fn write(&self, port: u16, writer: u64) {
        let Ok(mut conn) = Conn::try_to(([127, 0, 0, 1], port).into()) else { return };
        loop {
            let (mut requests, mut ours) = (Vec::new(), Vec::new());
            for _ in 0..=self.below(6) {
                let key = format!("users/{writer}-{}", self.below(KEYS));
                let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
                // What a failing disk could not forget comes back where nothing is, which is not held against it.
                let deletes = self.faults.is_none() && self.below(6) == 0;
                let value = (!deletes).then(|| format!("w{number}"));
                requests.extend(line(&match &value {
                    Some(value) => format!("SET {key} {value}"),
                    None => format!("DEL {key}"),
                }));
                let mut sent = self.sent.lock().unwrap();
                ours.push(sent.len());
                sent.push(Sent { by: "", key, value, at: micros(), acked: false });
            }
            if conn.stream.write_all(&requests).is_err() {
                return;
            }
            for at in ours {
                match conn.try_reply() {
                    Ok(reply) if !reply.starts_with(b"-") => self.sent.lock().unwrap()[at].acked = true,
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        }
    }

    /// Another, who writes the same keys upstream.
    fn write_beside(&self, dead: &AtomicBool) {
        let mut conn = self.redis.connect();
        while !dead.load(Ordering::Relaxed) {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
            let key = format!("users/{}-{}", self.below(WRITERS), self.below(KEYS));
            conn.text(&format!("SET {key} f{number}"));
            std::thread::sleep(Duration::from_millis(1 + self.below(8)));
        }
    }

    fn harm(&self, faults: &Faults, dead: &AtomicBool) {
        while !dead.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(self.below(200)));
            faults.begin([Fault::Fsync, Fault::Write, Fault::Full][self.below(3) as usize]);
            std::thread::sleep(Duration::from_millis(1 + self.below(80)));
            faults.end();
        }
    }

    /// What was broken, once all is flushed.
    fn end(&mut self) -> Vec<String> {
        let program = self.start(None).expect("it lives");
        let mut conn = program.connect();
        let deadline = Instant::now() + DEADLINE;
        while conn.text("NEARSIDE SYNC") != "+OK\r\n" {
            assert!(Instant::now() < deadline, "it is not flushed");
        }
        let log = logged(&conn.text("NEARSIDE CONFLICTS COUNT 1000000"));
        let sent = self.sent.lock().unwrap().clone();
        let acked = self.acked();
        let problems = judge(self.witness.get_mut().unwrap().history(), &sent, &log);
        println!("{} writes, {acked} acknowledged, {} in the conflict log", sent.len(), log.len());
        assert!(acked > 0, "nothing was acknowledged");
        problems
    }
}

#[test]
fn whatever_step_it_dies_at_nothing_acknowledged_is_lost_and_nothing_newer_overwritten() {
    let mut bench = Bench::new(&[]);
    for times in [1, 7] {
        PLACES.iter().for_each(|place| bench.live(Death::At(place, times)));
    }
    let problems = bench.end();
    assert!(problems.is_empty(), "{problems:#?}");
}

/// So often, or as often as `NEARSIDE_TEST_ROUNDS` says.
fn rounds(few: u64) -> u64 {
    std::env::var("NEARSIDE_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(few)
}

#[test]
fn nor_when_it_is_killed_at_random() {
    let mut bench = Bench::new(&[]);
    for round in 0..rounds(6) {
        let time = Duration::from_millis(bench.below(150));
        bench.live(if round % 2 == 0 { Death::AfterFirst(time) } else { Death::After(time) });
    }
    let problems = bench.end();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn nor_when_its_disk_fails_besides() {
    let mut bench = Bench::new(&[]);
    let control = tempfile::tempdir().unwrap();
    bench.faults = Some(Faults::new(bench.journal.path(), &control.path().join("fault")));
    for round in 0..rounds(40) {
        bench.live(Death::AfterFirst(Duration::from_millis(bench.below(500))));
        if round > 1 && rounds(0) == 0 && bench.failures.load(Ordering::Relaxed) > 0 {
            break;
        }
    }
    assert!(bench.failures.load(Ordering::Relaxed) > 0, "its disk has never failed");
    let problems = bench.end();
    assert!(problems.is_empty(), "{problems:#?}");
}

/// Whether these settings, which promise less, are told apart.
#[track_caller]
fn is_noticed(settings: &[&'static str], expected: &str) {
    let mut bench = Bench::new(settings);
    let mut problems = Vec::new();
    // What they break may not show at once.
    for round in 1..40 {
        bench.live(Death::AfterFirst(Duration::from_millis(20 * round)));
        problems = bench.end();
        if problems.iter().any(|problem| problem.contains(expected)) {
            return;
        }
    }
    panic!("it is not noticed that {settings:?}: {problems:#?}");
}

#[test]
fn acknowledgements_before_the_journal_would_be_noticed() {
    is_noticed(&["--ack", "memory"], "is lost");
}

#[test]
fn a_blind_overwrite_would_be_noticed() {
    is_noticed(&["--on-conflict", "keep-local"], "newer than what it was made upon");
}
