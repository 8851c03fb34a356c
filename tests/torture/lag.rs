//! How long another sidecar serves what was before: one key, one who writes it, and one who reads it all the time
//! through another sidecar.
//!
//! Without faults and without other load, so what is measured is the way of an invalidation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::history::Micros;
use crate::support::{Conn, Nearside, Redis};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    Sidecar,
    Foreign,
}

/// For each of so many writes, how old it was when the last read that missed it was asked; 0 if none missed it.
pub fn measure(writer: Writer, writes: u64) -> Vec<Micros> {
    let redis = Redis::start();
    let (here, there) = (Nearside::start(redis.address()), Nearside::start(redis.address()));
    let mut conn = match writer {
        Writer::Sidecar => here.connect(),
        Writer::Foreign => redis.connect(),
    };
    conn.cmd("SET users/1 0");
    let (seen, stop, origin) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)), Instant::now());
    let reader = {
        let (seen, stop, conn) = (seen.clone(), stop.clone(), there.connect());
        std::thread::spawn(move || read(conn, &seen, &stop, origin))
    };
    let mut known = vec![0];
    for n in 1..=writes {
        conn.cmd(&format!("SET users/1 {n}"));
        known.push(origin.elapsed().as_micros() as Micros);
        let deadline = Instant::now() + Duration::from_secs(5);
        while seen.load(Relaxed) < n {
            assert!(Instant::now() < deadline, "write {n} is never seen");
            std::thread::sleep(Duration::from_micros(300));
        }
        // So that it is cached, and hit, when the next write comes.
        std::thread::sleep(Duration::from_micros(300 + n * 7919 % 1000));
    }
    stop.store(true, Relaxed);
    let last = reader.join().expect("the reader reads");
    assert!(there.stat("hits") > 10 * writes as i64, "the reads are hits");
    (1..=writes as usize).map(|n| last.get(n - 1).map_or(0, |asked| asked.saturating_sub(known[n]))).collect()
}

/// When each value was last read, by the moment at which that was asked.
fn read(mut conn: Conn, seen: &AtomicU64, stop: &AtomicBool, origin: Instant) -> Vec<Micros> {
    let mut last = vec![0];
    while !stop.load(Relaxed) {
        let asked = origin.elapsed().as_micros() as Micros;
        let value: usize = conn.value("users/1").and_then(|value| value.parse().ok()).expect("a number");
        assert!(value + 1 >= last.len(), "{value} after {}", last.len() - 1);
        last.resize(value + 1, asked);
        last[value] = asked;
        seen.store(value as u64, Relaxed);
    }
    last
}
