//! Histories, and the checker that judges them.
//!
//! All times are from one monotonic clock, in microseconds. The writes of a key come one after another, so
//! their order in the history is the server's order, and a version is its place in it. A reply may be
//! explained by several versions (`EXISTS` says little); every check takes the version that speaks for
//! nearside. So what is reported is a violation for certain.

use std::collections::HashMap;
use std::fmt;

use super::model::Kind;

pub type Micros = u64;

/// A time that never came.
pub const NEVER: Micros = Micros::MAX;

/// Through what a write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Sidecar(u8),
    /// Straight to the server: another client, the server itself, or the hand of the operator.
    Foreign,
}

#[derive(Clone, Copy, Debug)]
pub struct Version {
    pub content: Option<u64>,
    pub invoke: Micros,
    /// When it was known to have happened; [`NEVER`] if that was never known.
    pub complete: Micros,
    pub by: By,
}

#[derive(Clone, Debug)]
pub struct Read {
    pub sidecar: u8,
    /// Which of the kind's questions.
    pub ask: u8,
    pub ident: u8,
    pub resp3: bool,
    pub invoke: Micros,
    pub complete: Micros,
    /// Sent in one packet behind this version's write, by the same session.
    pub behind: Option<usize>,
    pub reply: Box<[u8]>,
}

pub struct KeyHistory {
    pub name: String,
    pub kind: Kind,
    /// The server may drop the key at any time (eviction).
    pub vanishes: bool,
    pub versions: Vec<Version>,
    pub reads: Vec<Read>,
}

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Broken {
    /// No version of the key explains the reply.
    Unexplained,
    ReadYourWrites,
    Staleness,
    /// Fresh when it was asked for, but too old when it was delivered.
    Late,
    Convergence,
    Monotonic,
    HonestWrites,
    Identity,
    /// An error, where the upstream could have served.
    Unserved,
    /// One client's misuse harmed others, or a fault made a storm.
    Bounded,
}

impl Broken {
    pub fn name(self) -> &'static str {
        match self {
            Broken::Unexplained => "P1 unexplained",
            Broken::ReadYourWrites => "P2 read your writes",
            Broken::Staleness => "P3 staleness",
            Broken::Late => "P3 staleness at delivery",
            Broken::Convergence => "P4 convergence",
            Broken::Monotonic => "P5 monotonic",
            Broken::HonestWrites => "P6 honest writes",
            Broken::Identity => "P7 identity",
            Broken::Unserved => "unserved",
            Broken::Bounded => "P8 bounded",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Violation {
    pub broken: Broken,
    pub story: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.broken.name(), self.story)
    }
}

/// How old the first write was that a read missed, when the read was asked for.
#[derive(Clone, Debug, Default)]
pub struct Staleness {
    pub same: Vec<Micros>,
    pub other: Vec<Micros>,
    pub foreign: Vec<Micros>,
}

impl Staleness {
    pub fn extend(&mut self, other: &Staleness) {
        self.same.extend(&other.same);
        self.other.extend(&other.other);
        self.foreign.extend(&other.foreign);
    }
}

#[derive(Default)]
pub struct Verdict {
    pub reads: u64,
    pub writes: u64,
    pub violations: Vec<Violation>,
    pub staleness: Staleness,
    /// A question answered from an older version than another question before it: not promised, but counted.
    pub across_questions: u64,
    /// The stalest reply within the bound, which may still be worth a question.
    pub stalest: Option<(Micros, String)>,
}

/// What is promised, as times.
#[derive(Clone, Copy)]
pub struct Bounds {
    pub max_staleness: Micros,
    /// How long a reply may take from the cache to the reader's clock.
    pub slack: Micros,
}

pub fn check(keys: &[KeyHistory], bounds: Bounds, noise: &dyn Fn(Micros, Micros) -> Micros) -> Verdict {
    let mut verdict = Verdict::default();
    keys.iter().for_each(|key| check_key(key, bounds, noise, &mut verdict));
    verdict
}

/// Versions that are known to have been seen, by who must not see older ones.
#[derive(Default)]
struct Floors {
    written: HashMap<u8, usize>,
    same: HashMap<(u8, u8, u8), usize>,
    any: HashMap<u8, usize>,
}

#[derive(Clone, Copy, Default)]
struct Floor {
    written: usize,
    same: usize,
    any: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    // At the same time, what begins comes before what ends: the lenient order.
    Asked(usize),
    Written(usize),
    Answered(usize),
}

fn check_key(
    key: &KeyHistory,
    bounds: Bounds,
    noise: &dyn Fn(Micros, Micros) -> Micros,
    verdict: &mut Verdict,
) {
    let mut events = Vec::with_capacity(2 * key.reads.len() + key.versions.len());
    for (i, read) in key.reads.iter().enumerate() {
        events.push((read.invoke, Event::Asked(i)));
        events.push((read.complete, Event::Answered(i)));
    }
    for (i, version) in key.versions.iter().enumerate() {
        if version.complete != NEVER {
            events.push((version.complete, Event::Written(i)));
        }
    }
    events.sort_unstable();
    let oldest_missed = oldest_missed(&key.versions);
    let mut floors = Floors::default();
    let mut at_invoke = vec![Floor::default(); key.reads.len()];
    verdict.writes += key.versions.len() as u64;
    for (_, event) in events {
        match event {
            Event::Written(i) => {
                if let By::Sidecar(sidecar) = key.versions[i].by {
                    let floor = floors.written.entry(sidecar).or_default();
                    *floor = (*floor).max(i);
                }
            }
            Event::Asked(i) => {
                let read = &key.reads[i];
                let behind = read.behind.filter(|version| key.versions[*version].complete != NEVER);
                let written = floors.written.get(&read.sidecar).copied().unwrap_or(0);
                at_invoke[i] = Floor {
                    written: written.max(behind.unwrap_or(0)),
                    same: floors.same.get(&(read.sidecar, read.ident, read.ask)).copied().unwrap_or(0),
                    any: floors.any.get(&read.sidecar).copied().unwrap_or(0),
                };
            }
            Event::Answered(i) => {
                let read = &key.reads[i];
                verdict.reads += 1;
                let before = verdict.violations.len();
                let judged = Judge { key, read, oldest_missed: &oldest_missed, bounds, noise };
                judged.judge(at_invoke[i], verdict);
                if verdict.violations.len() > before {
                    continue;
                }
                let least = at_invoke[i].written.max(at_invoke[i].same);
                if let Some(seen) = judged.first_from(least) {
                    let floor = floors.same.entry((read.sidecar, read.ident, read.ask)).or_default();
                    *floor = (*floor).max(seen);
                }
                if let Some(seen) = judged.first_from(least.max(at_invoke[i].any)) {
                    let floor = floors.any.entry(read.sidecar).or_default();
                    *floor = (*floor).max(seen);
                }
            }
        }
    }
}

