//! Caches that are wrong in known ways: the checker must find them out.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nearside::resp::framer::{Frame, Limits, RequestFramer};

use super::direct::{Direct, Owners};
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
    fn to(behind: &Behind, owners: &Owners) -> Self {
        match behind {
            Behind::Server(address) => Way::Server(Conn::to(*address)),
            Behind::Cluster(seeds, patience) => Way::Cluster(Direct::new(seeds, owners, *patience)),
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

/// By key and then by identity and request.
type Entries = Arc<Mutex<HashMap<String, HashMap<Vec<u8>, Vec<u8>>>>>;

/// Starts a proxy that caches whatever reads one key, with a flaw. It ends with the process.
pub fn start(behind: Behind, flaw: Flaw) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (entries, owners) = (Entries::default(), Owners::default());
    let feed = match behind {
        Behind::Server(server) if flaw == Flaw::NoLeases => Some(follow(server, entries.clone())),
        _ => None,
    };
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let entries = entries.clone();
            let way = Way::to(&behind, &owners);
            std::thread::spawn(move || serve(client, way, &entries, flaw, feed));
        }
    });
    address
}

/// Applies invalidations as they come; gives the connection's id.
fn follow(upstream: SocketAddr, entries: Entries) -> i64 {
    let mut feed = Conn::to(upstream);
    feed.cmd("HELLO 3");
    let id = feed.text("CLIENT ID").trim_start_matches(':').trim().parse().unwrap();
    feed.stream.set_read_timeout(None).unwrap();
    std::thread::spawn(move || {
        while let Ok(push) = feed.try_reply() {
            let text = String::from_utf8_lossy(&push).into_owned();
            let mut entries = entries.lock().unwrap();
            if text.ends_with("_\r\n") {
                entries.clear();
            }
            for line in text.lines() {
                entries.remove(line);
            }
        }
    });
    id
}

fn serve(mut client: TcpStream, mut upstream: Way, entries: &Entries, flaw: Flaw, feed: Option<i64>) {
    if let Some(id) = feed {
        let tracking = format!("CLIENT TRACKING ON REDIRECT {id}");
        upstream.ask(&[], &crate::support::line(&tracking));
    }
    let _ = client.set_nodelay(true);
    let limits = Limits { max_request: 1 << 20, ..Limits::default() };
    let (mut framer, mut buf) = (RequestFramer::new(limits), Vec::new());
    let (mut identity, mut in_transaction) = (Vec::new(), false);
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
        let known = cached.then(|| entries.lock().unwrap().get(&words[1])?.get(&entry).cloned()).flatten();
        let reply = match known {
            Some(reply) => reply,
            None => {
                let Some(reply) = upstream.ask(&words, &raw) else { return };
                if cached && reply[0] != b'-' {
                    if flaw == Flaw::NoLeases {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    entries.lock().unwrap().entry(words[1].clone()).or_default().insert(entry, reply.clone());
                }
                reply
            }
        };
        if client.write_all(&reply).is_err() {
            return;
        }
    }
}
