//! The kinds of value that a setting can have: how each is read, what is refused, how it is shown.
//!
//! What `show` gives is TOML, and `parse` takes its unquoted text back to the same value. A refusal is one
//! sentence that holds the value and what is allowed.

use std::{num::NonZeroUsize, path::PathBuf, thread::available_parallelism, time::Duration};

use bytesize::ByteSize;
use tracing_subscriber::EnvFilter;

use super::address::{HostPort, Listen, Secret, Upstream};
use super::address_map::Mapped;
use super::choice::{Auth, CrossSlot, LogFormat, PresentAs, TokenFor, Writes, parse_choice, show_choice};
use super::collector::Collector;
use super::text::{did_you_mean, quoted};
use crate::namespace::{Ack, OnConflict, OnUpdate, Tracking, TrackingForm};

/// How a value of type `T` is read from text and shown. Lists are read comma-separated.
pub(super) struct Kind<T> {
    /// What stands for the value in `--help`.
    pub metavar: &'static str,
    pub parse: fn(&str) -> Result<T, String>,
    pub show: fn(&T) -> String,
}

/// A number of bytes.
pub(super) const SIZE: Kind<usize> = Kind { metavar: "SIZE", parse: parse_size, show: show_size };

/// A number of bytes with which something must be possible at all; 0 may have a meaning of its own.
const LEAST: usize = 64 << 10;

fn parse_room(text: &str) -> Result<usize, String> {
    match parse_size(text)? {
        small @ 1..LEAST => Err(format!(
            "{text:?} is {small} bytes, and {} is the least; a number alone counts bytes: write {small}mb for megabytes",
            ByteSize(LEAST as u64)
        )),
        size => Ok(size),
    }
}

/// Memory for the cache; 0 keeps nothing.
pub(super) const MEMORY: Kind<usize> = Kind { parse: parse_room, ..SIZE };

/// Room for requests or replies.
pub(super) const ROOM: Kind<usize> = Kind {
    parse: |text| match parse_room(text)? {
        0 => Err(format!("{text:?} leaves no room at all; write a size such as 64mb")),
        size => Ok(size),
    },
    ..SIZE
};

/// Bytes at which what waits is flushed at once.
pub(super) const FLUSH_BYTES: Kind<u64> = Kind {
    metavar: "SIZE",
    parse: |text| match parse_size(text)? {
        0 => Err(format!(
            "{text:?} is none at all; write a size such as 8mb, or 1 to flush each write at once"
        )),
        size => Ok(size as u64),
    },
    show: |size| show_size(&(*size as usize)),
};

/// The bytes of a journal.
pub(super) const JOURNAL_MAX: Kind<u64> = Kind {
    parse: |text| match parse_size(text)? {
        small @ ..LEAST_JOURNAL => Err(format!(
            "{text:?} is {small} bytes, and {} is the least: each write that waits takes some hundred bytes beside its own; \
             write a size such as 256mb",
            show_size(&LEAST_JOURNAL).trim_matches('"')
        )),
        size => Ok(size as u64),
    },
    ..FLUSH_BYTES
};

const LEAST_JOURNAL: usize = 4 << 10;

/// What owner, group and others may do, in octal.
pub(super) const MODE: Kind<u32> = Kind {
    metavar: "OCTAL",
    parse: |text| match u32::from_str_radix(text, 8) {
        Ok(mode @ 1..=0o777) => Ok(mode),
        _ => Err(format!("{text:?} is no mode; write octal digits such as 700 or 770")),
    },
    show: |mode| quoted(&format!("{mode:o}")),
};

/// A word, or nothing.
pub(super) const WORD: Kind<Option<String>> = Kind {
    metavar: "NAME",
    parse: |text| Ok(Some(text.to_owned()).filter(|_| !text.is_empty())),
    show: |word| quoted(word.as_deref().unwrap_or_default()),
};

/// A group, by name or number, or nothing.
pub(super) const GROUP: Kind<Option<String>> = Kind { metavar: "GROUP", ..WORD };

