use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
};

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    frame::{FILE_HEAD, FRAME_HEAD, close_frame},
    *,
};

fn put(key: &str, record: impl Into<Bytes>) -> Batch {
    Batch { puts: vec![(key.as_bytes().into(), record.into())], ..Batch::default() }
}

fn told(loaded: &Loaded) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    loaded.records.iter().map(|(key, record)| (text(key), text(record))).collect()
}

/// A journal in a folder of its own, closed, and the bytes of it.
struct Written {
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
    /// Where each batch begins, and where the last ends.
    places: Vec<usize>,
}

impl Written {
    /// One batch after another, each with its word whether it is synced.
    fn new(batches: impl IntoIterator<Item = (Batch, bool)>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut store, _) = Store::open(folder.path()).expect("a store");
        let mut places = vec![store.bytes() as usize];
        for (batch, sync) in batches {
            store.commit(batch, sync).expect("committed");
            places.push(store.bytes() as usize);
        }
        let bytes = fs::read(folder::journal(folder.path())).expect("a journal");
        assert_eq!(bytes.len(), places[places.len() - 1]);
        Self { folder, bytes, places }
    }

    /// Reads other bytes in its place, without the fsyncs of an opening: what is live, and what is dropped.
    fn read(&self, bytes: &[u8]) -> Result<Loaded, StoreError> {
        fs::write(folder::journal(self.folder.path()), bytes).expect("written");
        let (log, dropped) = Log::read(self.folder.path())?.expect("a journal");
        let mut loaded = Loaded { dropped, ..Loaded::default() };
        log.each_live(|item| {
            loaded.push(item);
            Ok(())
        })?;
        Ok(loaded)
    }
}

#[test]
fn what_was_committed_is_there_when_it_is_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("above").join("journal");
    let (mut store, loaded) = Store::open(&folder).expect("a store");
    assert!(loaded.records.is_empty() && loaded.conflicts.is_empty() && loaded.dropped == 0);
    store.commit(put("a", "1"), true).expect("committed");
    store.commit(put("b", "2"), false).expect("committed");
    store.commit(put("a", "3"), false).expect("committed");
    store.commit(put("c", "4"), false).expect("committed");
    let mixed = Batch {
        removes: vec![b"c"[..].into()],
        conflicts: vec![(7, "seven".into()), (8, "eight".into())],
        ..Batch::default()
    };
    store.commit(mixed, true).expect("committed");
    store.commit(Batch { cleared: vec![7], ..Batch::default() }, false).expect("committed");
    store.commit(Batch::default(), true).expect("nothing is committed");
    drop(store);
    for _ in 0..2 {
        let (store, loaded) = Store::open(&folder).expect("opened again");
        assert_eq!(told(&loaded), [("b".into(), "2".into()), ("a".into(), "3".into())]);
        assert_eq!(loaded.conflicts, [(8, "eight".into())]);
        assert_eq!(loaded.dropped, 0);
        assert_eq!(store.bytes(), store.live(), "it holds no garbage");
    }
    for (path, mode) in
        [(folder.clone(), 0o700), (folder::journal(&folder), 0o600), (folder.join("lock"), 0o600)]
    {
        let found = fs::metadata(&path).expect("its rights").permissions().mode();
        assert_eq!(found & 0o777, mode, "{}", path.display());
    }
}

#[test]
fn a_torn_batch_is_dropped_whole_wherever_it_is_torn() {
    let last = Batch { removes: vec![b"a"[..].into()], ..put("c", "3") };
    let written = Written::new([(put("a", "1"), true), (put("b", "2"), true), (last, true)]);
    let whole = written.bytes.len();
    let start = written.places[2];
    let before = [("a".into(), "1".into()), ("b".into(), "2".into())];
    for end in start..whole {
        let cut = &written.bytes[..end];
        let (mut garbage, mut zeros, mut hole) = (cut.to_vec(), cut.to_vec(), written.bytes.clone());
        garbage.extend(b"bytes of any kind, more than there were before, for something else was here once");
        zeros.resize(whole + 4096, 0);
        hole[end] ^= 0x40;
        for bytes in [cut, &garbage, &zeros, &hole] {
            let loaded = written.read(bytes).expect("readable");
            assert_eq!(told(&loaded), before, "torn at {end} of {start}..{whole}");
            assert_eq!(loaded.dropped as usize, bytes.len() - start, "torn at {end} of {start}..{whole}");
        }
    }
    let mut more = written.bytes.clone();
    more.extend([7; 100]);
    let after = [("b".into(), "2".into()), ("c".into(), "3".into())];
    assert_eq!(told(&written.read(&more).expect("readable")), after);
    // The next opening has it no more, and what is added stands behind what was whole.
    for (dropped, key) in [(100, "d"), (0, "e")] {
        let (mut store, loaded) = Store::open(written.folder.path()).expect("opened");
        assert_eq!(loaded.dropped, dropped);
        store.commit(put(key, "4"), false).expect("committed");
    }
    let (_, loaded) = Store::open(written.folder.path()).expect("opened");
    assert_eq!(loaded.records.len(), 4);
}

