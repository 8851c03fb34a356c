//! What is told of each namespace whose writes are acknowledged here.
//!
//! Invariants: where there is no such namespace nothing is told, not even what it would be called.

use prometheus_client::registry::Unit;

use super::metric::{Is, Metric, Value, by};
use crate::process::{Back, Process};

const LABEL: &str = "namespace";

pub(super) fn of_write_back(process: &Process) -> Vec<Metric> {
    if !process.writes_back() {
        return Vec::new();
    }
    [of_writes(process), of_flushes(process), of_journal(process)].into_iter().flatten().collect()
}

fn counts(process: &Process, count: fn(&Back) -> u64) -> Vec<(Is, u64)> {
    process.backs().map(|back| (Is::from(back.name.clone()), count(back))).collect()
}

fn counter(process: &Process, name: &'static str, help: &'static str, count: fn(&Back) -> u64) -> Metric {
    by(name, help, LABEL, counts(process, count))
}

fn gauge(
    process: &Process,
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    measure: impl Fn(&Back) -> f64,
) -> Metric {
    let values = process.backs().map(|back| (Is::from(back.name.clone()), measure(back))).collect();
    Metric { name, help, unit, value: Value::Gauges(LABEL, values) }
}

fn of_writes(process: &Process) -> Vec<Metric> {
    let age = |back: &Back| back.oldest_age(process.now()).unwrap_or(0) as f64 / 1e6;
    vec![
        gauge(
            process,
            "writeback_open",
            "1 while writes are acknowledged here, 0 while they go through",
            None,
            |back| f64::from(u8::from(back.is_open().takes())),
        ),
        gauge(
            process,
            "writeback_dirty_keys",
            "Keys that are acknowledged and not flushed yet",
            None,
            |back| back.dirty() as f64,
        ),
        gauge(process, "writeback_dirty", "What these take, about", Some(Unit::Bytes), |back| {
            back.bytes() as f64
        }),
        gauge(
            process,
            "writeback_oldest",
            "How long the oldest of them has waited",
            Some(Unit::Seconds),
            age,
        ),
        gauge(process, "writeback_flush_after", "How long it may wait", Some(Unit::Seconds), |back| {
            back.flush_after() as f64 / 1e6
        }),
        counter(process, "writeback_acknowledged", "Writes acknowledged here", |back| {
            back.stats.acknowledged.get()
        }),
        counter(
            process,
            "writeback_coalesced",
            "Of these, took the place of one that was not flushed yet",
            |back| back.stats.coalesced.get(),
        ),
        counter(
            process,
            "writeback_through",
            "Writes that were asked of such a namespace and went through",
            |back| back.stats.through.get(),
        ),
        counter(process, "writeback_full", "Writes for which the journal had no room", |back| {
            back.stats.full.get()
        }),
    ]
}

fn of_flushes(process: &Process) -> Vec<Metric> {
    let flushes = process.backs().flat_map(|back| {
        let stats = &back.stats;
        let results = [("done", &stats.flushes), ("refused", &stats.refused), ("unknown", &stats.unknown)];
        results.map(|(result, count)| ([Is::from(back.name.clone()), Is::from(result)], count.get()))
    });
    vec![
        Metric {
            name: "writeback_flushes",
            help: "Flushes that met nobody else's write, by what came of them",
            unit: None,
            value: Value::Table([LABEL, "result"], flushes.collect()),
        },
        counter(
            process,
            "writeback_conflicts",
            "Flushes that found another's write upstream, whatever came of it (on-conflict)",
            |back| back.stats.conflicts.get(),
        ),
        counter(
            process,
            "writeback_logged_conflicts",
            "Of these, those whose write went to the conflict log",
            |back| back.stats.lost.get(),
        ),
        gauge(process, "writeback_conflict_log_entries", "Entries of the conflict log", None, |back| {
            back.conflict_log_size().0 as f64
        }),
        gauge(process, "writeback_conflict_log", "What these take", Some(Unit::Bytes), |back| {
            back.conflict_log_size().1 as f64
        }),
    ]
}

fn of_journal(process: &Process) -> Vec<Metric> {
    vec![
        gauge(
            process,
            "writeback_journal",
            "What the journal takes on the disk",
            Some(Unit::Bytes),
            |back| back.stats.journal_bytes.get() as f64,
        ),
        counter(process, "writeback_journal_commits", "Commits of the journal", |back| {
            back.stats.commits.get()
        }),
        counter(process, "writeback_journal_records", "Writes that these have put there", |back| {
            back.stats.committed.get()
        }),
        counter(
            process,
            "writeback_journal_failures",
            "Times that the journal could not be written",
            |back| back.stats.journal_failures.get(),
        ),
    ]
}