/// What must not be shown, or nothing.
pub(super) const SECRET: Kind<Option<Secret>> = Kind {
    metavar: "PASSWORD",
    parse: |text| Ok(Some(Secret::new(text)).filter(|_| !text.is_empty())),
    show: |secret| quoted(&secret.as_ref().map_or(String::new(), Secret::to_string)),
};

/// A host's name, or nothing.
pub(super) const HOST: Kind<Option<String>> = Kind { metavar: "NAME", ..GROUP };

/// A span of time.
pub(super) const TIME: Kind<Duration> = Kind { metavar: "TIME", parse: parse_time, show: show_time };

/// A span of time in which something must be possible at all.
pub(super) const TIME_ABOVE_ZERO: Kind<Duration> = Kind {
    parse: |text| match parse_time(text)? {
        Duration::ZERO => Err(format!("{text:?} is too short; write a time above 0")),
        time => Ok(time),
    },
    ..TIME
};

/// How long a write may wait to be flushed.
pub(super) const FLUSH_AFTER: Kind<Duration> = Kind {
    parse: |text| match parse_time(text)? {
        short if short < Duration::from_millis(1) => Err(format!(
            "{text:?} is too short; 1ms is the least; for no wait at all leave write = \"through\""
        )),
        time => Ok(time),
    },
    ..TIME
};

/// A span of time, where 0 stands for no limit, which is `None`.
pub(super) const TIME_OR_FOREVER: Kind<Option<Duration>> = Kind {
    metavar: "TIME",
    parse: |text| parse_time(text).map(|time| Some(time).filter(|time| !time.is_zero())),
    show: |time| show_time(&time.unwrap_or_default()),
};

/// A span of time above 0, or `None` for off.
pub(super) const TIME_OR_OFF: Kind<Option<Duration>> = Kind {
    metavar: "TIME|off",
    parse: |text| match text {
        "off" => Ok(None),
        _ => (TIME_ABOVE_ZERO.parse)(text).map(Some).map_err(|why| format!("{why}, or off")),
    },
    show: |time| time.as_ref().map_or(quoted("off"), show_time),
};

/// How many of something there may be; at least one.
pub(super) const COUNT: Kind<usize> = Kind {
    metavar: "N",
    parse: |text| match text.parse::<NonZeroUsize>() {
        Ok(count) => Ok(count.get()),
        Err(_) => Err(format!("{text:?} is not a whole number from 1 up")),
    },
    show: usize::to_string,
};

/// Workers beyond this only cost upstream connections.
const MOST_WORKERS: usize = 256;
const MOST_WORKERS_BY_ITSELF: usize = 4;

/// A number of worker threads; `auto` is turned into a number at once.
pub(super) const WORKERS: Kind<usize> = Kind {
    metavar: "N|auto",
    parse: |text| match text.parse() {
        Ok(count) if (1..=MOST_WORKERS).contains(&count) => Ok(count),
        _ if text == "auto" => Ok(available_parallelism().map_or(1, usize::from).min(MOST_WORKERS_BY_ITSELF)),
        _ => Err(format!("{text:?} is neither a whole number from 1 to {MOST_WORKERS} nor auto")),
    },
    show: usize::to_string,
};

pub(super) const LISTEN: Kind<Vec<Listen>> = Kind {
    metavar: "ADDR|tls://ADDR|unix:PATH",
    parse: |text| match parse_list(text, Listen::parse) {
        Ok(list) if list.is_empty() => Err("at least one address is needed".to_owned()),
        list => list,
    },
    show: |list| {
        let list: Vec<_> = list.iter().map(|listen| quoted(&listen.to_string())).collect();
        format!("[{}]", list.join(", "))
    },
};

pub(super) const ADDRESS_MAP: Kind<Vec<Mapped>> = Kind {
    metavar: "ADDR=ADDR",
    parse: |text| parse_list(text, Mapped::parse),
    show: |list| {
        let list: Vec<_> = list.iter().map(|mapped| quoted(&mapped.to_string())).collect();
        format!("[{}]", list.join(", "))
    },
};

