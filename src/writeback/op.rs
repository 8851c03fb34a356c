//! What an acknowledged write leaves behind, and what a flush takes for its to replace.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sha1_smol::Sha1;

/// Milliseconds since the epoch: what a server's own absolute times count in.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// What a write leaves under its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// This value, which ends by itself at `until` (see [`unix_ms`]).
    Set { value: Bytes, until: Option<u64> },
    /// Nothing.
    Delete,
}

impl Op {
    /// What is read of it: nothing once its time is over.
    pub fn value(&self) -> Option<&Bytes> {
        match self {
            Op::Set { value, until } if until.is_none_or(|until| unix_ms() < until) => Some(value),
            _ => None,
        }
    }

    /// When it ends by itself, as a request says it; empty if it does not.
    pub(super) fn ends(&self) -> String {
        match self {
            Op::Set { until: Some(until), .. } => until.to_string(),
            _ => String::new(),
        }
    }

    pub(super) fn size(&self) -> usize {
        match self {
            Op::Set { value, .. } => value.len(),
            Op::Delete => 0,
        }
    }
}

/// What stands under a key upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stands {
    Absent,
    Value(Bytes),
    /// A value of this SHA-1.
    Hashed([u8; 20]),
    /// Of another type than a string.
    Other,
}

impl Stands {
    /// What a reply to `GET` tells; `None` if nothing.
    pub fn of_reply(reply: &[u8]) -> Option<Self> {
        match reply {
            [b'_', ..] | [b'$', b'-', ..] => Some(Stands::Absent),
            [b'$', ..] => {
                let header = memchr::memchr(b'\n', reply)? + 1;
                let value = reply.get(header..)?.strip_suffix(b"\r\n")?;
                Some(Stands::Value(Bytes::copy_from_slice(value)))
            }
            _ if reply.starts_with(b"-WRONGTYPE") => Some(Stands::Other),
            _ => None,
        }
    }

    /// As the script compares it.
    pub(super) fn word(&self) -> String {
        match self {
            Stands::Absent => "a".to_owned(),
            Stands::Value(value) => hex("v", &Sha1::from(value).digest().bytes()),
            Stands::Hashed(hash) => hex("v", hash),
            Stands::Other => "t".to_owned(),
        }
    }
}

/// What may stand upstream for a flush to be the sidecar's to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    pub stands: Stands,
    /// From when on nothing may stand there instead, because its time to live is over.
    pub until: Option<u64>,
}

/// So much later than reckoned a time to live may end: the clocks are two.
const SLACK_MS: u64 = 100;

impl Base {
    pub const ABSENT: Base = Base { stands: Stands::Absent, until: None };

    /// What stands there once this write was flushed.
    pub fn left_by(op: &Op) -> Self {
        match op {
            Op::Set { value, until } => Self { stands: Stands::Value(value.clone()), until: *until },
            Op::Delete => Self::ABSENT,
        }
    }

    /// Whether a value stood there.
    pub fn existed(&self) -> bool {
        match self.stands {
            Stands::Absent => false,
            Stands::Value(_) | Stands::Hashed(_) | Stands::Other => {
                self.until.is_none_or(|until| unix_ms() < until)
            }
        }
    }

    /// What the flush's script said that it has found.
    pub fn of_stamp(stamp: &[u8]) -> Self {
        let hashed = |hex: &[u8]| Stands::Hashed(std::array::from_fn(|i| byte(&hex[2 * i..2 * i + 2])));
        let stands = match stamp {
            b"a" => Stands::Absent,
            [b'v', hex @ ..] if hex.len() == 40 => hashed(hex),
            _ => Stands::Other,
        };
        Self { stands, until: None }
    }

    /// As the script compares it: what it may find, a word each.
    pub fn words(&self, now: u64) -> impl Iterator<Item = String> {
        let is_over = self.until.is_some_and(|until| now + SLACK_MS >= until);
        [Some(self.stands.word()), is_over.then(|| "a".to_owned())].into_iter().flatten()
    }

    pub(super) fn size(&self) -> usize {
        match &self.stands {
            Stands::Value(value) => value.len(),
            _ => 0,
        }
    }
}

fn byte(hex: &[u8]) -> u8 {
    std::str::from_utf8(hex).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or_default()
}

/// In lower case, behind something; for each flush, so not by way of a formatter.
fn hex(before: &str, hash: &[u8; 20]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half & 15)]);
    let mut text = String::with_capacity(before.len() + 2 * hash.len());
    text.push_str(before);
    hash.iter().for_each(|byte| text.extend([digit(byte >> 4), digit(*byte)]));
    text
}

/// The SHA-1 of a value, in hex.
pub(super) fn sha1(value: &[u8]) -> String {
    hex("", &Sha1::from(value).digest().bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_compared_by_its_hash_and_by_its_time() {
        let words = |base: &Base, now| base.words(now).collect::<Vec<_>>();
        let value = Base { stands: Stands::Value(Bytes::from_static(b"x")), until: Some(10_000) };
        let hash = format!("v{}", sha1(b"x"));
        assert_eq!(words(&value, 0), [hash.as_str()]);
        assert_eq!(words(&value, 10_000), [hash.as_str(), "a"], "its time is over");
        assert_eq!(words(&Base::of_stamp(hash.as_bytes()), 0), [hash.as_str()], "there and back");
        assert_eq!(hash, "v11f6ad8ec52a2984abaafd7c3b516503785c2072");
        assert_eq!(words(&Base::of_stamp(b"a"), 0), ["a"]);
        assert_eq!(words(&Base::of_stamp(b"thash"), 0), ["t"]);
    }

    #[test]
    fn a_value_whose_time_is_over_is_not_read() {
        let set = |until| Op::Set { value: Bytes::from_static(b"x"), until };
        assert!(set(None).value().is_some() && set(Some(unix_ms() + 60_000)).value().is_some());
        assert!(set(Some(unix_ms())).value().is_none() && Op::Delete.value().is_none());
    }
}
