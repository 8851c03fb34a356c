//! How long a reply may be kept, as the answer to `PTTL` behind its read tells.

use tracing::warn;

use crate::cache::{Expiry, Micros, Reason};
use crate::process::Process;
use crate::resp::scanner::Kind;
use crate::upstream::Said;

/// Why a reply is not kept whose time to live was answered so. That the upstream refuses to tell it is logged, for then
/// nothing is kept for as long.
pub fn not_kept(process: &Process, ttl: &[u8]) -> Reason {
    let is_error = ttl.starts_with(b"-") || ttl.starts_with(b"!");
    if !is_error || Said::of(Kind::Error, ttl) != Said::Refused {
        return Reason::TtlUnknown;
    }
    if let Some(untold) = process.metrics.ttl_refused_told.now() {
        let reply = String::from_utf8_lossy(ttl);
        warn!(
            reply = reply.trim_end(),
            untold,
            "the upstream does not allow PTTL: without a time to live nothing is cached; let the user say it (+pttl)"
        );
    }
    Reason::TtlRefused
}

/// How long `reply` may be served, as the reply to `PTTL` tells, which was executed right after the read.
///
/// `None` if that is not known: an error, or the key is gone though the reply does not look like it.
/// The server's clock is not ours: it answered after `opened`, so its end is not before `opened` + PTTL.
pub fn expiry_of(ttl: &[u8], reply: &[u8], opened: Micros, max_age: Micros) -> Option<Expiry> {
    let digits = ttl.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
    let millis: i64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let expires = match millis {
        -2 if is_absent(reply) => Micros::MAX,
        -1 => Micros::MAX,
        1.. => opened.saturating_add((millis as Micros).saturating_mul(1000)),
        _ => return None,
    };
    let aged = opened.saturating_add(max_age);
    Some(Expiry { expires: expires.min(aged), aged: aged < expires })
}

/// Whether a read of a key that does not exist may be answered so.
pub fn is_absent(reply: &[u8]) -> bool {
    const ABSENT: [&[u8]; 9] = [
        b"$-1\r\n",
        b"_\r\n",
        b":0\r\n",
        b"*0\r\n",
        b"%0\r\n",
        b"~0\r\n",
        b"*-1\r\n",
        b"$0\r\n\r\n",
        b"+none\r\n",
    ];
    // Also an array of nothing else: each field, member or place that was asked for is missing.
    const MISSING: [&[u8]; 4] = [b"$-1\r\n", b"_\r\n", b":0\r\n", b"*-1\r\n"];
    let mut elements = match (reply, memchr::memchr(b'\n', reply)) {
        ([b'*', b'1'..=b'9', ..], Some(header)) => &reply[header + 1..],
        _ => return ABSENT.contains(&reply),
    };
    while let Some(rest) = MISSING.iter().find_map(|missing| elements.strip_prefix(*missing)) {
        elements = rest;
    }
    elements.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_counted_from_before_the_read() {
        let some =
            |ttl: &[u8], reply: &[u8]| expiry_of(ttl, reply, 1_000, 60_000_000).map(|l| (l.expires, l.aged));
        assert_eq!(some(b":5\r\n", b"$1\r\nv\r\n"), Some((6_000, false)));
        assert_eq!(some(b":-1\r\n", b"$1\r\nv\r\n"), Some((60_001_000, true)));
        assert_eq!(some(b":100000\r\n", b"$1\r\nv\r\n"), Some((60_001_000, true)));
        assert_eq!(some(b":-2\r\n", b"$-1\r\n"), Some((60_001_000, true)));
        assert_eq!(some(b":-2\r\n", b"$1\r\nv\r\n"), None, "it expired between read and PTTL");
        assert_eq!(some(b":-2\r\n", b"*2\r\n$-1\r\n_\r\n"), Some((60_001_000, true)));
        assert_eq!(some(b":-2\r\n", b"*2\r\n$-1\r\n$1\r\nv\r\n"), None);
        assert_eq!(some(b":0\r\n", b"$1\r\nv\r\n"), None);
        assert_eq!(some(b"-NOPERM no\r\n", b"$1\r\nv\r\n"), None);
    }

    #[test]
    fn only_what_the_upstream_refuses_for_good_is_told_as_a_refusal() {
        let process = crate::process::fixture::process(1);
        for (ttl, refused) in [
            (&b":-2\r\n"[..], false),
            (b"-LOADING\r\n", false),
            (b"-NOPERM no\r\n", true),
            (b"!9\r\nNOPERM no\r\n", true),
        ] {
            let reason = if refused { Reason::TtlRefused } else { Reason::TtlUnknown };
            assert!(not_kept(&process, ttl) == reason);
            assert_eq!(process.metrics.ttl_refused_told.over(), refused);
        }
    }

    #[test]
    fn what_ends_with_its_server_s_time_is_not_aged() {
        let at_once = |millis: i64| {
            let ttl = format!(":{millis}\r\n");
            expiry_of(ttl.as_bytes(), b"$1\r\nv\r\n", 1_000, 5_000)
                .map(|expiry| (expiry.expires, expiry.aged))
        };
        assert_eq!(at_once(4), Some((5_000, false)));
        assert_eq!(at_once(5), Some((6_000, false)), "both at once");
        assert_eq!(at_once(6), Some((6_000, true)));
    }
}