pub(super) const UPSTREAM: Kind<Upstream> =
    Kind { metavar: "URL", parse: Upstream::parse, show: |upstream| quoted(&upstream.to_string()) };

/// Addresses without TLS, or none.
pub(super) const ADMIN: Kind<Vec<Listen>> = Kind {
    metavar: "ADDR|unix:PATH|off",
    parse: |text| match text {
        "off" => Ok(Vec::new()),
        _ => parse_list(text, parse_admin),
    },
    show: |list| if list.is_empty() { quoted("off") } else { (LISTEN.show)(list) },
};

fn parse_admin(text: &str) -> Result<Listen, String> {
    match text.starts_with('/') || text.starts_with("unix:") {
        true => Listen::parse(text),
        false => HostPort::parse(text)
            .map(Listen::Tcp)
            .map_err(|why| format!("{why}; write HOST:PORT, unix:PATH or off")),
    }
}

/// Names of hosts, in small letters, or `*` for any.
pub(super) const HOSTS: Kind<Vec<String>> = Kind {
    metavar: "HOST",
    parse: |text| {
        parse_list(text, |name| {
            let is_name =
                !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
            match name == "*" || is_name {
                true => Ok(name.to_ascii_lowercase()),
                false => Err(format!("{name:?} is no host's name; write it without a port, or * for any")),
            }
        })
    },
    show: |names| format!("[{}]", names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")),
};

/// The base URL of a collector, or none.
pub(super) const COLLECTOR: Kind<Option<Collector>> = Kind {
    metavar: "URL|off",
    parse: |text| match text {
        "off" => Ok(None),
        _ => Collector::parse(text).map(Some).map_err(|why| format!("{why}, or off")),
    },
    show: |collector| quoted(&collector.as_ref().map_or("off".to_owned(), Collector::to_string)),
};

/// A part of a whole.
pub(super) const RATIO: Kind<f64> = Kind {
    metavar: "RATIO",
    parse: |text| match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err(format!("{text:?} is no part of a whole; write a number from 0 to 1, such as 0.001")),
    },
    show: f64::to_string,
};

/// The path of a file, or nothing.
pub(super) const FILE: Kind<Option<PathBuf>> = Kind {
    metavar: "FILE",
    parse: |text| Ok(Some(PathBuf::from(text)).filter(|_| !text.is_empty())),
    show: |path| quoted(&path.as_ref().map_or(String::new(), |path| path.display().to_string())),
};

/// The path of a folder, or nothing.
pub(super) const FOLDER: Kind<Option<PathBuf>> = Kind { metavar: "FOLDER", ..FILE };

/// A program with its arguments, or nothing. What it is may tell a secret, so it is not shown.
pub(super) const PROGRAM: Kind<Option<Vec<String>>> = Kind {
    metavar: "COMMAND",
    parse: |text| match shlex::split(text) {
        Some(words) => Ok(Some(words).filter(|words| !words.is_empty())),
        None => Err("the command has a quote that is not closed".to_owned()),
    },
    show: |words| quoted(if words.is_some() { "***" } else { "" }),
};

pub(super) const AUTH: Kind<Auth> =
    Kind { metavar: "upstream|password", parse: parse_choice, show: show_choice };
pub(super) const TOKEN_FOR: Kind<TokenFor> =
    Kind { metavar: "all|pages", parse: parse_choice, show: show_choice };
pub(super) const CROSS_SLOT: Kind<CrossSlot> =
    Kind { metavar: "split|refuse", parse: parse_choice, show: show_choice };
pub(super) const PRESENT_AS: Kind<PresentAs> =
    Kind { metavar: "standalone|cluster", parse: parse_choice, show: show_choice };
pub(super) const TRACKING: Kind<Tracking> =
    Kind { metavar: "keys|prefix|off", parse: parse_choice, show: show_choice };
