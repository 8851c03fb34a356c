//! A client of a cluster that follows redirects and caches nothing. Through it go the writes past the sidecars.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nearside::resp::key_slot;

use crate::support::{Conn, line, request};

/// Where slots were found last, by any session of one process: what one has written is not looked for at the old owner by
/// another, which in a failover goes on to answer reads for a moment.
pub type Owners = Arc<Mutex<HashMap<u16, SocketAddr>>>;

/// What is said to each node, so that what is read there is tracked.
pub type Feeds = Arc<HashMap<SocketAddr, String>>;

/// One session.
pub struct Direct {
    seeds: Vec<SocketAddr>,
    owners: Owners,
    nodes: HashMap<SocketAddr, Conn>,
    /// What each new connection begins with: HELLO, AUTH.
    greeting: Vec<Vec<u8>>,
    /// The node of a transaction, or of what is watched.
    pinned: Option<SocketAddr>,
    /// MULTI was said, and no key yet.
    begins: bool,
    turn: usize,
    patience: Duration,
    feeds: Feeds,
}

impl Direct {
    /// A request that was not executed is sent again for so long; so long may a reply take.
    pub fn new(seeds: &[SocketAddr], owners: &Owners, patience: Duration) -> Self {
        Self {
            seeds: seeds.to_vec(),
            owners: owners.clone(),
            nodes: HashMap::new(),
            greeting: Vec::new(),
            pinned: None,
            begins: false,
            turn: 0,
            patience,
            feeds: Feeds::default(),
        }
    }

    pub fn tracked(self, feeds: &Feeds) -> Self {
        Self { feeds: feeds.clone(), ..self }
    }

    /// The reply; `None` if it was lost, so that nobody knows what became of the request.
    pub fn ask(&mut self, words: &[String], raw: &[u8]) -> Option<Vec<u8>> {
        match words[0].as_str() {
            "HELLO" | "AUTH" => {
                self.nodes.clear();
                let reply = self.route(None, raw)?;
                self.greeting.push(raw.into());
                self.nodes.clear();
                Some(reply)
            }
            "MULTI" if self.pinned.is_none() => {
                self.begins = true;
                Some(b"+OK\r\n".into())
            }
            "EXEC" | "UNWATCH" => {
                let node = self.pinned.take();
                self.begins = false;
                match node {
                    Some(node) => self.send(node, raw),
                    None => self.route(None, raw),
                }
            }
            "SCRIPT" | "FUNCTION" => self.everywhere(raw),
            name => {
                let key = key_of(words).map(|key| key_slot(key.as_bytes()));
                if let Some(node) = self.pinned {
                    return self.send(node, raw);
                }
                if !self.begins && name != "WATCH" {
                    return self.route(key, raw);
                }
                self.pin(key?, raw)
            }
        }
    }

    /// Begins a transaction on the key's node, or watches there.
    fn pin(&mut self, slot: u16, raw: &[u8]) -> Option<Vec<u8>> {
        // Which learns whose it is.
        self.route(Some(slot), &request(&[b"EXISTS", tag_of(slot).as_bytes()]))?;
        let node = self.owner(slot)?;
        self.pinned = Some(node);
        if std::mem::take(&mut self.begins) {
            self.send(node, &request(&[b"MULTI"]))?;
        }
        self.send(node, raw)
    }

    /// To all masters; the last reply.
    fn everywhere(&mut self, raw: &[u8]) -> Option<Vec<u8>> {
        let mut last = None;
        for node in self.seeds.clone() {
            let Some(said) = self.send(node, raw) else { continue };
            if !said.starts_with(b"-") {
                last = Some(said);
            }
        }
        last
    }

