//! Announcements: what is said of a write's keys on the channels of the namespaces.
//!
//! Invariants: `update` is said of a key only where it was there after its write, `delete` only where it was
//! not, unless nobody may look. A peer of redis-pubsub-dict fetches a key that was updated, and one that it does not find
//! ends its listener. Whether a key is there is told by the write's reply, or else by the upstream, in one step with the
//! message.

use bytes::BytesMut;

use crate::command::{KeyUse, Say, Tells};
use crate::namespace::Event;
use crate::process::Process;
use crate::resp::encode;
use crate::resp::scanner::{Kind, elements};
use crate::upstream::At;

/// Says of one key whether it is there: its name in `KEYS`, so that it goes to its node in a cluster; the two channels and
/// what is said are the arguments.
const LOOK: &[u8] =
    b"return redis.call('publish',redis.call('exists',KEYS[1])==1 and ARGV[1] or ARGV[2],ARGV[3])";

/// A key in a namespace.
pub type Key = Box<[u8]>;

/// What one command writes in the namespaces, and what its reply will tell of that.
#[derive(Clone)]
pub struct Saying {
    pub tells: Tells,
    pub keys: Vec<(Key, KeyUse)>,
    /// Its place in the reply to the transaction.
    pub place: Option<usize>,
}

/// What the beginning of a reply, or all of it, says of the keys that were written.
pub fn decide(sayings: Vec<Saying>, reply: &[u8], at: At) -> Vec<(Key, Say)> {
    let mut said: Vec<(Key, Say)> = Vec::new();
    let replies = if at.last { elements(reply) } else { None };
    let nothing = matches!(at.kind, Kind::Error | Kind::Null);
    for saying in sayings {
        let (reply, kind) = match saying.place {
            None => (reply, at.kind),
            // It was not carried out.
            Some(_) if nothing => continue,
            Some(place) => match replies.as_ref().and_then(|all| all.get(place).cloned()) {
                Some(element) if reply[element.start] == b'-' => (&reply[element], Kind::Error),
                Some(element) => (&reply[element], Kind::Aggregate),
                // Too long to be looked into.
                None => (&b"+"[..], Kind::Simple),
            },
        };
        let unseen = saying.place.is_some() && replies.is_none();
        for (key, usage) in saying.keys {
            let say = if unseen { Say::Look } else { saying.tells.say(&key, usage, reply, kind) };
            match said.iter_mut().find(|(known, _)| *known == key) {
                // Of two commands the later one counts, if it did anything; within one it is not known which was last.
                Some((_, known)) if saying.place.is_some() => {
                    *known = if say == Say::Nothing { *known } else { say };
                }
                Some((_, known)) => *known = known.and(say),
                None => said.push((key, say)),
            }
        }
    }
    said.retain(|(_, say)| *say != Say::Nothing);
    said
}

/// Writes what says that of `key`; false if it is in no namespace.
pub fn write(out: &mut BytesMut, process: &Process, key: &[u8], say: Say) -> bool {
    let Some(namespace) = process.namespaces.find(key) else { return false };
    let Some(bare) = namespace.bare(key) else { return false };
    let [update, delete] = [Event::Update, Event::Delete].map(|event| namespace.channel(event));
    match say {
        Say::Update => encode::command(out, &[b"PUBLISH", update, bare]),
        Say::Delete => encode::command(out, &[b"PUBLISH", delete, bare]),
        Say::Look => encode::command(out, &[b"EVAL", LOOK, b"1", key, update, delete, bare]),
        Say::Nothing => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a command's reply tells, of which keys, and where it stands in a transaction's.
    type Told<'a> = (Tells, &'a [(&'a str, KeyUse)], Option<usize>);

    /// What is said after `reply` of commands with these keys, as `key+`, `key-` and `key?`.
    fn said(sayings: &[Told<'_>], reply: &str, kind: Kind, last: bool) -> String {
        let sayings = sayings.iter().map(|(tells, keys, place)| Saying {
            tells: *tells,
            keys: keys.iter().map(|(key, usage)| (key.as_bytes().into(), *usage)).collect(),
            place: *place,
        });
        let said = decide(sayings.collect(), reply.as_bytes(), At { kind, first: true, last });
        let mark = |say| match say {
            Say::Update => "+",
            Say::Delete => "-",
            Say::Look => "?",
            Say::Nothing => "0",
        };
        let said =
            said.into_iter().map(|(key, say)| format!("{}{}", String::from_utf8_lossy(&key), mark(say)));
        said.collect::<Vec<_>>().join(" ")
    }

    const A: &[(&str, KeyUse)] = &[("a", KeyUse::Update)];
    const GONE: &[(&str, KeyUse)] = &[("a", KeyUse::Delete)];

    #[test]
    fn one_command_s_reply_tells_of_its_keys() {
        let one = |tells, keys, reply, kind| said(&[(tells, keys, None)], reply, kind, true);
        assert_eq!(one(Tells::There, A, "+OK\r\n", Kind::Simple), "a+");
        assert_eq!(one(Tells::There, A, "-ERR\r\n", Kind::Error), "");
        assert_eq!(one(Tells::ThereIfNil, A, "$-1\r\n", Kind::Null), "a+", "a null is an answer here");
        // RENAME a a: which of both was last is not known.
        let both = [A[0], GONE[0]];
        assert_eq!(one(Tells::There, &both, "+OK\r\n", Kind::Simple), "a?");
    }

    #[test]
    fn of_a_transaction_each_place_tells_and_the_later_one_counts() {
        let (set, del) = ((Tells::There, A, Some(0)), (Tells::MayBe, GONE, Some(1)));
        let exec = |sayings: &[_], reply, kind| said(sayings, reply, kind, true);
        assert_eq!(exec(&[set, del], "*2\r\n+OK\r\n:1\r\n", Kind::Aggregate), "a-");
        assert_eq!(
            exec(&[set, del], "*2\r\n+OK\r\n:0\r\n", Kind::Aggregate),
            "a+",
            "the later one did nothing"
        );
        assert_eq!(exec(&[set, del], "*2\r\n-ERR\r\n:1\r\n", Kind::Aggregate), "a-");
        assert_eq!(exec(&[set], "*1\r\n-ERR\r\n", Kind::Aggregate), "");
        assert_eq!(exec(&[set, del], "*-1\r\n", Kind::Null), "", "it was not carried out");
        assert_eq!(exec(&[set, del], "-EXECABORT\r\n", Kind::Error), "");
        // Not all of the reply is there: nobody has seen what it says.
        assert_eq!(said(&[set], "*1\r\n+OK", Kind::Aggregate, false), "a?");
    }
}
