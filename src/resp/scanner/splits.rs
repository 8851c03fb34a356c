//! The property that the unit tests and the fuzzer share: how replies are cut into chunks changes nothing.
//!
//! The fuzz target includes this file, hence `super::`.

use super::{Kind, ReplyError, ReplyScanner, Scan};

/// What the scanner made of some bytes.
#[derive(Debug, Default, PartialEq)]
pub struct Scanned {
    /// Where each reply ends in all the bytes, and what it is.
    pub replies: Vec<(usize, Kind)>,
    /// What is known of the reply that has begun; `None` between replies.
    pub begun: Option<(Option<Kind>, usize)>,
    pub error: Option<ReplyError>,
}

/// Feeds `bytes` in chunks of `more()`, each seen once.
pub fn scanned(bytes: &[u8], mut more: impl FnMut() -> usize) -> Scanned {
    let mut scanner = ReplyScanner::new();
    let mut scanned = Scanned::default();
    let mut at = 0;
    while at < bytes.len() {
        let end = at.saturating_add(more().max(1)).min(bytes.len());
        while at < end {
            match scanner.scan(&bytes[at..end]) {
                Ok(Scan::Done { used, kind }) => {
                    assert!(used > 0 && at + used <= end && scanner.is_idle() && scanner.kind().is_none());
                    at += used;
                    scanned.replies.push((at, kind));
                }
                Ok(Scan::More) => {
                    assert!(!scanner.is_idle());
                    at = end;
                }
                Err(error) => {
                    scanned.error = Some(error);
                    return scanned;
                }
            }
        }
    }
    scanned.begun = (!scanner.is_idle()).then(|| (scanner.kind(), scanner.missing()));
    scanned
}

/// Panics if `bytes` are scanned differently whole, byte by byte, and in chunks drawn from `seed`.
pub fn same_however_cut(bytes: &[u8], mut seed: u64) -> Scanned {
    let whole = scanned(bytes, || usize::MAX);
    assert_eq!(scanned(bytes, || 1), whole);
    let pieces = scanned(bytes, || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1 + (seed >> 60) as usize
    });
    assert_eq!(pieces, whole);
    whole
}
