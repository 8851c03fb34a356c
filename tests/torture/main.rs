//! Coherence under faults: sidecars behind relays that hurt, clients that note what they write and read, and
//! a checker that knows what was promised.
//!
//! `cargo nextest run` plays a mix of faults with a fixed seed and with a new one; `scripts/torture` plays all
//! scenarios for as long as it is told.

mod back;
mod clients;
mod cluster;
mod cluster_faults;
mod direct;
mod faults;
mod history;
mod judging;
mod lag;
mod misuse;
mod model;
mod random;
mod scenario;
#[path = "../support/mod.rs"]
mod support;
mod table;
mod toy;
mod world;

use std::time::{Duration, Instant};

use history::{Broken, Verdict};
use judging::{HEADER, Report};
use scenario::{MIX, SCENARIOS, play};

const FIXED_SEED: u64 = 20_240_229;

fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_micros() as u64 % 1_000_000_000
}

fn tell(report: &Report, seed: u64) {
    println!("{report}");
    if let Some((_, story)) = &report.verdict.stalest {
        println!("    stalest: {story}");
    }
    for violation in report.verdict.violations.iter().take(8) {
        println!("    seed {seed}: {violation}");
    }
}

#[track_caller]
fn must_hold(play: impl Fn(Duration, u64) -> Report, lasting: Duration, seed: u64) {
    println!("seed {seed}\n{HEADER}");
    let report = play(lasting, seed);
    tell(&report, seed);
    assert!(report.verdict.violations.is_empty(), "seed {seed}: promises were broken");
    assert!(
        report.hits >= 0.05,
        "seed {seed}: {:.3} of the reads were hits; that proves nothing",
        report.hits
    );
}

#[test]
fn the_promises_hold_under_a_mix_of_faults() {
    must_hold(|lasting, seed| play(&MIX, lasting, seed), Duration::from_secs(8), FIXED_SEED);
}

#[test]
fn the_promises_hold_under_another_mix_of_faults() {
    must_hold(|lasting, seed| play(&MIX, lasting, seed), Duration::from_secs(8), fresh_seed());
}

#[test]
fn the_promises_hold_in_front_of_a_cluster() {
    must_hold(cluster::play_mix, Duration::from_secs(12), fresh_seed());
}

fn found(flaw: toy::Flaw) -> Vec<Broken> {
    let verdict = scenario::play_toy(flaw, Duration::from_secs(2), FIXED_SEED);
    kinds(&verdict)
}

