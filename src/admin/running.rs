//! What runs, and what it takes of the machine: names and meanings are those of Prometheus' own client libraries.
//!
//! Everything is read when somebody asks. What cannot be read (no Linux, no `/proc`, no file descriptor left) is not told.

use prometheus_client::registry::Unit;

use super::metric::{Metric, Value, bytes, gauge};

/// The metrics that have no prefix begin so.
pub(super) const PROCESS: &str = "process";

pub(super) fn build() -> Metric {
    Metric {
        name: "build_info",
        help: "1, with what runs as labels",
        unit: None,
        value: Value::Info(vec![("version", env!("CARGO_PKG_VERSION")), ("rustc", env!("NEARSIDE_RUSTC"))]),
    }
}

/// Their names are without the prefix.
#[cfg(not(target_os = "linux"))]
pub(super) fn process() -> Vec<Metric> {
    Vec::new()
}

/// Their names are without the prefix.
#[cfg(target_os = "linux")]
pub(super) fn process() -> Vec<Metric> {
    let seconds = |name, help, value| Metric { name, help, unit: Some(Unit::Seconds), value };
    let (memory, descriptors) =
        (linux::memory(), rustix::process::getrlimit(rustix::process::Resource::Nofile));
    [
        linux::cpu().map(|cpu| {
            seconds("cpu", "Processor time of all threads, of the system for them too", Value::Sum(cpu))
        }),
        memory.map(|(resident, _)| bytes("resident_memory", "Memory that is resident", resident)),
        memory.map(|(_, virtual_)| bytes("virtual_memory", "Address space that is in use", virtual_)),
        linux::open_fds().map(|open| gauge("open_fds", "File descriptors that are open", open as f64)),
        // Without a limit there is no greatest number.
        descriptors.current.map(|most| gauge("max_fds", "File descriptors that may be open", most as f64)),
        linux::started()
            .map(|at| seconds("start_time", "When the process began, since 1970", Value::Gauge(at))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;

    use rustix::param::{clock_ticks_per_second, page_size};
    use rustix::time::{ClockId, clock_gettime};

    /// In seconds.
    pub(super) fn cpu() -> Option<f64> {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        Some(used.tv_sec as f64 + used.tv_nsec as f64 / 1e9)
    }

    /// Resident, and the address space, in bytes.
    pub(super) fn memory() -> Option<(f64, f64)> {
        pages(&fs::read_to_string("/proc/self/statm").ok()?)
            .map(|(resident, all)| ((resident * page_size()) as f64, (all * page_size()) as f64))
    }

    /// Resident pages and all, of what `/proc/self/statm` says.
    fn pages(statm: &str) -> Option<(usize, usize)> {
        let mut words = statm.split_ascii_whitespace().map(str::parse);
        let all = words.next()?.ok()?;
        Some((words.next()?.ok()?, all))
    }

    pub(super) fn open_fds() -> Option<usize> {
        // Linux since 6.2 says it without having to be read, which takes a descriptor, and with ten thousand clients a while.
        let told = fs::metadata("/proc/self/fd").ok()?.len() as usize;
        match told {
            // One of them is that by which it is read.
            0 => Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1)),
            _ => Some(told),
        }
    }

    /// In seconds since 1970.
    pub(super) fn started() -> Option<f64> {
        let ticks = start_ticks(&fs::read_to_string("/proc/self/stat").ok()?)?;
        let booted = boot_time(&fs::read_to_string("/proc/stat").ok()?)?;
        Some(booted as f64 + ticks as f64 / clock_ticks_per_second() as f64)
    }

    /// Clock ticks from the system's start to the process', of what `/proc/self/stat` says. In its second field, the program's
    /// name, may stand anything.
    fn start_ticks(stat: &str) -> Option<u64> {
        let (_, behind) = stat.rsplit_once(')')?;
        behind.split_ascii_whitespace().nth(19)?.parse().ok()
    }

    /// When the system began, of what `/proc/stat` says.
    fn boot_time(stat: &str) -> Option<u64> {
        stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
    }

    #[cfg(test)]
    mod tests {
        use std::time::{Duration, SystemTime, UNIX_EPOCH};

        use super::*;

        #[test]
        fn what_the_system_tells_is_understood() {
            assert_eq!(pages("12345 678 90 1 0 2 0\n"), Some((678, 12345)));
            let stat = "7 (a) b) S 1 7 7 0 -1 4194304 5 6 7 8 9 10 11 12 20 0 3 0 4711 99 100 18446744073709551615\n";
            assert_eq!(start_ticks(stat), Some(4711));
            assert_eq!(
                boot_time("cpu  1 2\nintr 5\nctxt 6\nbtime 1700000000\nprocesses 3\n"),
                Some(1_700_000_000)
            );
            assert_eq!((pages("x"), start_ticks("1 (a"), boot_time("cpu 1")), (None, None, None));
        }

        #[test]
        fn this_process_is_told_of_as_it_is() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let started = Duration::from_secs_f64(started().unwrap());
            // The clock may have been set since the system began, by little.
            assert!(started < now + Duration::from_secs(60), "{started:?}, and it is {now:?}");
            let (resident, all) = memory().unwrap();
            assert!(1e5 < resident && resident < all, "{resident} of {all}");
            assert!(cpu().unwrap() > 0.0);
            let before = open_fds().unwrap();
            let _file = fs::File::open("/dev/null").unwrap();
            assert!(before > 2 && open_fds().unwrap() > 2);
        }
    }
}