#[test]
fn damage_of_what_was_synced_is_told_and_nothing_is_changed() {
    let written = Written::new([(put("a", "1"), true), (put("b", "2"), true), (put("c", "3"), false)]);
    // The third had not been synced, so that it is damaged tells nothing; but it tells that the first two had been.
    for at in 0..written.places[2] {
        let mut bytes = written.bytes.clone();
        bytes[at] ^= 1;
        let error = written.read(&bytes).expect_err("damage is seen");
        if at >= 16 {
            assert!(matches!(error, StoreError::Broken { .. }), "at {at}: {error}");
        }
        assert!(Store::open(written.folder.path()).is_err(), "damage at {at}");
        assert_eq!(fs::read(folder::journal(written.folder.path())).expect("a journal"), bytes);
    }
    // And so it is in a file that was written anew: it was whole before it had its name.
    fs::write(folder::journal(written.folder.path()), &written.bytes).expect("written");
    drop(Store::open(written.folder.path()).expect("opened"));
    let file = folder::journal(written.folder.path());
    let mut bytes = fs::read(&file).expect("a journal");
    bytes[FILE_HEAD + FRAME_HEAD] ^= 1;
    let error = written.read(&bytes).expect_err("damage is seen").to_string();
    assert!(error.contains(&file.display().to_string()) && error.contains("damaged at byte 32"), "{error}");
}

#[test]
fn what_was_never_synced_may_be_lost_in_any_order() {
    let names = ["a", "b", "c", "d"];
    let written = Written::new(names.map(|name| (put(name, name), name == "a")));
    // As a machine that fails may leave it: the third batch is on the disk, the second is not.
    let mut bytes = written.bytes.clone();
    bytes[written.places[1]..written.places[2]].fill(0);
    let loaded = written.read(&bytes).expect("readable");
    assert_eq!(told(&loaded), [("a".into(), "a".into())]);
    assert_eq!(loaded.dropped as usize, bytes.len() - written.places[1]);
}

#[test]
fn no_record_can_pass_for_a_frame() {
    let old = Written::new([]);
    let place = old.places[0];
    // Where the record begins: behind the frame's head, the item's, and a key of one byte.
    let at = place + FRAME_HEAD + 17 + 1;
    let forged = |salt| {
        let mut frame = vec![0; FRAME_HEAD];
        close_frame(&mut frame, salt, at as u64, u64::MAX);
        frame
    };
    let folder = old.folder.path();
    let (mut store, _) = Store::open(folder).expect("opened");
    store.commit(put("k", forged(0)), true).expect("committed");
    let salt = folder::look(folder).expect("readable").expect("a journal");
    drop(store);
    let mut bytes = fs::read(folder::journal(folder)).expect("a journal");
    bytes[place] ^= 1;
    assert_eq!(old.read(&bytes).expect("a torn tail").dropped as usize, bytes.len() - place);
    // Whoever knew the number that the file drew could.
    bytes[at..at + FRAME_HEAD].copy_from_slice(&forged(salt));
    assert!(matches!(old.read(&bytes), Err(StoreError::Broken { .. })));
}

#[test]
fn it_is_opened_once() {
    let above = tempfile::tempdir().expect("a folder");
    let folder = above.path().join("journal");
    assert!(!in_use(&folder));
    assert!(!folder.exists(), "asking creates nothing");
    let (store, _) = Store::open(&folder).expect("a store");
    assert!(in_use(&folder));
    let error = Store::open(&folder).expect_err("it is open");
    assert!(matches!(&error, StoreError::InUse(of) if *of == folder), "{error}");
    drop(store);
    assert!(!in_use(&folder));
    Store::open(&folder).expect("it is free again");
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let above = tempfile::tempdir().expect("a folder");
    let listed = |folder: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        entries.map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
    };
    let version_2 = {
        let mut head = frame::file_head(5);
        head[16] = 2;
        let sum = crc32fast::hash(&head[..28]);
        head[28..].copy_from_slice(&sum.to_le_bytes());
        [&head[..], b"what only a newer nearside reads"].concat()
    };
    let cases: [(&str, &[u8], &str); 5] = [
        ("other.db", b"something", "is not a journal of nearside"),
        ("journal", b"something of some length, more than the head", "is not a journal of nearside"),
        ("journal", b"", "is not a journal of nearside"),
        ("journal", b"nearside jour", "is damaged at byte 0"),
        ("journal", &version_2, "has format 2, and this nearside knows formats up to 1"),
    ];
    for (index, (name, bytes, what)) in cases.into_iter().enumerate() {
        let folder = above.path().join(index.to_string());
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join(name), bytes).expect("a file");
        let before = listed(&folder);
        let error = Store::open(&folder).expect_err("it is not ours").to_string();
        assert!(error.contains(what) && error.contains(&folder.display().to_string()), "{error}");
        assert!(!in_use(&folder));
        assert_eq!(listed(&folder), before);
    }
    let file = above.path().join("file");
    fs::write(&file, "something").expect("a file");
    assert!(matches!(Store::open(&file), Err(StoreError::Foreign(of)) if of == file));
    // What a crash leaves at the very first start is ours.
    let folder = above.path().join("ours");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder::next(&folder), "half of someth").expect("a file");
    Store::open(&folder).expect("a store");
    assert!(!folder::next(&folder).exists());
}