/// For each version, the newer one that was known earliest.
fn oldest_missed(versions: &[Version]) -> Vec<Option<usize>> {
    let mut missed = vec![None; versions.len()];
    let mut first: Option<usize> = None;
    for i in (0..versions.len()).rev() {
        missed[i] = first;
        if versions[i].complete != NEVER && first.is_none_or(|j| versions[i].complete <= versions[j].complete)
        {
            first = Some(i);
        }
    }
    missed
}

struct Judge<'a> {
    key: &'a KeyHistory,
    read: &'a Read,
    oldest_missed: &'a [Option<usize>],
    bounds: Bounds,
    noise: &'a dyn Fn(Micros, Micros) -> Micros,
}

impl Judge<'_> {
    fn explains(&self, i: usize) -> bool {
        let version = &self.key.versions[i];
        version.invoke <= self.read.complete
            && *self.read.reply
                == *self.key.kind.asks()[self.read.ask as usize].expect(version.content, self.read.resp3)
    }

    fn first_from(&self, floor: usize) -> Option<usize> {
        (floor..self.key.versions.len()).find(|i| self.explains(*i))
    }

    fn judge(&self, floor: Floor, verdict: &mut Verdict) {
        let (key, read) = (self.key, self.read);
        let ask = &key.kind.asks()[read.ask as usize];
        if key.vanishes && *read.reply == *ask.expect(None, read.resp3) {
            return;
        }
        let story = |what: String| {
            format!(
                "{} {} (identity {}) through sidecar {}, {}..{} us, answered {:?}: {what}",
                key.name,
                ask.words,
                read.ident,
                read.sidecar,
                read.invoke,
                read.complete,
                String::from_utf8_lossy(&read.reply),
            )
        };
        let violations = &mut verdict.violations;
        let mut broken =
            |broken: Broken, what: String| violations.push(Violation { broken, story: story(what) });
        let tell = |i: usize| {
            let Version { content, invoke, complete, by } = key.versions[i];
            let complete = if complete == NEVER { "?".into() } else { complete.to_string() };
            format!("version {i} ({content:?}, {invoke}..{complete} us, {by:?})")
        };
        let Some(latest) = (0..key.versions.len()).rev().find(|i| self.explains(*i)) else {
            broken(Broken::Unexplained, "no version says so".into());
            return;
        };
        if latest < floor.written {
            broken(
                Broken::ReadYourWrites,
                format!("it is of {}, but {} was acknowledged here", tell(latest), tell(floor.written)),
            );
        }
        if latest < floor.same {
            broken(
                Broken::Monotonic,
                format!("it is of {}, but {} was read here", tell(latest), tell(floor.same)),
            );
        } else if latest < floor.any {
            verdict.across_questions += 1;
        }
        let Some(missed) = self.oldest_missed[latest] else { return };
        let Version { complete, by, .. } = key.versions[missed];
        let Some(age) = read.invoke.checked_sub(complete) else {
            let late = read.complete.saturating_sub(complete);
            self.check_late(late, &mut broken, || tell(missed));
            return;
        };
        let seen = match by {
            By::Sidecar(sidecar) if sidecar == read.sidecar => &mut verdict.staleness.same,
            By::Sidecar(_) => &mut verdict.staleness.other,
            By::Foreign => &mut verdict.staleness.foreign,
        };
        seen.push(age);
        if verdict.stalest.as_ref().is_none_or(|(most, _)| age > *most) {
            let what = format!("it is of {}, {age} us after {} was known", tell(latest), tell(missed));
            verdict.stalest = Some((age, story(what)));
        }
        if age > self.bounds.max_staleness {
            broken(
                Broken::Staleness,
                format!("it is of {}, {age} us after {} was known", tell(latest), tell(missed)),
            );
        } else {
            self.check_late(read.complete - complete, &mut broken, || tell(missed));
        }
    }

    /// A reply that was in order when it was asked for may have been kept for too long.
    fn check_late(&self, age: Micros, broken: &mut dyn FnMut(Broken, String), missed: impl Fn() -> String) {
        let allowed = self.bounds.max_staleness + self.bounds.slack;
        if age > allowed && age > allowed + (self.noise)(self.read.invoke, self.read.complete) {
            broken(Broken::Late, format!("it came {age} us after {} was known", missed()));
        }
    }
}

/// The value at `share` of the sorted values, in microseconds.
pub fn percentile(sorted: &[Micros], share: f64) -> Micros {
    let i = (sorted.len() as f64 * share) as usize;
    sorted.get(i.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests;