pub(super) const TRACKING_FORM: Kind<TrackingForm> =
    Kind { metavar: "auto|redirect|register|broadcast|off", parse: parse_choice, show: show_choice };
pub(super) const ON_UPDATE: Kind<OnUpdate> =
    Kind { metavar: "invalidate|refresh", parse: parse_choice, show: show_choice };
pub(super) const WRITES: Kind<Writes> =
    Kind { metavar: "through|back", parse: parse_choice, show: show_choice };
pub(super) const ACK: Kind<Ack> = Kind { metavar: "disk|memory", parse: parse_choice, show: show_choice };
pub(super) const ON_CONFLICT: Kind<OnConflict> =
    Kind { metavar: "keep-remote|keep-local|newest", parse: parse_choice, show: show_choice };
pub(super) const SWITCH: Kind<bool> = Kind {
    metavar: "true|false",
    parse: parse_choice,
    // Bare, as the file has it.
    show: bool::to_string,
};

/// A rate, kept as the time from one to the next.
pub(super) const RATE_OR_OFF: Kind<Option<Duration>> = Kind {
    metavar: "N/s|N/m|off",
    parse: |text| {
        if text == "off" {
            return Ok(None);
        }
        let wrong = || format!("{text:?} is neither a rate such as 1/s or 10/m nor off");
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let unit = match unit {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            _ => return Err(wrong()),
        };
        match count.parse() {
            Ok(count @ 1..=1000) => Ok(Some(unit / count)),
            _ => Err(format!("{}; the number is from 1 to 1000", wrong())),
        }
    },
    show: |pause| {
        quoted(&pause.map_or("off".to_owned(), |pause| {
            let per = |unit: Duration| (unit.as_secs_f64() / pause.as_secs_f64()).round() as u32;
            match pause <= Duration::from_secs(1) {
                true => format!("{}/s", per(Duration::from_secs(1))),
                false => format!("{}/m", per(Duration::from_secs(60))),
            }
        }))
    },
};

/// What can be on or off.
pub(super) const ON_OR_OFF: Kind<bool> = Kind {
    metavar: "on|off",
    parse: |text| match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{text:?} is not on or off")),
    },
    show: |on| quoted(if *on { "on" } else { "off" }),
};
pub(super) const LOG_FORMAT: Kind<LogFormat> =
    Kind { metavar: "text|json", parse: parse_choice, show: show_choice };

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// A level, or the directives of tracing-subscriber's `EnvFilter`.
pub(super) const LOG_LEVEL: Kind<String> = Kind {
    metavar: "LEVEL",
    parse: |text| {
        // To EnvFilter a lone word which is no level is a module's name, so a slip would silence the log.
        let level = LEVELS.iter().find(|level| level.eq_ignore_ascii_case(text));
        if !text.contains('=') && level.is_none() {
            let levels = LEVELS.join(", ");
            return Err(format!(
                "{text:?} is neither one of {levels} nor a directive such as info,nearside::feed=debug{}",
                did_you_mean(text, LEVELS)
            ));
        }
        match EnvFilter::try_new(text) {
            Ok(_) => Ok(level.map_or(text, |level| *level).to_owned()),
            Err(error) => Err(format!("{text:?} is not a log filter: {error}")),
        }
    },
    show: |text| quoted(text),
};

/// The units are those of redis.conf: `mb` is 1024 × 1024 bytes, `m` is 1,000,000.
fn parse_size(text: &str) -> Result<usize, String> {
    let lower = text.to_ascii_lowercase();
    let binary = match lower.strip_suffix('b').filter(|rest| rest.ends_with(['k', 'm', 'g', 't'])) {
        Some(rest) => format!("{rest}ib"),
        None => lower,
    };
    let size = binary.parse::<ByteSize>().ok().map(|size| size.as_u64());
    // Allocations end at isize::MAX, and sums of sizes must not overflow.
    size.and_then(|bytes| usize::try_from(bytes).ok())
        .filter(|bytes| *bytes <= isize::MAX as usize / 2)
        .ok_or_else(|| {
            format!(
                "{text:?} is not a size; write bytes, or a number with kb, mb or gb (of 1024), such as 64mb"
            )
        })
}

