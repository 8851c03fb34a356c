//! What a node of a cluster says of the cluster: `CLUSTER SLOTS`, which names nodes as clients are to reach them, and
//! `CLUSTER NODES`, which tells of those without slots too, and of slots on the move.

use crate::resp::SLOTS;
use crate::resp::decode::{Value, decode};

/// Hash slots from `first` to `last`, and whose they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRange {
    pub first: u16,
    pub last: u16,
    /// The node's; empty where servers say none (before Redis 4).
    pub id: String,
    /// `None` is the host that was asked.
    pub host: Option<String>,
    pub port: u16,
}

/// How deep the reply to `CLUSTER SLOTS` is.
const DEPTH: usize = 5;

impl SlotRange {
    /// From the reply to `CLUSTER SLOTS`; `None` if it is not one. What is odd about one range leaves that out.
    pub fn all_of(reply: &[u8]) -> Option<Vec<Self>> {
        let Ok(reply) = decode(reply, DEPTH) else { return None };
        Some(reply.as_array()?.iter().filter_map(Self::of).collect())
    }

    fn of(range: &Value) -> Option<Self> {
        let [first, last, master, ..] = range.as_array()? else { return None };
        let slot = |value: &Value| {
            value.as_int().and_then(|slot| u16::try_from(slot).ok()).filter(|slot| usize::from(*slot) < SLOTS)
        };
        let (first, last, master) = (slot(first)?, slot(last)?, master.as_array()?);
        let text = |value: &Value| value.as_bytes().map(|text| String::from_utf8_lossy(text).into_owned());
        let port = u16::try_from(master.get(1)?.as_int()?).ok()?;
        let named = master.first().and_then(text).filter(|host| !host.is_empty());
        let host = match named.as_deref() {
            // It has no name to be known by: Redis says so by that, and tells the address besides.
            Some("?") => master.get(3).and_then(|more| beside(more, b"ip")),
            _ => named,
        };
        (first <= last).then(|| Self {
            first,
            last,
            id: master.get(2).and_then(text).unwrap_or_default(),
            host,
            port,
        })
    }
}

/// What stands behind `name` in a list of names and values.
fn beside(list: &Value, name: &[u8]) -> Option<String> {
    let value = match list {
        Value::Map(pairs) => {
            pairs.iter().find(|(key, _)| key.as_bytes() == Some(name)).map(|(_, value)| value)
        }
        list => list
            .as_array()?
            .chunks(2)
            .find(|pair| pair[0].as_bytes() == Some(name))
            .and_then(|pair| pair.get(1)),
    };
    let value = value?.as_bytes().filter(|value| !value.is_empty())?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// A line of `CLUSTER NODES`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLine {
    pub id: String,
    /// `None` is the host that was asked: the node does not know its own address yet.
    pub host: Option<String>,
    pub hostname: Option<String>,
    pub port: u16,
    /// Whether it is the node that was asked.
    pub is_myself: bool,
    pub is_master: bool,
    /// It is known to have failed.
    pub has_failed: bool,
    /// The node that was asked has not heard of it for a while.
    pub is_silent: bool,
    /// Nobody can be sure of it yet, or any more: it has no address, or was not met.
    pub is_unsure: bool,
    pub config_epoch: u64,
    /// First and last.
    pub slots: Vec<(u16, u16)>,
    /// Slots that leave it, or come to it, now; a node tells that of itself alone.
    pub moving: Vec<u16>,
    /// Those that leave it, and the node to which.
    pub leaving: Vec<(u16, String)>,
}

impl NodeLine {
    /// From the reply to `CLUSTER NODES`; `None` if it is not one.
    pub fn all_of(reply: &[u8]) -> Option<Vec<Self>> {
        let Ok(reply) = decode(reply, 1) else { return None };
        let text = String::from_utf8_lossy(reply.as_bytes()?).into_owned();
        let lines: Vec<_> = text.lines().filter_map(Self::of).collect();
        (!lines.is_empty()).then_some(lines)
    }

