//! The journal's store against what processes and disks do: kill -9 in mid-commit, a second process, a disk that is full or fails.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use bytes::Bytes;
use nearside::writeback::store::{Batch, Loaded, Store, StoreError, in_use};

use crate::support::faults::{Fault, Faults};

/// Keys that are written together, so that a batch which is there in part is seen.
const KEYS: u8 = 8;

/// A batch that gives all keys, and the conflict log, the same number; of a size that has the journal written anew often.
fn batch(number: u64) -> Batch {
    let record = Bytes::from([&number.to_le_bytes()[..], &[7; 30_000]].concat());
    Batch {
        puts: (0..KEYS).map(|key| ([key].into(), record.clone())).collect(),
        conflicts: vec![(number, record.slice(..8))],
        cleared: number.checked_sub(1).into_iter().collect(),
        ..Batch::default()
    }
}

/// The number that all keys have; `None` if nothing was written yet.
fn number(loaded: &Loaded) -> Option<u64> {
    let first = |bytes: &Bytes| u64::from_le_bytes(*bytes.first_chunk().expect("a number"));
    let found: BTreeSet<u64> = loaded.records.iter().map(|(_, record)| first(record)).collect();
    let entries: Vec<(u64, u64)> = loaded.conflicts.iter().map(|(id, entry)| (*id, first(entry))).collect();
    assert!(found.len() < 2, "batches are there in part: {found:?}");
    let number = found.first().copied();
    assert_eq!(loaded.records.len(), if number.is_some() { KEYS.into() } else { 0 });
    assert_eq!(entries, number.map(|number| (number, number)).into_iter().collect::<Vec<_>>());
    number
}

/// This program again, as the child that does `what` with a folder.
fn child(what: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "journal_store::in_a_child", "--ignored", "--nocapture"]);
    command.env("JOURNAL_STORE_CHILD", what).env("JOURNAL_STORE_FOLDER", folder);
    command
}

/// Killed when it is dropped.
struct Running {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Running {
    fn start(what: &str, folder: &Path) -> Self {
        let mut child = child(what, folder).stdout(Stdio::piped()).spawn().expect("a child");
        let said = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, said }
    }

    /// The next number that it says; `None` at its end.
    fn next(&mut self) -> Option<u64> {
        loop {
            let mut line = String::new();
            if self.said.read_line(&mut line).expect("text") == 0 {
                return None;
            }
            // A line that the kill has cut says nothing.
            if let Some(number) = line.strip_prefix("at ").and_then(|rest| rest.strip_suffix('\n')) {
                return Some(number.parse().expect("a number"));
            }
        }
    }

    fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the children do; see the tests.
#[test]
#[ignore = "it is a part of the others"]
fn in_a_child() {
    let folder = PathBuf::from(std::env::var_os("JOURNAL_STORE_FOLDER").expect("a folder"));
    match &*std::env::var("JOURNAL_STORE_CHILD").expect("what to do") {
        "commit" => commit_forever(&folder),
        "fail" => meet_faults(&folder),
        what => panic!("what is {what}?"),
    }
}

fn commit_forever(folder: &Path) {
    let (mut store, loaded) = Store::open(folder).expect("a store");
    let mut out = std::io::stdout();
    for next in number(&loaded).map_or(0, |number| number + 1).. {
        store.commit(batch(next), next % 3 == 0).expect("committed");
        writeln!(out, "at {next}").expect("said");
    }
}

#[test]
fn a_process_may_be_killed_at_any_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut last = None;
    for round in 0..12 {
        let mut running = Running::start("commit", folder.path());
        // Another number of commits each round: a file is written anew about every seventeenth.
        for _ in 0..1 + round * 7 % 23 {
            last = Some(running.next().expect("it goes on"));
        }
        running.kill();
        while let Some(number) = running.next() {
            last = Some(number);
        }
        let (_, loaded) = Store::open(folder.path()).expect("opened");
        let found = number(&loaded);
        assert!(found >= last, "round {round}: {last:?} was committed, and {found:?} is there");
        assert!(found <= last.map(|last| last + 1), "round {round}: {found:?} of {last:?}");
    }
}

#[test]
fn a_second_process_is_refused_until_the_first_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut running = Running::start("commit", folder.path());
    running.next().expect("it has it open");
    assert!(in_use(folder.path()));
    let error = Store::open(folder.path()).expect_err("it is open elsewhere");
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    running.kill();
    assert!(!in_use(folder.path()));
    Store::open(folder.path()).expect("it is free");
}

/// Under each fault: a commit fails, nothing that was committed is lost, and it goes on when the fault is gone.
fn meet_faults(folder: &Path) {
    let control = PathBuf::from(std::env::var_os("NEARSIDE_FAULT_FILE").expect("a control file"));
    let faults = Faults::new(folder, &control);
    let mut next = 0;
    for fault in [Fault::Fsync, Fault::Write, Fault::Full] {
        let (mut store, loaded) = Store::open(folder).expect("opened");
        assert_eq!(number(&loaded), u64::checked_sub(next, 1));
        for _ in 0..3 {
            store.commit(batch(next), true).expect("committed");
            next += 1;
        }
        faults.begin(fault);
        let error = store.commit(batch(next), true).expect_err("the disk fails").to_string();
        let told = if fault == Fault::Full { "No space left" } else { "Input/output error" };
        assert!(error.contains(told) && error.contains(&folder.display().to_string()), "{error}");
        store.commit(batch(next), true).expect_err("it is to be opened anew");
        drop(store);
        // What a full disk holds can be read, so that it can be flushed.
        match Store::open(folder) {
            Ok((mut store, loaded)) => {
                assert_eq!(fault, Fault::Full);
                assert_eq!(number(&loaded), Some(next - 1));
                store.commit(batch(next), true).expect_err("the disk is full still");
            }
            Err(error) => assert!(fault != Fault::Full && error.to_string().contains(told), "{error}"),
        }
        faults.end();
        let (mut store, loaded) = Store::open(folder).expect("the disk is well again");
        let found = number(&loaded).expect("what was committed");
        assert!(found == next || found == next - 1, "{found} after {next}");
        store.commit(batch(next), true).expect("committed");
        next += 1;
    }
    let (_, loaded) = Store::open(folder).expect("opened");
    assert_eq!(number(&loaded), Some(next - 1));
    println!("all was met");
}

#[test]
fn a_disk_that_fails_costs_nothing_that_was_committed() {
    let above = tempfile::tempdir().expect("a folder");
    let folder = above.path().join("journal");
    std::fs::create_dir(&folder).expect("a folder");
    let faults = Faults::new(&folder, &above.path().join("fault"));
    let output = faults.within(&mut child("fail", &folder)).output().expect("a child");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("all was met"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