fn show_size(bytes: &usize) -> String {
    let units = [(1 << 30, "gb"), (1 << 20, "mb"), (1 << 10, "kb")];
    match units.into_iter().find(|(unit, _)| *bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => quoted(&format!("{}{name}", bytes / unit)),
        None => bytes.to_string(),
    }
}

/// Far above any use, and far below what overflows a clock.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

fn parse_time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time <= LONGEST => Ok(time),
        Ok(_) => Err(format!("{text:?} is too long; ten years is the most")),
        Err(_) => Err(format!("{text:?} is not a time; write a number with a unit, such as 500ms, 1s or 5m")),
    }
}

fn show_time(time: &Duration) -> String {
    quoted(&humantime::format_duration(*time).to_string())
}

/// Elements around commas; an empty text is an empty list.
pub(super) fn parse_list<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    if text.trim().is_empty() {
        Ok(Vec::new())
    } else {
        text.split(',').map(|one| parse(one.trim())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_redis_conf_and_come_back_as_shown() {
        for (given, bytes) in [
            ("64mb", 64 << 20),
            ("64MB", 64 << 20),
            ("64MiB", 64 << 20),
            ("64 mb", 64 << 20),
            ("1m", 1_000_000),
            ("1.5kb", 1536),
            ("1gb", 1 << 30),
            ("123", 123),
            ("123b", 123),
            ("0", 0),
        ] {
            assert_eq!(parse_size(given), Ok(bytes), "{given}");
            assert_eq!(parse_size(show_size(&bytes).trim_matches('"')), Ok(bytes), "{given}");
        }
        assert_eq!((FLUSH_BYTES.parse)("1"), Ok(1));
        assert_eq!((JOURNAL_MAX.parse)("4kb"), Ok(4096));
        assert!((FLUSH_BYTES.parse)("0").is_err() && (JOURNAL_MAX.parse)("4095").is_err());
        for bad in ["", "-1", "64xb", "mb", "1e3", "99999999999gb", "64 mb x", "nan"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_need_a_unit_and_an_end() {
        assert_eq!(parse_time("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(show_time(&Duration::from_millis(1500)), "\"1s 500ms\"");
        assert_eq!(parse_time("1s 500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_time("0"), Ok(Duration::ZERO));
        for bad in ["", "1", "-1s", "1 parsec", "100years", "99999999999999999999s"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
        assert_eq!((TIME_OR_FOREVER.parse)("0s"), Ok(None));
        assert!((TIME_ABOVE_ZERO.parse)("0ms").is_err());
        assert_eq!((FLUSH_AFTER.parse)("1ms"), Ok(Duration::from_millis(1)));
        assert!((FLUSH_AFTER.parse)("0").is_err() && (FLUSH_AFTER.parse)("999us").is_err());
    }

    #[test]
    fn a_slip_is_named() {
        assert_eq!((LOG_LEVEL.parse)("INFO").as_deref(), Ok("info"));
        assert!((LOG_LEVEL.parse)("warn,nearside::feed=debug").is_ok());
        assert!((LOG_LEVEL.parse)("inof").unwrap_err().ends_with("did you mean info?"));
        assert!((LOG_LEVEL.parse)("nearside=loud").is_err());
        assert_eq!(
            (ON_UPDATE.parse)("refesh").unwrap_err(),
            "\"refesh\" is not invalidate or refresh; did you mean refresh?"
        );
        assert!((WORKERS.parse)("0").is_err() && (WORKERS.parse)("257").is_err());
        assert!((1..=4).contains(&(WORKERS.parse)("auto").expect("valid")));
        assert!((COUNT.parse)("0").is_err());
        assert_eq!(did_you_mean("max_memroy", ["max-memory", "max-age"]), "; did you mean max-memory?");
        assert_eq!(did_you_mean("zzz", ["max-memory"]), "");
    }
}
