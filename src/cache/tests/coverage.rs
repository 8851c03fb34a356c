//! What stands, and since when it is proven.

use super::*;

#[test]
fn a_period_is_ended_by_its_own_slot_while_it_goes_on() {
    let coverages = Coverages::default();
    let (one, other) = (coverages.take().unwrap(), coverages.take().unwrap());
    let id = coverages.arm(&one, None, 1).unwrap();
    let beside = coverages.arm(&other, None, 1).unwrap();
    coverages.end_period(&other, id, 2);
    assert!(coverages.stands(id) && coverages.stands(beside));
    coverages.flush();
    coverages.end_period(&one, id, 2);
    assert_eq!(coverages.current(&one), None, "it was flushed, and went on");
    assert!(coverages.current(&other).is_some());
}

#[test]
fn the_oldest_proof_is_that_of_what_stands() {
    let coverages = Coverages::default();
    assert_eq!(coverages.oldest_watermark(), None);
    let slots: Vec<_> = (0..3).map(|_| coverages.take().unwrap()).collect();
    for (slot, proven) in slots.iter().zip([30, 20, 10]) {
        coverages.arm(slot, None, proven).unwrap();
        assert_eq!(coverages.oldest_watermark(), Some(proven));
    }
    coverages.end(&slots[2], 40);
    assert_eq!(coverages.oldest_watermark(), Some(20));
    slots.iter().for_each(|slot| coverages.end(slot, 40));
    assert_eq!(coverages.oldest_watermark(), None);
}

#[test]
fn tracked_links_are_counted_while_they_stand() {
    let coverages = Coverages::default();
    let slots: Vec<_> = (0..5).map(|_| coverages.take().unwrap()).collect();
    let feed = coverages.arm(&slots[0], None, 1).unwrap();
    assert_eq!(coverages.children(), 0, "the feed is none");
    for (i, link) in slots[1..].iter().enumerate() {
        coverages.arm(link, Some(feed), 1).unwrap();
        assert_eq!(coverages.children(), i + 1);
    }
    coverages.end(&slots[1], 2);
    assert_eq!(coverages.children(), 3);
    coverages.end(&slots[0], 2);
    assert_eq!(coverages.children(), 0);
}

#[test]
fn what_a_slot_has_heard_is_told_without_its_parent() {
    let coverages = Coverages::default();
    let (feed, link) = (coverages.take().unwrap(), coverages.take().unwrap());
    let parent = coverages.arm(&feed, None, 5).unwrap();
    let child = coverages.arm(&link, Some(parent), 7).unwrap();
    assert_eq!((coverages.heard_by(&feed), coverages.heard_by(&link)), (5, 7));
    assert_eq!(coverages.heard(child), 5);
}
