//! Places at which tests let the process die, to see that nothing is lost there. In release builds there are none.

/// Dies here, as by `kill -9`, if the environment's `NEARSIDE_CRASH` names this place, as `PLACE:n` when it comes here the nth time.
#[cfg(debug_assertions)]
pub(super) fn crash(place: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static WHERE: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static TIMES: AtomicU64 = AtomicU64::new(0);
    let place_and_time = || {
        let said = std::env::var("NEARSIDE_CRASH").ok()?;
        let (place, time) = said.split_once(':').unwrap_or((&said, "1"));
        Some((place.to_owned(), time.parse().ok()?))
    };
    let Some((named, time)) = WHERE.get_or_init(place_and_time) else { return };
    if named == place && TIMES.fetch_add(1, Ordering::Relaxed) + 1 == *time {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub(super) fn crash(_: &str) {}