    fn of(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (id, address, flags) = (words.next()?, words.next()?, words.next()?);
        // master, ping sent, pong received
        let config_epoch = words.nth(3)?.parse().ok()?;
        let _link = words.next()?;
        let (mut slots, mut moving, mut leaving) = (Vec::new(), Vec::new(), Vec::new());
        for word in words {
            match word.strip_prefix('[') {
                Some(moved) => {
                    moving.extend(moved.split('-').next().and_then(|slot| slot.parse::<u16>().ok()));
                    let left = moved.strip_suffix(']').and_then(|moved| moved.split_once("->-"));
                    leaving.extend(left.and_then(|(slot, to)| Some((slot.parse().ok()?, to.to_owned()))));
                }
                None => {
                    let (first, last) = word.split_once('-').unwrap_or((word, word));
                    let range = first.parse().ok().zip(last.parse().ok());
                    slots.extend(range.filter(|(first, last)| first <= last && usize::from(*last) < SLOTS));
                }
            }
        }
        // host:port@bus-port,hostname,more=…
        let mut parts = address.split(',');
        let (host, port) = parts.next()?.split('@').next()?.rsplit_once(':')?;
        let hostname = parts.next().filter(|name| !name.is_empty() && !name.contains('='));
        let has = |flag: &str| flags.split(',').any(|word| word == flag);
        Some(Self {
            id: id.to_owned(),
            host: Some(host).filter(|host| !host.is_empty()).map(str::to_owned),
            hostname: hostname.map(str::to_owned),
            port: port.parse().ok()?,
            is_myself: has("myself"),
            is_master: has("master"),
            has_failed: has("fail"),
            is_silent: has("fail?"),
            is_unsure: has("noaddr") || has("handshake"),
            config_epoch,
            slots,
            moving,
            leaving,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_however_their_nodes_are_named() {
        let node =
            |host: &str| format!("*4\r\n{host}:7001\r\n$2\r\nid\r\n*2\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n");
        for (host, read) in [
            ("$9\r\n127.0.0.2\r\n", Some("127.0.0.2")),
            ("$1\r\nh\r\n", Some("h")),
            ("$-1\r\n", None),
            ("$0\r\n\r\n", None),
            ("$1\r\n?\r\n", Some("127.0.0.1")),
        ] {
            let reply = format!("*1\r\n*4\r\n:0\r\n:5460\r\n{0}{0}", node(host));
            let ranges = SlotRange::all_of(reply.as_bytes()).unwrap();
            let [range] = &ranges[..] else { panic!("{ranges:?}") };
            assert_eq!((range.first, range.last, range.port, &*range.id), (0, 5460, 7001, "id"));
            assert_eq!(range.host.as_deref(), read, "{host:?}");
        }
        assert_eq!(SlotRange::all_of(b"*0\r\n"), Some(vec![]));
        assert_eq!(SlotRange::all_of(b"-ERR This instance has cluster support disabled\r\n"), None);
        for odd in [
            "*3\r\n:5\r\n:4\r\n*2\r\n$1\r\nh\r\n:1\r\n",
            "*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\nh\r\n:1\r\n",
            "*0\r\n",
        ] {
            assert_eq!(SlotRange::all_of(format!("*1\r\n{odd}").as_bytes()), Some(vec![]), "{odd}");
        }
    }

    #[test]
    fn lines_tell_of_slots_that_are_there_and_on_the_move() {
        let text = "a1 127.0.0.1:7001@17001,h1,shard-id=x myself,master - 0 1426238316232 2 connected 5-7 9 [5->-b2] [12-<-c3]\n\
                    b2 :7002@17002 master,fail - 1 1 3 disconnected\n\
                    c3 ::1:7003@17003,,tls-port=1 slave a1 0 1 2 connected\n\
                    d4 :0@0 master,noaddr - 1 1 0 disconnected 8\n";
        let reply = format!("${}\r\n{text}\r\n", text.len());
        let lines = NodeLine::all_of(reply.as_bytes()).unwrap();
        assert_eq!(lines.len(), 4);
        let [a, b, c, d] = &lines[..] else { panic!() };
        assert_eq!(
            (&*a.id, a.host.as_deref(), a.hostname.as_deref(), a.port),
            ("a1", Some("127.0.0.1"), Some("h1"), 7001)
        );
        assert!(a.is_myself && a.is_master && !a.has_failed && a.config_epoch == 2);
        assert_eq!((&a.slots[..], &a.moving[..]), (&[(5, 7), (9, 9)][..], &[5, 12][..]));
        assert!(b.has_failed && !b.is_silent && b.host.is_none() && b.hostname.is_none() && !b.is_myself);
        assert_eq!((&a.leaving[..], &b.leaving[..]), (&[(5, "b2".to_owned())][..], &[][..]));
        assert!(!c.is_master && c.host.as_deref() == Some("::1") && c.hostname.is_none());
        assert!(d.is_unsure && d.slots == [(8, 8)]);
        assert_eq!(NodeLine::all_of(b"-ERR unknown command\r\n"), None);
        assert_eq!(NodeLine::all_of(b"$3\r\nno\n\r\n"), None);
    }
}
