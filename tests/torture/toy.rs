//! Caches that are wrong in known ways: the checker must find them out.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nearside::resp::framer::{Frame, Limits, RequestFramer};

use super::direct::{Direct, Feeds, Owners};
use super::model::{KINDS, Kind};
use crate::support::Conn;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing is wrong: nothing is cached.
    None,
    /// What was read once is served for ever.
    Forever,
    /// Invalidations drop what is cached; a reply that was on its way meanwhile is kept all the same.
    NoLeases,
    /// One client's replies are given to all.
    OneForAll,
    /// It hears what each node says of its keys, and writes drop what they change; but what a node said is served on when it
    /// has the slot no more.
    BlindToMoves,
}

impl Flaw {
    fn has_feeds(self) -> bool {
        matches!(self, Flaw::NoLeases | Flaw::BlindToMoves)
    }
}

/// What a toy stands in front of.
pub enum Behind {
    Server(SocketAddr),
    /// Of these nodes; a request may take so long.
    Cluster(Vec<SocketAddr>, Duration),
}

/// One session's way there.
enum Way {
    Server(Conn),
    Cluster(Direct),
}

impl Way {
    fn to(behind: &Behind, owners: &Owners, feeds: &Feeds) -> Self {
        match behind {
            Behind::Server(address) => {
                let mut conn = Conn::to(*address);
                if let Some(tracking) = feeds.get(address) {
                    conn.cmd(tracking);
                }
                Way::Server(conn)
            }
            Behind::Cluster(seeds, patience) => {
                Way::Cluster(Direct::new(seeds, owners, *patience).tracked(feeds))
            }
        }
    }

    fn ask(&mut self, words: &[String], raw: &[u8]) -> Option<Vec<u8>> {
        match self {
            Way::Server(conn) => {
                conn.send(raw);
                conn.try_reply().ok()
            }
            Way::Cluster(direct) => direct.ask(words, raw),
        }
    }
}

#[derive(Default)]
struct Cached {
    /// By key and then by identity and request.
    replies: HashMap<String, HashMap<Vec<u8>, Vec<u8>>>,
    /// How much was dropped so far.
    dropped: u64,
}

impl Cached {
    fn drop_key(&mut self, key: &str) {
        self.dropped += 1;
        self.replies.remove(key);
    }

    fn drop_all(&mut self) {
        self.dropped += 1;
        self.replies.clear();
    }
}

type Entries = Arc<Mutex<Cached>>;

/// Starts a proxy that caches whatever reads one key, with a flaw. It ends with the process.
pub fn start(behind: Behind, flaw: Flaw) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (entries, owners) = (Entries::default(), Owners::default());
    let nodes = match &behind {
        Behind::Server(server) => std::slice::from_ref(server),
        Behind::Cluster(seeds, _) => seeds,
    };
    let followed = nodes.iter().filter(|_| flaw.has_feeds());
    let feeds: Feeds = Arc::new(followed.map(|node| (*node, follow(*node, entries.clone()))).collect());
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let entries = entries.clone();
            let mut way = Way::to(&behind, &owners, &feeds);
            std::thread::spawn(move || {
                serve(client, &mut way, &entries, flaw);
                if flaw == Flaw::BlindToMoves {
                    // Of what was read over its connections nothing more is heard.
                    entries.lock().unwrap().drop_all();
                }
            });
        }
    });
    address
}

/// Applies invalidations as they come; gives what a connection is to say to be tracked.
fn follow(upstream: SocketAddr, entries: Entries) -> String {
    let mut feed = Conn::to(upstream);
    feed.cmd("HELLO 3");
    let id: u64 = feed.text("CLIENT ID").trim_start_matches(':').trim().parse().unwrap();
    feed.stream.set_read_timeout(None).unwrap();
    std::thread::spawn(move || {
        while let Ok(push) = feed.try_reply() {
            let text = String::from_utf8_lossy(&push).into_owned();
            let mut entries = entries.lock().unwrap();
            if text.ends_with("_\r\n") {
                entries.drop_all();
            }
            for line in text.lines() {
                entries.drop_key(line);
            }
        }
    });
    format!("CLIENT TRACKING ON REDIRECT {id}")
}

/// Whether the command reads one key.
fn is_question(name: &str) -> bool {
    let mut asks = KINDS.into_iter().flat_map(Kind::asks);
    name == "MGET" || asks.any(|ask| ask.words.split(' ').next() == Some(name))
}

fn serve(mut client: TcpStream, upstream: &mut Way, entries: &Entries, flaw: Flaw) {
    let _ = client.set_nodelay(true);
    let limits = Limits { max_request: 1 << 20, ..Limits::default() };
    let (mut framer, mut buf) = (RequestFramer::new(limits), Vec::new());
    let (mut identity, mut in_transaction) = (Vec::new(), false);
    // All words of a transaction, keys among them.
    let mut named = Vec::new();
    loop {
        let len = match framer.next(&buf) {
            Ok(Frame::Request(len)) => len,
            _ => {
                let mut chunk = [0; 4096];
                match std::io::Read::read(&mut client, &mut chunk) {
                    Ok(n) if n > 0 => buf.extend_from_slice(&chunk[..n]),
                    _ => return,
                }
                continue;
            }
        };
        let raw: Vec<u8> = buf[..len].into();
        let words: Vec<String> = {
            let parsed = framer.request(&raw);
            (0..parsed.len()).map(|i| String::from_utf8_lossy(parsed.arg(i)).into_owned()).collect()
        };
        buf.drain(..len);
        let name = words[0].as_str();
        if matches!(name, "AUTH" | "HELLO" | "SELECT") && flaw != Flaw::OneForAll {
            identity.extend_from_slice(&raw);
        }
        in_transaction = match name {
            "MULTI" => true,
            "EXEC" => false,
            _ => in_transaction,
        };
        let reads = ["GET", "STRLEN", "EXISTS", "TYPE", "LRANGE", "ZSCORE", "SMEMBERS", "XRANGE"];
        let cached = reads.contains(&name) && !in_transaction && flaw != Flaw::None;
        let entry = [&identity[..], &raw[..]].concat();
        let (known, dropped) = {
            let entries = entries.lock().unwrap();
            let known = entries.replies.get(words.get(1).map_or("", String::as_str)).filter(|_| cached);
            (known.and_then(|of| of.get(&entry)).cloned(), entries.dropped)
        };
        let reply = match known {
            Some(reply) => reply,
            None => {
                let Some(reply) = upstream.ask(&words, &raw) else { return };
                if flaw == Flaw::NoLeases && cached {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let mut entries = entries.lock().unwrap();
                let is_leased = flaw != Flaw::BlindToMoves || entries.dropped == dropped;
                if cached && reply[0] != b'-' && is_leased {
                    let of_key = entries.replies.entry(words[1].clone()).or_default();
                    of_key.insert(entry, reply.clone());
                }
                if flaw == Flaw::BlindToMoves && !is_question(name) {
                    named.extend(words);
                    named.iter().for_each(|word| entries.drop_key(word));
                    if !in_transaction {
                        named.clear();
                    }
                }
                reply
            }
        };
        if client.write_all(&reply).is_err() {
            return;
        }
    }
}
