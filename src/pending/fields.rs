//! The times to live that fields of a hash have of their own (Redis 7.4, Valkey 9), which `PTTL` does not tell.
//!
//! Invariants: a reply to a hash read is kept only if the request behind it has proven until when it is
//! good, and no longer than that.
//! - A read that names its fields is followed by `HPTTL` of the same ones: the shortest answer bounds the entry. A
//!   field that is gone by then must have been missing from the reply, or it ended between the two.
//! - A read of the whole hash is followed by `OBJECT ENCODING`: a `listpack` (`ziplist`) has no room for times. With
//!   the first one a hash becomes a `listpackex` or `hashtable` in Redis, a `hashtable` in Valkey. Another
//!   encoding proves nothing, so the reply is passed on and not kept.
//!
//! A time that is set later is a write, and ends the entry as any other does.

use super::expiry::is_absent;
use crate::cache::Micros;
use crate::command::Fields;
use crate::resp::decode::decode;
use crate::resp::scanner::elements;

/// For how long after the asking no field of `reply` ends, as the answer says; `None` if that is not proven.
pub fn judge(fields: Fields, answer: &[u8], reply: &[u8]) -> Option<Micros> {
    match fields {
        Fields::None => Some(Micros::MAX),
        Fields::Named => shortest(answer, reply),
        Fields::All => match answer {
            b"$8\r\nlistpack\r\n" | b"$7\r\nziplist\r\n" => Some(Micros::MAX),
            b"$-1\r\n" | b"_\r\n" if is_absent(reply) => Some(Micros::MAX),
            _ => None,
        },
    }
}

fn shortest(answer: &[u8], reply: &[u8]) -> Option<Micros> {
    let answer = decode(answer, 1).ok()?;
    let times = answer.as_array()?;
    // One field is answered with its value, several with an array.
    let values: Vec<&[u8]> = match reply.starts_with(b"*") {
        true => elements(reply)?.into_iter().map(|element| &reply[element]).collect(),
        false => vec![reply],
    };
    if values.len() != times.len() {
        return None;
    }
    let mut shortest = Micros::MAX;
    for (time, value) in times.iter().zip(values) {
        match time.as_int()? {
            -1 => {}
            -2 if is_absent(value) => {}
            millis @ 1.. => shortest = shortest.min((millis as Micros).saturating_mul(1000)),
            _ => return None,
        }
    }
    Some(shortest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_time_of_the_named_fields_counts() {
        let judge = |answer: &[u8], reply: &[u8]| judge(Fields::Named, answer, reply);
        assert_eq!(judge(b"*1\r\n:-1\r\n", b"$1\r\nv\r\n"), Some(Micros::MAX));
        assert_eq!(judge(b"*1\r\n:5\r\n", b"$1\r\nv\r\n"), Some(5_000));
        assert_eq!(judge(b"*1\r\n:-2\r\n", b"$-1\r\n"), Some(Micros::MAX));
        assert_eq!(judge(b"*1\r\n:-2\r\n", b"_\r\n"), Some(Micros::MAX));
        assert_eq!(judge(b"*1\r\n:-2\r\n", b"$1\r\nv\r\n"), None, "it ended between the two");
        assert_eq!(judge(b"*1\r\n:0\r\n", b"$1\r\nv\r\n"), None);
        let both = b"*2\r\n$-1\r\n$2\r\n\r\n\r\n";
        assert_eq!(judge(b"*2\r\n:-2\r\n:7\r\n", both), Some(7_000));
        assert_eq!(judge(b"*2\r\n:7\r\n:-2\r\n", both), None);
        assert_eq!(judge(b"*3\r\n:7\r\n:7\r\n:7\r\n", both), None);
        for unclear in
            [&b"-ERR unknown command\r\n"[..], b"*0\r\n", b"$-1\r\n", b":5\r\n", b"*1\r\n+x\r\n", b""]
        {
            assert_eq!(judge(unclear, b"$1\r\nv\r\n"), None);
        }
    }

    #[test]
    fn only_an_encoding_without_room_for_times_proves_that_there_are_none() {
        let judge = |answer: &[u8], reply: &[u8]| judge(Fields::All, answer, reply).is_some();
        assert!(judge(b"$8\r\nlistpack\r\n", b"*2\r\n$1\r\nf\r\n$1\r\nv\r\n"));
        assert!(judge(b"$7\r\nziplist\r\n", b":1\r\n"));
        assert!(judge(b"$-1\r\n", b"*0\r\n") && judge(b"_\r\n", b"%0\r\n") && judge(b"_\r\n", b":0\r\n"));
        assert!(!judge(b"$-1\r\n", b":1\r\n"), "the hash ended between the two");
        assert!(!judge(b"$10\r\nlistpackex\r\n", b":1\r\n"));
        assert!(!judge(b"$9\r\nhashtable\r\n", b":1\r\n"));
        assert!(!judge(b"-ERR no such key\r\n", b"*0\r\n"));
    }
}