    fn route(&mut self, slot: Option<u16>, raw: &[u8]) -> Option<Vec<u8>> {
        let until = Instant::now() + self.patience;
        loop {
            let known = slot.and_then(|slot| self.owner(slot));
            let node = known.unwrap_or_else(|| self.any());
            if !self.reaches(node) {
                self.leave(slot);
                if Instant::now() > until {
                    return None;
                }
                continue;
            }
            let said = self.send(node, raw);
            let Some(reply) = said else {
                self.leave(slot);
                return None;
            };
            let text = String::from_utf8_lossy(&reply);
            let words: Vec<_> = text.trim_end().split(' ').collect();
            match (words[0], slot) {
                ("-MOVED", Some(slot)) => {
                    self.found(Some(slot), words[2].parse().ok()?);
                }
                ("-ASK", _) => {
                    self.found(slot, node);
                    let node = words[2].parse().ok()?;
                    self.send(node, &request(&[b"ASKING"]))?;
                    let asked = self.send(node, raw)?;
                    // The move is over meanwhile, or the keys are in two places.
                    if !is_refused(&asked) {
                        return Some(asked);
                    }
                }
                _ if is_refused(&reply) => self.leave(slot),
                _ => {
                    // Another may have found it elsewhere meanwhile.
                    if known != Some(node) {
                        self.found(slot, node);
                    }
                    return Some(reply);
                }
            }
            if Instant::now() > until {
                return Some(reply);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn owner(&self, slot: u16) -> Option<SocketAddr> {
        self.owners.lock().unwrap().get(&slot).copied()
    }

    fn found(&self, slot: Option<u16>, node: SocketAddr) {
        slot.and_then(|slot| self.owners.lock().unwrap().insert(slot, node));
    }

    /// The slot may be another's.
    fn leave(&self, slot: Option<u16>) {
        slot.and_then(|slot| self.owners.lock().unwrap().remove(&slot));
        std::thread::sleep(Duration::from_millis(10));
    }

    fn any(&mut self) -> SocketAddr {
        self.turn += 1;
        self.seeds[self.turn % self.seeds.len()]
    }

    fn reaches(&mut self, node: SocketAddr) -> bool {
        if self.nodes.contains_key(&node) {
            return true;
        }
        let Ok(mut conn) = Conn::try_to(node) else { return false };
        let _ = conn.stream.set_read_timeout(Some(self.patience));
        let mut greet = |hello: &Vec<u8>| {
            conn.stream.write_all(hello).is_ok() && conn.try_reply().is_ok_and(|reply| reply[0] != b'-')
        };
        let tracking = self.feeds.get(&node).map(|tracking| line(tracking));
        let is_met = self.greeting.iter().chain(&tracking).all(&mut greet);
        if is_met {
            self.nodes.insert(node, conn);
        }
        is_met
    }

    fn send(&mut self, node: SocketAddr, raw: &[u8]) -> Option<Vec<u8>> {
        if !self.reaches(node) {
            return None;
        }
        let conn = self.nodes.get_mut(&node)?;
        let said = conn.stream.write_all(raw).ok().and_then(|()| conn.try_reply().ok());
        if said.is_none() {
            self.nodes.remove(&node);
        }
        said
    }
}

/// The reply says that nothing was executed, and that it may be later or elsewhere.
fn is_refused(reply: &[u8]) -> bool {
    let words = ["-MOVED", "-ASK", "-TRYAGAIN", "-CLUSTERDOWN", "-LOADING", "-READONLY", "-MASTERDOWN"];
    words.iter().any(|word| reply.starts_with(word.as_bytes()))
}

fn key_of(words: &[String]) -> Option<&String> {
    let at = match words[0].as_str() {
        "EVAL" | "EVALSHA" | "FCALL" | "BITOP" => 3,
        _ => 1,
    };
    words.get(at)
}

/// Some key of the slot.
fn tag_of(slot: u16) -> String {
    crate::support::cluster::key_in_slot(slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::cluster::Cluster;

    #[test]
    fn redirects_are_followed() {
        let cluster = Cluster::start(2, 0);
        let seeds: Vec<_> = cluster.nodes().iter().map(|node| node.address()).collect();
        let mut direct = Direct::new(&seeds, &Owners::default(), Duration::from_secs(5));
        let mut ask = |line: &str| {
            let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            let reply = direct.ask(&words, &crate::support::line(line)).expect("a reply");
            String::from_utf8(reply).unwrap()
        };
        let key = cluster.keys_of(cluster.node(0), 1).remove(0);
        let slot = key_slot(key.as_bytes());
        assert_eq!(ask(&format!("SET {key} 1")), "+OK\r\n");
        cluster.migrate(slot, 0, 1);
        assert_eq!(ask(&format!("GET {key}")), "$1\r\n1\r\n");
        cluster.begin_move(slot, 1, 0);
        assert_eq!(ask(&format!("DEL {key}")), ":1\r\n");
        assert_eq!(ask(&format!("SET {key} 2")), "+OK\r\n", "it asks the node that takes the slot");
        assert_eq!(cluster.keys_in_slot(slot, 0, 10).len(), 1);
        cluster.end_move(slot, 1, 0);
        assert_eq!(ask(&format!("WATCH {key}")), "+OK\r\n");
        assert_eq!(ask("MULTI"), "+OK\r\n");
        assert_eq!(ask(&format!("INCR {key}")), "+QUEUED\r\n");
        assert_eq!(ask("EXEC"), "*1\r\n:3\r\n");
    }
}
