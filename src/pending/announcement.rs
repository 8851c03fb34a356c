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