fn kinds(verdict: &Verdict) -> Vec<Broken> {
    let mut kinds: Vec<Broken> = verdict.violations.iter().map(|violation| violation.broken).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

#[test]
fn a_proxy_that_caches_nothing_breaks_no_promise() {
    assert_eq!(found(toy::Flaw::None), []);
}

#[test]
fn a_cache_that_is_never_invalidated_is_found_out() {
    let found = found(toy::Flaw::Forever);
    for broken in [Broken::ReadYourWrites, Broken::Staleness, Broken::Convergence] {
        assert!(found.contains(&broken), "{broken:?} is not among {found:?}");
    }
}

#[test]
fn a_cache_without_leases_is_found_out() {
    // What stays stale is overwritten soon, so which promise is seen to break is for chance to say.
    assert_ne!(found(toy::Flaw::NoLeases), []);
}

#[test]
fn a_cache_that_mixes_identities_up_is_found_out() {
    let found = found(toy::Flaw::OneForAll);
    assert!(found.contains(&Broken::Unexplained) && found.contains(&Broken::Identity), "{found:?}");
}

/// For `scripts/torture --lag`, which is for a quiet machine.
#[test]
#[ignore = "a measurement; scripts/torture --lag runs it"]
fn staleness_of_another_sidecar() {
    for writer in [lag::Writer::Sidecar, lag::Writer::Foreign] {
        let lags = lag::measure(writer, 3000);
        let missed: Vec<u64> = lags.iter().copied().filter(|lag| *lag > 0).collect();
        println!(
            "writer: {writer:?}; last stale read after each write, p50/p99/max ms: {}",
            table::spread(&lags)
        );
        println!("    of the writes that a read missed: {}", table::spread(&missed));
    }
}

fn found_in_cluster(flaw: toy::Flaw, scenario: &str) -> Vec<Broken> {
    let report = cluster::play_toy(flaw, scenario, Duration::from_secs(4), FIXED_SEED);
    tell(&report, FIXED_SEED);
    kinds(&report.verdict)
}

#[test]
fn a_client_of_a_cluster_that_caches_nothing_breaks_no_promise() {
    for scenario in ["resharding", "killed master, and back"] {
        assert_eq!(found_in_cluster(toy::Flaw::None, scenario), [], "{scenario}");
    }
}

#[test]
fn a_cache_that_is_blind_to_moves_of_slots_is_found_out() {
    // It does not divide MGET, which is an error to its clients.
    let calm = found_in_cluster(toy::Flaw::BlindToMoves, "calm");
    assert!(calm.iter().all(|broken| *broken == Broken::Unserved), "nothing has moved: {calm:?}");
    let found = found_in_cluster(toy::Flaw::BlindToMoves, "SETSLOT without MIGRATE, few writes");
    let is_old = |broken: &Broken| matches!(broken, Broken::Staleness | Broken::Convergence);
    assert!(found.iter().any(is_old), "{found:?}");
}

fn env(name: &str) -> Option<String> {
    std::env::var(format!("NEARSIDE_TORTURE_{name}")).ok()
}

/// For `scripts/torture`: NEARSIDE_TORTURE_MINUTES, NEARSIDE_TORTURE_SEED, NEARSIDE_TORTURE_ONLY (a part of a
/// scenario's name).
#[test]
#[ignore = "runs for minutes; scripts/torture runs it"]
fn torture() {
    for_minutes(SCENARIOS, |scenario| scenario.name, play);
}

/// For `scripts/torture --cluster`, with the same variables.
#[test]
#[ignore = "runs for minutes; scripts/torture --cluster runs it"]
fn torture_of_a_cluster() {
    for_minutes(&cluster::scenarios(), |scenario| scenario.name, cluster::play);
}

#[test]
fn write_back_keeps_its_promise_under_a_mix_of_faults() {
    let seed = fresh_seed();
    let mix = back::SCENARIOS.iter().find(|scenario| scenario.name == "mix").expect("the mix");
    let outcome = back::play(mix, Duration::from_secs(6), seed);
    println!("seed {seed}\n{}", outcome.line);
    assert!(outcome.problems.is_empty(), "seed {seed}: {:#?}", outcome.problems);
}

#[test]
fn a_write_back_that_overwrites_what_it_finds_is_found_out() {
    let outcome = back::play(&back::BLIND, Duration::from_secs(2), FIXED_SEED);
    println!("{}", outcome.line);
    assert!(outcome.problems.iter().any(|problem| problem.contains("newer than what it was made upon")));
}

/// For `scripts/torture --write-back`, with the same variables.
#[test]
#[ignore = "runs for minutes; scripts/torture --write-back runs it"]
fn torture_of_write_back() {
    let minutes: f64 = env("MINUTES").map_or(10.0, |text| text.parse().expect("minutes"));
    let mut seed = env("SEED").map_or_else(fresh_seed, |text| text.parse().expect("a seed"));
    let only = env("ONLY").unwrap_or_default();
    let chosen: Vec<_> = back::SCENARIOS.iter().filter(|scenario| scenario.name.contains(&only)).collect();
    let until = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let lasting = Duration::from_secs_f64((minutes * 60.0 / chosen.len() as f64 * 0.7).clamp(5.0, 20.0));
    let (mut passed, mut failed) = (0, 0);
    while passed + failed == 0 || Instant::now() < until {
        println!("seed {seed}, {:.0} s each", lasting.as_secs_f64());
        for scenario in &chosen {
            let outcome = back::play(scenario, lasting, seed);
            println!("{}", outcome.line);
            outcome.problems.iter().take(8).for_each(|problem| println!("    seed {seed}: {problem}"));
            if outcome.problems.is_empty() { passed += 1 } else { failed += 1 }
        }
        seed += 1;
    }
    println!("{passed} passed, {failed} failed");
    std::process::exit(i32::from(failed > 0));
}

fn for_minutes<S>(
    scenarios: &[S],
    name: impl Fn(&S) -> &'static str,
    play: impl Fn(&S, Duration, u64) -> Report,
) {
    let minutes: f64 = env("MINUTES").map_or(10.0, |text| text.parse().expect("minutes"));
    let mut seed = env("SEED").map_or_else(fresh_seed, |text| text.parse().expect("a seed"));
    let only = env("ONLY").unwrap_or_default();
    let chosen: Vec<_> = scenarios.iter().filter(|scenario| name(scenario).contains(&only)).collect();
    let until = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let lasting = Duration::from_secs_f64((minutes * 60.0 / chosen.len() as f64 * 0.7).clamp(5.0, 20.0));
    let (mut passed, mut failed, mut table) = (0, Vec::new(), table::Table::default());
    'rounds: loop {
        println!("seed {seed}, {:.0} s each\n{HEADER}", lasting.as_secs_f64());
        for scenario in &chosen {
            if passed + failed.len() >= chosen.len() && Instant::now() >= until {
                break 'rounds;
            }
            let report = play(scenario, lasting, seed);
            tell(&report, seed);
            table.add(&report, seed);
            match report.passed() {
                true => passed += 1,
                false => failed.push((report.name, seed)),
            }
        }
        if Instant::now() >= until {
            break;
        }
        seed += 1;
    }
    print!("{table}");
    for (name, seed) in &failed {
        println!("failed: {name}, seed {seed}");
    }
    println!("{passed} passed, {} failed", failed.len());
    std::process::exit(i32::from(!failed.is_empty()));
}
