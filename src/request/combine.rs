//! What the replies of several nodes come to, by the command's response policy.
//!
//! Invariants: no reply is an error here but for [`How::OneSucceeded`]. What does not fit together is said to do so, and
//! nothing is made up.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use bytes::{BufMut, Bytes, BytesMut};

use crate::command::{Gives, Policy};
use crate::resp::encode;
use crate::resp::number::string2ll;
use crate::resp::scanner::elements;

/// How replies are put together.
#[derive(Clone, Debug, PartialEq)]
pub enum How {
    /// Elements of arrays, each part's at these places of all.
    Placed(Vec<Vec<u32>>),
    /// The elements of all.
    Joined,
    /// Likewise, each but once.
    Union,
    /// Names and numbers: the numbers are added up.
    Counts,
    /// One that is not nil.
    Any,
    OneSucceeded,
    AllSucceeded,
    And,
    Or,
    Min,
    Max,
    Sum,
}

impl How {
    /// For a command of this name; `None` if nobody knows how.
    pub fn of(policy: Policy, name: &str) -> Option<Self> {
        Some(match policy.gives {
            Gives::Default => Self::Joined,
            Gives::OneSucceeded => Self::OneSucceeded,
            Gives::AllSucceeded => Self::AllSucceeded,
            Gives::LogicalAnd => Self::And,
            Gives::LogicalOr => Self::Or,
            Gives::Min => Self::Min,
            Gives::Max => Self::Max,
            Gives::Sum => Self::Sum,
            Gives::Special => match name {
                "randomkey" => Self::Any,
                "pubsub|channels" | "pubsub|shardchannels" => Self::Union,
                "pubsub|numsub" | "pubsub|shardnumsub" => Self::Counts,
                _ => return None,
            },
        })
    }

    /// The one reply; `None` if they do not fit together.
    pub fn combine(&self, replies: &[Bytes]) -> Option<Bytes> {
        match self {
            Self::Placed(places) => placed(places, replies),
            Self::Joined => joined(replies, |_| true),
            Self::Union => {
                let mut seen = HashSet::new();
                joined(replies, move |element| seen.insert(Bytes::copy_from_slice(element)))
            }
            Self::Counts => counts(replies),
            Self::Any => any(replies),
            Self::OneSucceeded => one_succeeded(replies),
            Self::AllSucceeded => replies.first().cloned(),
            Self::And => folded(replies, |a, b| i64::from(a != 0 && b != 0)),
            Self::Or => folded(replies, |a, b| i64::from(a != 0 || b != 0)),
            Self::Min => folded(replies, i64::min),
            Self::Max => folded(replies, i64::max),
            Self::Sum => folded(replies, i64::saturating_add),
        }
    }
}

/// Whether a reply is an error.
pub fn is_error(reply: &[u8]) -> bool {
    matches!(reply.first(), Some(b'-' | b'!'))
}

fn is_nil(reply: &[u8]) -> bool {
    matches!(reply, b"$-1\r\n" | b"_\r\n")
}

fn of_array(reply: &Bytes) -> Option<Vec<Bytes>> {
    Some(elements(reply)?.into_iter().map(|element| reply.slice(element)).collect())
}

fn placed(places: &[Vec<u32>], replies: &[Bytes]) -> Option<Bytes> {
    let mut all = vec![Bytes::new(); places.iter().map(Vec::len).sum()];
    for (places, reply) in places.iter().zip(replies) {
        let elements = of_array(reply).filter(|elements| elements.len() == places.len())?;
        for (place, element) in places.iter().zip(elements) {
            *all.get_mut(*place as usize)? = element;
        }
    }
    let mut out = BytesMut::with_capacity(replies.iter().map(Bytes::len).sum());
    encode::array(&mut out, all.len());
    all.iter().for_each(|element| out.put_slice(element));
    Some(out.freeze())
}

fn joined(replies: &[Bytes], mut wanted: impl FnMut(&[u8]) -> bool) -> Option<Bytes> {
    let (mut body, mut len) = (BytesMut::with_capacity(replies.iter().map(Bytes::len).sum()), 0);
    for reply in replies {
        for element in of_array(reply)?.iter().filter(|element| wanted(element)) {
            body.put_slice(element);
            len += 1;
        }
    }
    let mut out = BytesMut::with_capacity(body.len() + 16);
    encode::array(&mut out, len);
    out.put_slice(&body);
    Some(out.freeze())
}

fn number(reply: &[u8]) -> Option<i64> {
    string2ll(reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?)
}

/// A number, or numbers one by one.
fn folded(replies: &[Bytes], fold: impl Fn(i64, i64) -> i64) -> Option<Bytes> {
    let mut out = BytesMut::new();
    if let Some(numbers) = replies.iter().map(|reply| number(reply)).collect::<Option<Vec<_>>>() {
        encode::integer(&mut out, numbers.into_iter().reduce(&fold)?);
        return Some(out.freeze());
    }
    let of = |reply: &Bytes| of_array(reply)?.iter().map(|element| number(element)).collect();
    let arrays: Vec<Vec<i64>> = replies.iter().map(of).collect::<Option<_>>()?;
    let len = arrays.first()?.len();
    if arrays.iter().any(|array| array.len() != len) {
        return None;
    }
    encode::array(&mut out, len);
    for i in 0..len {
        encode::integer(&mut out, arrays.iter().map(|array| array[i]).reduce(&fold)?);
    }
    Some(out.freeze())
}

