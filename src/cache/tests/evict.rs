//! Who has to go when memory is needed.

use super::*;

/// Keys of one shard.
fn of_shard(f: &Fixture, shard: usize, many: usize) -> Vec<[u8; 4]> {
    (0u32..).map(u32::to_le_bytes).filter(|key| f.cache.place(key).shard == shard).take(many).collect()
}

const BUDGET: usize = 64 << 10;

#[test]
fn a_shard_that_has_less_than_its_share_is_spared() {
    let f = Fixture::new(4 * BUDGET);
    let (small, large) = (of_shard(&f, 40, 4), of_shard(&f, 3, 300));
    small[..3].iter().for_each(|key| f.fill(key, &[b'x'; 100]));
    large.iter().for_each(|key| f.fill(key, &[b'x'; 1000]));
    let before = f.cache.stats().entries;
    f.fill(&small[3], &[b'x'; 1000]);
    assert!(f.cache.stats().entries <= before, "there was no room");
    assert!(small.iter().all(|key| f.hit(key).is_some()));
    assert!(f.hit(&large[299]).is_some() && f.hit(&large[0]).is_none());
}

#[test]
fn the_shard_that_grew_is_the_first_to_give_way() {
    let f = Fixture::new(BUDGET);
    let (others, grown) = (of_shard(&f, 0, 25), of_shard(&f, 40, 60));
    others.iter().for_each(|key| f.fill(key, &[b'x'; 1000]));
    grown.iter().for_each(|key| f.fill(key, &[b'x'; 1000]));
    assert!(others.iter().all(|key| f.hit(key).is_some()));
    assert!(f.hit(&grown[59]).is_some() && f.hit(&grown[0]).is_none());
}

#[test]
fn the_newest_is_the_last_to_go_however_large() {
    let f = Fixture::new(BUDGET);
    for shard in [0, 17, 40] {
        of_shard(&f, shard, 30).iter().for_each(|key| f.fill(key, &[b'x'; 1000]));
        let [_, large] = of_shard(&f, shard + 1, 2)[..] else { panic!() };
        f.fill(&large, &[b'x'; BUDGET / 4]);
        assert!(f.hit(&large).is_some());
        assert!(f.cache.stats().bytes as usize <= BUDGET);
    }
}

#[test]
fn a_budget_that_is_just_full_is_kept_whole() {
    let f = Fixture::new(10 * (64 + 8 + 16));
    (0..10u8).for_each(|key| f.fill(&[key], b"v"));
    assert!((0..10u8).all(|key| f.hit(&[key]).is_some()));
    f.fill(&[10], b"v");
    assert_eq!(f.cache.stats().entries, 10);
}

#[test]
fn what_is_swept_is_counted_by_what_it_died_of() {
    let mut f = Fixture::new(1 << 20);
    let ends = |aged| Expiry { expires: 2 * SECOND, aged };
    f.lease(b"aged").fill(b"v", ends(true), f.now, SECOND).unwrap();
    f.lease(b"expired").fill(b"v", ends(false), f.now, SECOND).unwrap();
    f.fill(b"stays", b"v");
    f.now = 2 * SECOND;
    while f.cache.sweep(1, f.now) > 0 {}
    let count = |reason: Reason| f.cache.stats().reasons[reason as usize];
    let counts = [Reason::Aged, Reason::Expired, Reason::CoverageEnded].map(count);
    assert_eq!(counts, [1, 1, 0]);
    assert_eq!(f.cache.describe(b"aged", f.now).last_change, Some((Reason::Aged, 0)));
}
