//! What a server has executed, as it says itself (`MONITOR`), and whether write-back has kept its promise by that.
//!
//! Values that come through a nearside are `w`, a number that grows, and `@` with its name if there are several; those of others
//! are `f` and a number. Others never read.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::{Conn, SOON};

/// Microseconds since the epoch.
pub fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// A write of one of nearside's clients: `None` deletes. Those of a key stand in the order in which they were sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The nearside's name, as in the value.
    pub by: &'static str,
    pub key: String,
    pub value: Option<String>,
    pub at: u64,
    pub acked: bool,
}

/// A command that the server has executed.
#[derive(Clone, Debug)]
pub struct Executed {
    pub at: u64,
    /// The connection, or `lua`: part of a flush.
    pub client: String,
    pub words: Vec<String>,
}

impl Executed {
    /// `1339518083.107412 [0 lua] "SET" "k" "v"`
    fn of(line: &str) -> Option<Self> {
        let (time, rest) = line.trim_start_matches('+').split_once(' ')?;
        let (client, said) = rest.split_once("] \"")?;
        let at = (time.parse::<f64>().ok()? * 1e6) as u64;
        let words = said.trim_end().strip_suffix('"')?.split("\" \"").map(str::to_owned).collect();
        Some(Self { at, client: client.rsplit(' ').next()?.to_owned(), words })
    }

    fn is_by_script(&self) -> bool {
        self.client == "lua"
    }

    /// Whether it is the script of a flush.
    pub fn is_flush(&self) -> bool {
        matches!(&*self.words[0], "EVAL" | "EVALSHA")
    }

    /// The value that a flush brings, if this is one.
    fn flushes(&self) -> Option<&str> {
        self.words.get(5).map(String::as_str).filter(|value| self.is_flush() && origin(value).is_some())
    }
}

/// One who sees all that a server executes.
pub struct Witness {
    address: SocketAddr,
    seen: mpsc::Receiver<Executed>,
    all: Vec<Executed>,
}

impl Witness {
    pub fn of(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        assert_eq!(lines.next().as_deref(), Some("+OK"));
        let (sender, seen) = mpsc::channel();
        std::thread::spawn(move || {
            lines.filter_map(|line| Executed::of(&line)).try_for_each(|event| sender.send(event))
        });
        Self { address, seen, all: Vec::new() }
    }

    /// All that was executed until now.
    pub fn history(&mut self) -> &[Executed] {
        let marker = format!("marker-{}", micros());
        Conn::to(self.address).text(&format!("ECHO {marker}"));
        let deadline = Instant::now() + 2 * SOON;
        while self.all.last().is_none_or(|last| last.words.last() != Some(&marker)) {
            let left = deadline.saturating_duration_since(Instant::now());
            self.all.push(self.seen.recv_timeout(left).expect("the server says what it executes"));
        }
        &self.all
    }
}

/// What stands under a key while the history is told again.
#[derive(Default)]
struct Key {
    value: Option<String>,
    /// The nearsides that have read it since it was written, as far as they are known.
    read_by: HashSet<String>,
    /// The newest number of each.
    newest: HashMap<String, u64>,
    /// When there was nothing, beside before the first write.
    absent: Vec<u64>,
    reached: HashSet<String>,
}

/// A value's number, and whose it is.
fn origin(value: &str) -> Option<(u64, &str)> {
    let said = value.strip_prefix('w')?;
    let (number, name) = said.split_once('@').unwrap_or((said, ""));
    Some((number.parse().ok()?, name))
}

/// A connection of whom it is not known whose it is.
const UNKNOWN: &str = "?";

impl Key {
    /// A flush of this nearside's; nobody else's newer write goes by it.
    fn flush(&self, name: &str, value: Option<&str>, by: &str, problems: &mut Vec<String>) {
        let is_theirs = |stood: &&str| origin(stood).is_none_or(|(_, owner)| owner != by);
        if let Some(theirs) = self.value.as_deref().filter(is_theirs)
            && !self.read_by.contains(by)
            && !self.read_by.contains(UNKNOWN)
        {
            problems.push(format!(
                "{name}: {theirs}, newer than what it was made upon, went by {value:?} of {by:?}"
            ));
        }
    }

    fn write(&mut self, name: &str, event: &Executed, value: Option<&str>, problems: &mut Vec<String>) {
        match value {
            Some(value) => {
                if let Some((number, owner)) = origin(value) {
                    let newest = self.newest.entry(owner.into()).or_default();
                    if number <= *newest {
                        problems.push(format!("{name}: {value} was written after w{newest} of the same"));
                    }
                    *newest = number;
                }
                self.reached.insert(value.into());
            }
            None => self.absent.push(event.at),
        }
        self.value = value.map(Into::into);
        self.read_by.clear();
    }
}

/// All by which the promise was broken: `logged` are the entries of the conflict log.
pub fn judge(history: &[Executed], sent: &[Sent], logged: &[(String, Option<String>)]) -> Vec<String> {
    let (mut keys, mut problems) = (HashMap::<&str, Key>::new(), Vec::new());
    let flushes = history.iter().filter_map(|event| Some((&*event.client, origin(event.flushes()?)?.1)));
    let owners: HashMap<_, _> = flushes.collect();
    let owner = |client: &str| owners.get(client).copied();
    // Who makes the flush whose commands follow.
    let mut flusher = None;
    for event in history {
        let words: Vec<_> = event.words.iter().map(String::as_str).collect();
        let command = words[0].to_ascii_lowercase();
        let name = words.get(1).copied().unwrap_or_default();
        let key = keys.entry(name).or_default();
        match &*command {
            "eval" | "evalsha" => flusher = owner(&event.client),
            "set" | "del" | "getdel" => {
                let value = words.get(2).copied().filter(|_| command == "set");
                if let Some(by) = flusher.filter(|_| event.is_by_script()) {
                    key.flush(name, value, by, &mut problems);
                }
                key.write(name, event, value, &mut problems);
            }
            "get" if !event.is_by_script() => {
                key.read_by.insert(owner(&event.client).unwrap_or(UNKNOWN).into());
            }
            _ => {}
        }
    }
    let logged: HashSet<_> = logged.iter().collect();
    // Of each key what comes later, acknowledged or executed, goes over what comes before.
    let mut later = HashSet::new();
    for write in sent.iter().rev() {
        let key = keys.entry(&write.key).or_default();
        let reached = match &write.value {
            Some(value) => key.reached.contains(value),
            None => key.absent.iter().any(|at| *at + 1000 >= write.at) || key.reached.is_empty(),
        };
        let is_logged = logged.contains(&(write.key.clone(), write.value.clone()));
        if write.acked && !reached && !is_logged && !later.contains(&(write.by, &write.key)) {
            problems.push(format!("{}: {:?} was acknowledged, and is lost", write.key, write.value));
        }
        if write.acked || reached || is_logged {
            later.insert((write.by, &write.key));
        }
    }
    problems
}

/// Keys and values of what `NEARSIDE CONFLICTS` answers.
pub fn logged(reply: &str) -> Vec<(String, Option<String>)> {
    let (mut entries, mut key) = (Vec::new(), String::new());
    let lines: Vec<_> = reply.split("\r\n").collect();
    for (i, line) in lines.iter().enumerate() {
        match *line {
            "key" => key = lines[i + 2].to_owned(),
            "ours" => entries.push((key.clone(), (lines[i + 1] != "$-1").then(|| lines[i + 2].to_owned()))),
            _ => {}
        }
    }
    entries
}