fn counts(replies: &[Bytes]) -> Option<Bytes> {
    let all = replies.iter().map(of_array).collect::<Option<Vec<_>>>()?;
    let first = all.first()?;
    let mut out = BytesMut::new();
    encode::array(&mut out, first.len());
    for (i, name) in first.iter().enumerate() {
        if i % 2 == 0 {
            all.iter().all(|other| other.get(i) == Some(name)).then(|| out.put_slice(name))?;
            continue;
        }
        let counts = all.iter().map(|other| number(other.get(i)?));
        let sum = counts.sum::<Option<i64>>()?;
        encode::integer(&mut out, sum);
    }
    Some(out.freeze())
}

/// Whichever: it is to be another next time.
fn any(replies: &[Bytes]) -> Option<Bytes> {
    let some: Vec<_> = replies.iter().filter(|reply| !is_nil(reply)).collect();
    match some.len() {
        0 => replies.first().cloned(),
        n => some.get((RandomState::new().hash_one(n) % n as u64) as usize).map(|reply| (*reply).clone()),
    }
}

/// Of errors the one that tells most: that nothing was to be done is no news.
fn one_succeeded(replies: &[Bytes]) -> Option<Bytes> {
    let succeeded = replies.iter().find(|reply| !is_error(reply));
    let telling = || replies.iter().find(|reply| !reply.starts_with(b"-NOTBUSY"));
    succeeded.or_else(telling).or(replies.first()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn combined(how: &How, replies: &[&'static str]) -> Option<String> {
        let replies: Vec<_> = replies.iter().map(|reply| Bytes::from_static(reply.as_bytes())).collect();
        how.combine(&replies).map(|reply| String::from_utf8_lossy(&reply).into_owned())
    }

    #[test]
    fn replies_are_put_together() {
        let placed = How::Placed(vec![vec![2, 0], vec![1]]);
        for (how, replies, expected) in [
            (How::Sum, &[":1\r\n", ":2\r\n"][..], ":3\r\n"),
            (How::Min, &[":1\r\n", ":-2\r\n"], ":-2\r\n"),
            (How::Max, &[":1\r\n", ":2\r\n"], ":2\r\n"),
            (How::Min, &["*2\r\n:1\r\n:5\r\n", "*2\r\n:2\r\n:0\r\n"], "*2\r\n:1\r\n:0\r\n"),
            (How::And, &["*2\r\n:1\r\n:1\r\n", "*2\r\n:1\r\n:0\r\n"], "*2\r\n:1\r\n:0\r\n"),
            (How::Or, &[":0\r\n", ":1\r\n"], ":1\r\n"),
            (
                How::Joined,
                &["*1\r\n$1\r\na\r\n", "*0\r\n", "*1\r\n$1\r\na\r\n"],
                "*2\r\n$1\r\na\r\n$1\r\na\r\n",
            ),
            (
                How::Union,
                &["*1\r\n$1\r\na\r\n", "*2\r\n$1\r\nb\r\n$1\r\na\r\n"],
                "*2\r\n$1\r\na\r\n$1\r\nb\r\n",
            ),
            (How::Counts, &["*2\r\n$1\r\na\r\n:1\r\n", "*2\r\n$1\r\na\r\n:2\r\n"], "*2\r\n$1\r\na\r\n:3\r\n"),
            (How::Any, &["$-1\r\n", "$1\r\na\r\n", "_\r\n"], "$1\r\na\r\n"),
            (How::Any, &["$-1\r\n", "$-1\r\n"], "$-1\r\n"),
            (How::AllSucceeded, &["+OK\r\n", "+OK\r\n"], "+OK\r\n"),
            (How::OneSucceeded, &["-NOTBUSY no\r\n", "+OK\r\n"], "+OK\r\n"),
            (How::OneSucceeded, &["-NOTBUSY no\r\n", "-UNKILLABLE\r\n"], "-UNKILLABLE\r\n"),
            (How::OneSucceeded, &["-NOTBUSY no\r\n", "-NOTBUSY no\r\n"], "-NOTBUSY no\r\n"),
            (
                placed.clone(),
                &["*2\r\n$1\r\nc\r\n$-1\r\n", "*1\r\n$1\r\nb\r\n"],
                "*3\r\n$-1\r\n$1\r\nb\r\n$1\r\nc\r\n",
            ),
        ] {
            assert_eq!(combined(&how, replies).as_deref(), Some(expected), "{how:?} {replies:?}");
        }
        for (how, replies) in [
            (How::Sum, &[":1\r\n", "+OK\r\n"][..]),
            (How::Sum, &["*1\r\n:1\r\n", "*2\r\n:1\r\n:1\r\n"]),
            (How::Joined, &["*0\r\n", "+OK\r\n"]),
            (How::Counts, &["*2\r\n$1\r\na\r\n:1\r\n", "*2\r\n$1\r\nb\r\n:1\r\n"]),
            (placed, &["*1\r\n$1\r\nc\r\n", "*1\r\n$1\r\nb\r\n"]),
        ] {
            assert_eq!(combined(&how, replies), None, "{how:?} {replies:?}");
        }
    }
}
