//! What is counted apart of keys that begin alike.

use proptest::prelude::*;

use super::*;

fn grouped(max_bytes: usize) -> Fixture {
    let prefixes = [&b"users/"[..], b"items:"];
    Fixture::of(Cache::of_groups(max_bytes, max_bytes / 4, 10 * SECOND, prefixes))
}

/// As who looks up knows it.
fn group(key: &[u8]) -> usize {
    [&b"users/"[..], b"items:"].iter().position(|prefix| key.starts_with(prefix)).map_or(0, |i| i + 1)
}

fn look(f: &Fixture, key: &[u8]) -> (Lookup<Told>, Option<Vec<u8>>) {
    f.lookup_in(key, Bounds { max_staleness: SECOND, unreachable: false, group: group(key) })
}

fn fill(f: &Fixture, key: &[u8], value: &[u8]) {
    let Lookup::Miss(lease) = look(f, key).0 else { panic!("no lease") };
    lease.fill(value, FOREVER, f.now, SECOND).unwrap();
}

#[test]
fn each_group_has_its_own_counts_and_all_come_to_the_whole() {
    let f = grouped(1 << 20);
    for (key, hits) in [(&b"users/1"[..], 3), (b"users/2", 0), (b"items:1", 1), (b"users", 2)] {
        fill(&f, key, b"value");
        (0..hits).for_each(|_| assert!(look(&f, key).1.is_some()));
    }
    let stats = f.cache.stats();
    let counts: Vec<_> = stats.groups.iter().map(|group| (group.hits, group.misses)).collect();
    assert_eq!(counts, [(2, 1), (3, 2), (1, 1)]);
    assert_eq!((stats.hits, stats.misses), (6, 4));
    assert_eq!(stats.groups.iter().map(|group| group.bytes).sum::<u64>(), stats.bytes);
    f.cache.invalidate(b"users/1", Reason::Update, f.now);
    f.cache.invalidate(b"users/2", Reason::Update, f.now);
    let bytes: Vec<_> = f.cache.stats().groups.iter().map(|group| group.bytes).collect();
    assert!(bytes[0] > 0 && bytes[1] == 0 && bytes[2] > 0, "{bytes:?}");
}

#[test]
fn a_group_that_there_is_not_is_the_first() {
    let f = Fixture::new(1 << 20);
    fill(&f, b"users/1", b"value");
    assert!(look(&f, b"users/1").1.is_some());
    let stats = f.cache.stats();
    assert_eq!(stats.groups, [GroupStats { hits: 1, misses: 1, bytes: stats.bytes }]);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Fill,
    Change,
    Void,
}

proptest! {
    /// However entries go (one by one, for memory, many at once), what their group took is given back.
    #[test]
    fn the_bytes_of_the_groups_are_those_of_their_entries(
        steps in prop::collection::vec(
            (prop::sample::select(vec![Step::Fill, Step::Fill, Step::Change, Step::Void]), 0..3u8, 0..9u8, 0..3000usize),
            1..200,
        )
    ) {
        let f = grouped(16 << 10);
        for (step, begins, key, len) in steps {
            let begins = ["users/", "items:", "other/"][usize::from(begins)];
            let key = [begins.as_bytes(), &[key]].concat();
            match step {
                Step::Fill => {
                    if let Lookup::Miss(lease) = look(&f, &key).0 {
                        lease.fill(&vec![b'x'; len], FOREVER, f.now, SECOND).unwrap();
                    }
                }
                Step::Change => f.cache.invalidate(&key, Reason::Update, f.now),
                Step::Void => f.cache.void_keys(Reason::SlotMoved, f.now, &|key| group(key) == 1),
            }
            let mut cached = [0; 3];
            for shard in &f.cache.shards {
                let shard = shard.lock();
                for entry in shard.store.iter_from(0) {
                    cached[group(entry.key())] += super::super::store::cost(&entry) as u64;
                }
            }
            let bytes: Vec<_> = f.cache.stats().groups.iter().map(|group| group.bytes).collect();
            prop_assert_eq!(&bytes[..], &cached);
        }
    }
}
