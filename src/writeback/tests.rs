//! The engine against a model of all that is around it: see [`model`].
//!
//! proptest explores the order of steps. That the rules would notice is seen by worlds that are broken on purpose: an upstream
//! that compares nothing, and acknowledgements that do not wait for the disk.

mod fakes;
mod model;
mod rules;
mod steps;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use self::model::{Broken, World};
use self::steps::{Step, steps};
use crate::namespace::{Ack, OnConflict};

fn run(setup: (Ack, bool, OnConflict), broken: Broken, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut world = World::new(setup.0, setup.1, setup.2, broken);
    let go = || steps.into_iter().try_for_each(|step| world.go(step)).and_then(|()| world.settle());
    go().map_err(TestCaseError::fail)
}

/// Tries worlds of this kind; always the same ones, unless `PROPTEST_CASES` says how many.
fn explore(setup: (Ack, bool, OnConflict), broken: Broken) -> Result<(), TestError<Vec<Step>>> {
    let more = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let config = Config { cases: more.unwrap_or(300), failure_persistence: None, ..Config::default() };
    let mut runner = match more {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    runner.run(&steps(), |steps| run(setup, broken, steps))
}

#[track_caller]
fn holds(when: Ack, journals: bool) {
    for policy in [OnConflict::KeepRemote, OnConflict::KeepLocal, OnConflict::Newest] {
        if let Err(error) = explore((when, journals, policy), Broken::Nothing) {
            panic!("{when:?}, with a journal: {journals}, {policy:?}: {error}");
        }
    }
}

#[test]
fn what_is_acknowledged_on_the_disk_is_kept() {
    holds(Ack::Disk, true);
}

#[test]
fn what_is_acknowledged_in_memory_is_kept_as_far_as_the_journal_goes() {
    holds(Ack::Memory, true);
}

#[test]
fn without_a_journal_it_is_kept_while_the_process_lives() {
    holds(Ack::Memory, false);
}

#[track_caller]
fn is_noticed(broken: Broken, expected: &str) {
    let found = explore((Ack::Disk, true, OnConflict::KeepRemote), broken);
    let Err(TestError::Fail(reason, steps)) = found else { panic!("{broken:?} is not noticed: {found:?}") };
    assert!(reason.message().contains(expected), "{broken:?}: {reason}, after {steps:?}");
}

#[test]
fn a_blind_overwrite_is_noticed() {
    is_noticed(Broken::OverwritesBlindly, "another's newer write");
}

#[test]
fn an_acknowledgement_before_the_journal_is_noticed() {
    is_noticed(Broken::AcknowledgesEarly, "is lost");
}