#[test]
fn garbage_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut store, _) = Store::open(folder.path()).expect("a store");
    let (mut most, mut written) = (0, 0);
    for round in 0..400 {
        let record = Bytes::from(format!("{round:1000}"));
        let puts = (0..100_u8).map(|key| ([key].into(), record.clone())).collect();
        store.commit(Batch { puts, ..Batch::default() }, false).expect("committed");
        most = most.max(store.bytes());
        written += 100 * 1000;
    }
    assert!(written > 9 * SLACK, "it is written anew a few times");
    assert!(most < 2 * SLACK, "{most} bytes");
    let last = fs::metadata(folder::journal(folder.path())).expect("a journal").len();
    assert_eq!(last, store.bytes());
    drop(store);
    let (_, loaded) = Store::open(folder.path()).expect("opened");
    assert_eq!(loaded.records.len(), 100);
    assert!(loaded.records.iter().all(|(_, record)| record.ends_with(b" 399")));
}

#[test]
fn after_an_error_it_takes_nothing_until_it_is_opened_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut store, _) = Store::open(folder.path()).expect("a store");
    store.commit(put("a", "1"), true).expect("committed");
    let file = fs::OpenOptions::new().write(true).open(folder::journal(folder.path())).expect("a journal");
    file.write_all_at(b"x", FILE_HEAD as u64 + 3).expect("damaged");
    // It meets the damage when it is to write all anew.
    let garbage = Bytes::from(vec![7; SLACK as usize + 4096]);
    store.commit(put("b", garbage.clone()), false).expect("it is not mostly garbage yet");
    let error = store.commit(put("b", "2"), false).expect_err("it cannot be written anew");
    assert!(matches!(error, StoreError::Broken { .. }), "{error}");
    for error in [store.commit(put("c", "3"), true), store.sync()] {
        let error = error.expect_err("it takes nothing").to_string();
        assert!(error.contains("not opened anew"), "{error}");
    }
    assert!(!folder::next(folder.path()).exists(), "what was begun is removed");
}

#[test]
fn it_does_not_go_on_with_a_file_that_was_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut store, _) = Store::open(folder.path()).expect("a store");
    store.commit(put("a", "1"), true).expect("committed");
    fs::remove_file(folder::journal(folder.path())).expect("removed");
    let error =
        store.commit(put("b", "2"), true).expect_err("nothing would have it after a crash").to_string();
    assert!(error.contains("somebody has removed it"), "{error}");
    drop(store);
    let (mut store, _) = Store::open(folder.path()).expect("another");
    store.commit(put("b", "2"), true).expect("committed");
}

/// What is done to a store, and to a model of it.
#[derive(Clone, Debug)]
enum Step {
    Commit {
        puts: Vec<(u8, Vec<u8>)>,
        removes: Vec<u8>,
        conflicts: Vec<(u8, Vec<u8>)>,
        cleared: Vec<u8>,
        sync: bool,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let id = || 0..12_u8;
    let pairs = || prop::collection::vec((id(), bytes()), 0..5);
    let ids = || prop::collection::vec(id(), 0..3);
    let commit = (pairs(), ids(), pairs(), ids(), any::<bool>()).prop_map(
        |(puts, removes, conflicts, cleared, sync)| Step::Commit { puts, removes, conflicts, cleared, sync },
    );
    prop_oneof![8 => commit, 1 => Just(Step::Reopen)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn it_holds_what_a_map_would(mut steps in prop::collection::vec(step(), 1..30)) {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut store, _) = Store::open(folder.path()).expect("a store");
        let (mut records, mut conflicts) = (BTreeMap::new(), BTreeMap::new());
        steps.push(Step::Reopen);
        for step in steps {
            match step {
                Step::Commit { puts, removes, conflicts: added, cleared, sync } => {
                    records.extend(puts.iter().cloned());
                    conflicts.extend(added.iter().cloned());
                    records.retain(|key, _| !removes.contains(key));
                    conflicts.retain(|id, _| !cleared.contains(id));
                    let batch = Batch {
                        puts: puts.into_iter().map(|(key, record)| ([key].into(), record.into())).collect(),
                        removes: removes.into_iter().map(|key| [key].into()).collect(),
                        conflicts: added.into_iter().map(|(id, entry)| (id.into(), entry.into())).collect(),
                        cleared: cleared.into_iter().map(u64::from).collect(),
                    };
                    store.commit(batch, sync).expect("committed");
                }
                Step::Reopen => {
                    drop(store);
                    let (again, loaded) = Store::open(folder.path()).expect("opened");
                    let found = loaded.records.into_iter().map(|(key, record)| (key[0], record.to_vec()));
                    prop_assert_eq!(found.collect::<BTreeMap<_, _>>(), records.clone());
                    let found = loaded.conflicts.into_iter().map(|(id, entry)| (id as u8, entry.to_vec()));
                    prop_assert_eq!(found.collect::<BTreeMap<_, _>>(), conflicts.clone());
                    store = again;
                }
            }
        }
    }
}
