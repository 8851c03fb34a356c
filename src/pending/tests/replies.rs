//! What becomes of replies to reads, and of reads that are lost.

use super::*;
use crate::cache::EntryKeyBuf;
use crate::command::Fields;
use crate::upstream::{ConnectError, Loss};

/// With an entry `k` whose proof is older than any bound, and a slot for coverages.
fn with_stale(stale_if_error: bool) -> (LinkHandler, CoverageSlot) {
    let process =
        fixture::process_with(fixture::nowhere(), |settings| settings.stale_if_error = stale_if_error);
    let (link, _above) = link(&process);
    let slot = process.cache.coverages().take().unwrap();
    keep(&link, &slot, b"k");
    (link, slot)
}

fn lose(link: &LinkHandler, pending: Pending) {
    let loss = Loss { sent: true, cause: ConnectError::Io("gone".into()) };
    link.lost(InFlight { since: 1, pending }, &loss);
}

fn bypass(link: &LinkHandler, to: ReplySlot, key: Option<&[u8]>) -> Pending {
    let instead = key.map(|key| EntryKeyBuf::new(&name(&link.process, key)));
    Pending::Bypass(to, Box::new(Bypass { keys: Default::default(), instead }))
}

#[test]
fn a_read_that_is_lost_with_its_link_is_served_from_the_cache_only_where_that_is_asked_for() {
    for stale_if_error in [true, false] {
        let (link, _slot) = with_stale(stale_if_error);
        let queue = Rc::new(ReplyQueue::new(1000));
        lose(&link, bypass(&link, slot(&queue), Some(b"k")));
        let said = queue.said();
        assert_eq!(said == "$1\r\nv\r\n", stale_if_error, "{said}");
        assert!(stale_if_error || said.starts_with("-ERR nearside: upstream"), "{said}");
        for key in [None, Some(&b"unknown"[..])] {
            lose(&link, bypass(&link, slot(&queue), key));
            assert!(queue.said().starts_with("-ERR nearside: upstream"));
        }
        assert_eq!(link.process.metrics.upstream_lost.get(), 2 + u64::from(!stale_if_error));
    }
}

#[test]
fn a_fill_that_is_lost_is_served_what_it_was_to_replace() {
    let (link, coverage) = with_stale(true);
    // It is read anew, for it is not proven fresh enough.
    while link.process.now() < 10 {}
    let lease = lease_within(&link, &coverage, b"k", Bounds { max_staleness: 1, ..EVER });
    let queue = Rc::new(ReplyQueue::new(1000));
    let fill = Fill::new(&link.process, Some(slot(&queue)), lease, Fields::None);
    lose(&link, Pending::Fill(Box::new(fill)));
    assert_eq!(queue.said(), "$1\r\nv\r\n");
}

#[test]
fn nothing_is_served_behind_a_part_of_a_reply() {
    let (link, _slot) = with_stale(true);
    let queue = Rc::new(ReplyQueue::new(1000));
    let to = slot(&queue);
    to.piece(bytes::Bytes::from_static(b"$9\r\nbeg"), false);
    lose(&link, bypass(&link, to, Some(b"k")));
    assert_eq!(queue.said(), "$9\r\nbeg");
}

#[test]
fn a_reply_proves_what_the_upstream_had_sent_before_its_request() {
    let (link, _above) = a_link();
    let process = link.process.clone();
    let coverages = process.cache.coverages();
    let covered = coverages.arm(link.coverage.borrow().as_ref().unwrap(), None, 1).unwrap();
    let own = process.cache.coverages().take().unwrap();
    let queue = Rc::new(ReplyQueue::new(1000));
    let fill = Fill::new(&process, Some(slot(&queue)), lease(&link, &own, b"k"), Fields::None);
    while process.now() < 10 {}
    let pending = answer(&link, Pending::Fill(Box::new(fill)), b"$1\r\nv\r\n").unwrap();
    assert_eq!(coverages.watermark(covered), 1, "more is to come");
    assert!(answer(&link, pending, b":-1\r\n").is_none());
    assert!(coverages.watermark(covered) >= 10);
    assert!(is_kept(&process, b"k") && queue.said() == "$1\r\nv\r\n");
}
