//! What came of a scenario: everything is asked once more, and all that was noted is judged.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::clients;
use super::history::{Bounds, Broken, Read, Verdict, Violation, check};
use super::table::spread;
use super::world::{World, call};
use crate::support::Nearside;

pub const MAX_STALENESS: Duration = Duration::from_millis(300);

/// A reply that waits in a socket for its reader.
const SLACK: Duration = Duration::from_millis(100);

/// What came of a scenario.
pub struct Report {
    pub name: &'static str,
    pub verdict: Verdict,
    pub errors: u64,
    /// Errors to clients.
    pub refused: u64,
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

/// A scenario whose clients have ended.
pub struct Run<'a> {
    pub name: &'static str,
    pub begun: Instant,
    pub world: &'a World,
    pub sidecars: &'a [Nearside],
    /// Whether a sidecar caches again.
    pub ready: &'a dyn Fn(&Nearside) -> bool,
}

/// Waits until the sidecars cache again, and judges.
pub fn conclude(run: Run<'_>, reads: Vec<(usize, Read)>) -> Report {
    let Run { name, begun, world, sidecars, ready } = run;
    let issued = reads.len();
    let hits: i64 = sidecars.iter().map(|sidecar| sidecar.stat("hits")).sum();
    let unready = sidecars.iter().filter(|sidecar| !ready(sidecar)).count();
    let (converged, mut verdict) = judge(world, reads);
    if unready > 0 {
        let story = format!("{unready} sidecars cache nothing, though the upstream is there again");
        verdict.violations.push(Violation { broken: Broken::Convergence, story });
    }
    Report {
        name,
        verdict,
        errors: world.errors.load(Relaxed),
        refused: world.refused.load(Relaxed),
        converged,
        hits: hits as f64 / issued.max(1) as f64,
        seconds: begun.elapsed().as_secs_f64(),
    }
}

/// Whether each of these keys is soon a hit again when it is read again.
pub fn becomes_ready(sidecar: &Nearside, keys: &[impl AsRef<str>]) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    let becomes_hit = |key: &str| {
        while Instant::now() < deadline {
            let hits = sidecar.stat("hits");
            let mut conn = sidecar.connect();
            for _ in 0..2 {
                call(&mut conn, &["GET", key]);
            }
            if sidecar.stat("hits") > hits {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    };
    keys.iter().all(|key| becomes_hit(key.as_ref()))
}

/// Asks everything once more, and judges it all.
pub fn judge(world: &World, reads: Vec<(usize, Read)>) -> (u64, Verdict) {
    std::thread::sleep(MAX_STALENESS + SLACK);
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
    add(Broken::Unserved, std::mem::take(&mut world.unserved.lock().unwrap()));
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
