//! Keys that are void all at once, while others come and go.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn is_doomed(key: &[u8]) -> bool {
    key.starts_with(b"doomed")
}

impl Fixture {
    fn void(&self) {
        self.cache.void_keys(Reason::SlotMoved, self.now, &is_doomed);
    }

    fn left(&self) -> usize {
        self.cache.keys(usize::MAX, self.now, |key, _| is_doomed(key)).len()
    }
}

#[test]
fn those_keys_go_and_no_others() {
    let f = Fixture::new(16 << 20);
    for i in 0..20_000 {
        f.fill(format!("doomed{i}").as_bytes(), b"$-1\r\n");
        f.fill(format!("other{i}").as_bytes(), b"v");
    }
    f.void();
    let stats = f.cache.stats();
    assert_eq!((f.left(), stats.entries), (0, 20_000));
    assert_eq!(stats.reasons[Reason::SlotMoved as usize], 20_000);
    assert_eq!(f.cache.describe(b"doomed19999", f.now).replies.len(), 0);
    assert!((0..20_000).all(|i| f.hit(format!("other{i}").as_bytes()).is_some()));
    f.cache.void_keys(Reason::SlotMoved, f.now, &|_| true);
    assert_eq!((f.cache.stats().entries, f.cache.stats().bytes), (0, 0));
}

#[test]
fn what_is_being_fetched_of_them_is_not_kept_and_whoever_waits_looks_anew() {
    let f = Fixture::new(1 << 20);
    let (doomed, other) = (f.lease(b"doomed"), f.lease(b"other"));
    assert_eq!([kind(&f.lookup(b"doomed").0), kind(&f.lookup(b"other").0)], ["joined", "joined"]);
    f.void();
    assert_eq!(*f.told.0.lock(), [None], "released");
    assert_eq!(doomed.fill(b"old", FOREVER, f.now, SECOND), Err(Reason::Voided));
    other.fill(b"v", FOREVER, f.now, SECOND).unwrap();
    // What is leased afterwards is another's affair.
    f.fill(b"doomed", b"new");
    assert_eq!(f.hit(b"doomed").as_deref(), Some(&b"new"[..]));
}

#[test]
fn a_flight_that_is_deaf_to_echoes_is_void_too() {
    let f = Fixture::new(1 << 20);
    f.cache.expect_echo(b"doomed", LINK);
    let lease = f.lease(b"doomed");
    f.void();
    f.cache.heard(b"doomed", Reason::Update, f.now);
    assert_eq!(lease.fill(b"old", FOREVER, f.now, SECOND), Err(Reason::Voided));
}

#[test]
fn echoes_that_are_not_awaited_any_more_leave_nobody_deaf() {
    let f = Fixture::new(1 << 20);
    for key in [&b"doomed"[..], b"other"] {
        f.cache.expect_echo(key, LINK);
    }
    f.cache.forget_echoes_of(&is_doomed);
    for (key, kept) in [(&b"doomed"[..], false), (b"other", true)] {
        f.fill(key, b"v");
        f.cache.heard(key, Reason::Update, f.now);
        assert_eq!(f.hit(key).is_some(), kept);
    }
}

/// Entries that go leave their places to others, and those that come stand behind: neither hides one that is to go.
#[test]
fn none_is_missed_while_others_come_and_go() {
    for round in 0..5 {
        let f = Fixture::new(64 << 20);
        for i in 0..20_000 {
            let key = if i % 2 == 0 { format!("doomed{i}") } else { format!("other{i}") };
            f.fill(key.as_bytes(), b"v");
        }
        let (f, over) = (&f, AtomicBool::new(false));
        let over = &over;
        std::thread::scope(|scope| {
            for half in 0..2 {
                scope.spawn(move || {
                    for i in (1 + 2 * half..20_000).step_by(4) {
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                        // From both ends, now and then with a new one.
                        let i = if half == 0 { i } else { 20_000 - i };
                        f.cache.invalidate(format!("other{i}").as_bytes(), Reason::Update, f.now);
                        if i % 3 == 0 {
                            // Its stripe may be another's too.
                            let new = f.lease(format!("new{round}/{i}").as_bytes());
                            let _ = new.fill(b"v", FOREVER, f.now, SECOND);
                        }
                    }
                });
            }
            f.void();
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(f.left(), 0, "round {round}");
    }
}
