//! One server, some sidecars behind relays, and the clients that write, read and note what they see.

use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use super::history::{By, KeyHistory, Micros, NEVER, Read, Version};
use super::model::{Allowed, KINDS, Kind, op};
use super::random::Random;
use crate::support::{Conn, request};

/// Databases of the keys.
const DBS: [u32; 2] = [0, 1];

/// How long a writer that does not know what became of its write waits until it looks: what was still on the
/// way has arrived or is lost by then.
const RESOLVE: Duration = Duration::from_millis(60);

/// Who a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ident {
    pub db: u32,
    pub resp3: bool,
    pub user: Option<&'static str>,
}

const fn ident(db: u32, resp3: bool, user: Option<&'static str>) -> Ident {
    Ident { db, resp3, user }
}

/// The last is not allowed to read what stands outside the namespaces.
pub const IDENTS: [Ident; 5] = [
    ident(0, false, None),
    ident(0, true, None),
    ident(1, false, None),
    ident(0, false, Some("alice")),
    ident(0, false, Some("eve")),
];
pub const EVE: u8 = 4;

/// The users, to be made on each server.
pub const USERS: [&[&str]; 2] = [
    &["ACL", "SETUSER", "alice", "on", ">pw", "~*", "&*", "+@all"],
    &["ACL", "SETUSER", "eve", "on", ">pw", "~users/*", "&*", "+@all"],
];

pub struct Key {
    pub name: String,
    pub db: u32,
    pub kind: Kind,
    pub log: Mutex<Vec<Version>>,
}

/// A key whose every increment counts.
pub struct Counter {
    pub name: String,
    pub attempted: AtomicU64,
    pub acknowledged: AtomicU64,
}

/// What the scenario is about to do to the server, so that writers do not misjudge it.
pub struct World {
    origin: Instant,
    pub sidecars: Vec<SocketAddr>,
    /// The server that counts now.
    pub server: Mutex<SocketAddr>,
    pub keys: Vec<Key>,
    pub counters: Vec<Counter>,
    pub allowed: Allowed,
    pub vanishes: bool,
    /// Shares of 100 writes that go straight to the server.
    pub foreign: u64,
    /// Writers hold it to read while they write; who changes the whole server holds it to write.
    pub gate: RwLock<()>,
    /// The server is away or about to be emptied: what became of a write cannot be looked up.
    pub lost: AtomicBool,
    stop: AtomicBool,
    noise: Mutex<Vec<(Micros, Micros)>>,
    pub errors: AtomicU64,
    pub acknowledged: AtomicU64,
    pub leaks: Mutex<Vec<String>>,
    /// Requests that were never answered.
    pub hangs: Mutex<Vec<String>>,
    /// Between two writes of one writer.
    pub pace: Duration,
}

pub struct Setup {
    pub writers: usize,
    pub allowed: Allowed,
    pub vanishes: bool,
    pub foreign: u64,
    pub namespaces_only: bool,
    pub pace: Duration,
}

impl World {
    pub fn new(sidecars: Vec<SocketAddr>, server: SocketAddr, setup: &Setup) -> Self {
        let mut keys = Vec::new();
        // Each kind in each database under the same name, in turn inside and outside the namespaces.
        for (i, kind) in KINDS.into_iter().cycle().take(7 * setup.writers.div_ceil(2)).enumerate() {
            let inside = i % 2 == 0 || setup.namespaces_only;
            let name = format!("{}{kind:?}{i}", if inside { "users/" } else { "free:" });
            for db in DBS {
                let first = Version { content: None, invoke: 0, complete: 0, by: By::Foreign };
                keys.push(Key { name: name.clone(), db, kind, log: Mutex::new(vec![first]) });
            }
        }
        let counter = |i| Counter {
            name: format!("users/count{i}"),
            attempted: AtomicU64::default(),
            acknowledged: AtomicU64::default(),
        };
        Self {
            origin: Instant::now(),
            sidecars,
            server: Mutex::new(server),
            keys,
            counters: (0..setup.writers).map(counter).collect(),
            allowed: setup.allowed,
            vanishes: setup.vanishes,
            foreign: setup.foreign,
            gate: RwLock::default(),
            lost: AtomicBool::default(),
            stop: AtomicBool::default(),
            noise: Mutex::default(),
            errors: AtomicU64::default(),
            acknowledged: AtomicU64::default(),
            leaks: Mutex::default(),
            hangs: Mutex::default(),
            pace: setup.pace,
        }
    }

    pub fn now(&self) -> Micros {
        self.origin.elapsed().as_micros() as Micros
    }

    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// A connection of `ident` to a sidecar.
    fn dial(&self, sidecar: u8, ident: u8) -> Option<Conn> {
        self.log_in(Conn::to(self.sidecars[sidecar as usize]), IDENTS[ident as usize])
    }

    /// A connection straight to the server; `None` while it is away.
    pub fn direct(&self, db: u32) -> Option<Conn> {
        let address = *self.server.lock().unwrap();
        self.log_in(Conn::try_to(address).ok()?, ident(db, false, None))
    }

    fn log_in(&self, mut conn: Conn, ident: Ident) -> Option<Conn> {
        let mut ask = |line: &str| call(&mut conn, &line.split(' ').collect::<Vec<_>>()).is_some();
        let user = ident.user.is_none_or(|user| ask(&format!("AUTH {user} pw")));
        let protocol = !ident.resp3 || ask("HELLO 3");
        let db = ident.db == 0 || ask(&format!("SELECT {}", ident.db));
        (user && protocol && db).then_some(conn)
    }

    /// Records what befell the whole server while no writer was at work: `content` says what each key
    /// holds; `None` if it was not touched.
    pub fn overturn(&self, invoke: Micros, complete: Micros, content: &[Option<Option<u64>>]) {
        for (key, content) in self.keys.iter().zip(content) {
            let Some(content) = *content else { continue };
            key.log.lock().unwrap().push(Version { content, invoke, complete, by: By::Foreign });
        }
        for counter in &self.counters {
            counter.acknowledged.store(0, Relaxed);
        }
    }

    /// What a key holds, as the server says.
    pub fn held(&self, conn: &mut Conn, key: &Key) -> Option<Option<u64>> {
        let ask = &key.kind.asks()[0];
        let command = ask.command(&key.name);
        let reply = call(conn, &command.iter().map(String::as_str).collect::<Vec<_>>())?;
        let log = key.log.lock().unwrap();
        log.iter().rev().map(|version| version.content).find(|content| reply == ask.expect(*content, false))
    }

    /// Measures how late this machine wakes a thread.
    pub fn listen_to_noise(&self) {
        const NAP: Duration = Duration::from_millis(2);
        while !self.is_stopped() {
            let before = self.now();
            std::thread::sleep(NAP);
            let late = (self.now() - before).saturating_sub(NAP.as_micros() as Micros);
            if late > 5_000 {
                self.noise.lock().unwrap().push((before, late));
            }
        }
    }

    /// All the lateness that was measured between two times.
    pub fn noise(&self, from: Micros, to: Micros) -> Micros {
        let noise = self.noise.lock().unwrap();
        let near = noise.iter().filter(|(at, late)| *at <= to && at + late >= from);
        near.map(|(_, late)| late).sum()
    }

    pub fn histories(&self, reads: Vec<(usize, Read)>) -> Vec<KeyHistory> {
        let mut all: Vec<_> = self.keys.iter().map(|_| Vec::new()).collect();
        reads.into_iter().for_each(|(key, read)| all[key].push(read));
        let keys = self.keys.iter().zip(all);
        keys.map(|(key, reads)| KeyHistory {
            name: format!("{}@{}", key.name, key.db),
            kind: key.kind,
            vanishes: self.vanishes,
            versions: key.log.lock().unwrap().clone(),
            reads,
        })
        .collect()
    }
}

/// The raw reply; `None` if the connection is of no use any more, or the reply is an error.
pub fn call(conn: &mut Conn, args: &[&str]) -> Option<Vec<u8>> {
    let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
    conn.stream.write_all(&request(&args)).ok()?;
    conn.try_reply().ok().filter(|reply| reply[0] != b'-')
}

/// Connections that are made when they are needed, and again when they are lost.
struct Dialled<'w> {
    world: &'w World,
    sidecars: Vec<[Option<Conn>; IDENTS.len()]>,
    direct: [Option<(SocketAddr, Conn)>; DBS.len()],
}

impl<'w> Dialled<'w> {
    fn new(world: &'w World) -> Self {
        let sidecars = world.sidecars.iter().map(|_| Default::default()).collect();
        Self { world, sidecars, direct: Default::default() }
    }

    /// Sends all commands in one packet and gives all replies, errors among them.
    fn send(&mut self, to: To, packet: &[u8], replies: usize) -> Option<Vec<Vec<u8>>> {
        let world = self.world;
        let address = *world.server.lock().unwrap();
        let conn = match to {
            To::Sidecar(sidecar, ident) => {
                let slot = &mut self.sidecars[sidecar as usize][ident as usize];
                if slot.is_none() {
                    *slot = world.dial(sidecar, ident);
                }
                slot.as_mut()
            }
            To::Server(db) => {
                let slot = &mut self.direct[db as usize];
                if slot.as_ref().is_none_or(|(known, _)| *known != address) {
                    *slot = world.direct(db).map(|conn| (address, conn));
                }
                slot.as_mut().map(|(_, conn)| conn)
            }
        };
        let got = conn.and_then(|conn| {
            conn.stream.write_all(packet).ok()?;
            let mut reply = || match conn.try_reply() {
                Ok(reply) => Some(reply),
                Err(error) => {
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
                        && let To::Sidecar(sidecar, ident) = to
                    {
                        let (now, packet) = (world.now(), String::from_utf8_lossy(packet));
                        world.hangs.lock().unwrap().push(format!(
                            "no reply until {now} us to {packet:?} through sidecar {sidecar}, identity {ident}"
                        ));
                    }
                    None
                }
            };
            (0..replies).map(|_| reply()).collect::<Option<Vec<_>>>()
        });
        if got.is_none() {
            match to {
                To::Sidecar(sidecar, ident) => self.sidecars[sidecar as usize][ident as usize] = None,
                To::Server(db) => self.direct[db as usize] = None,
            }
        }
        got
    }
}

#[derive(Clone, Copy)]
enum To {
    Sidecar(u8, u8),
    Server(u32),
}

fn packet(commands: &[Vec<String>]) -> Vec<u8> {
    let mut out = Vec::new();
    for command in commands {
        out.extend(request(&command.iter().map(|arg| arg.as_bytes()).collect::<Vec<_>>()));
    }
    out
}

/// Writes its share of the keys, one write after another for each key, and reads what it wrote.
pub fn write(world: &World, me: usize, writers: usize, seed: u64) -> Vec<(usize, Read)> {
    let mut random = Random::new(seed);
    let mut dialled = Dialled::new(world);
    let mut reads = Vec::new();
    let mine: Vec<usize> = (0..world.keys.len()).filter(|i| i / DBS.len() % writers == me).collect();
    let mut next: Vec<u64> = vec![1; world.keys.len()];
    let mut not_before: Vec<Micros> = vec![0; world.keys.len()];
    // How many versions there were when it was last known for certain what the key holds.
    let mut certain: Vec<usize> = vec![1; world.keys.len()];
    while !world.is_stopped() {
        std::thread::sleep(world.pace.mul_f64(0.5 + random.below(100) as f64 / 100.0));
        let _gate = world.gate.read().unwrap();
        if random.one_in(10) {
            count(world, me, &mut dialled, &mut random);
        }
        let at = *random.pick(&mine);
        let key = &world.keys[at];
        if world.now() < not_before[at] {
            continue;
        }
        let n = 2 * next[at] + u64::from(key.db);
        next[at] += 1;
        let sidecar = random.below(world.sidecars.len() as u64) as u8;
        let to = match random.below(100) < world.foreign {
            true => To::Server(key.db),
            false => To::Sidecar(sidecar, ident_for(key.db, &mut random)),
        };
        let (len, last) = {
            let log = key.log.lock().unwrap();
            (log.len(), log.last().and_then(|version| version.content))
        };
        let held = last.filter(|_| certain[at] == len);
        let by = match to {
            To::Sidecar(sidecar, _) => By::Sidecar(sidecar),
            To::Server(_) => By::Foreign,
        };
        let allowed = Allowed {
            // Nobody can know what such a script writes, so its own sidecar learns it from tracking.
            undeclared: world.allowed.undeclared && by == By::Foreign,
            ..world.allowed
        };
        let op = op(key.kind, &key.name, n, held, allowed, &mut random);
        let mut commands = op.commands;
        let behind = random.one_in(3) && op.expires.is_none() && by != By::Foreign;
        let ask = random.below(key.kind.asks().len() as u64) as u8;
        if behind {
            commands.push(key.kind.asks()[ask as usize].command(&key.name));
        }
        let version = len;
        let invoke = world.now();
        let content = op.content;
        key.log.lock().unwrap().push(Version { content, invoke, complete: NEVER, by });
        let replies = dialled.send(to, &packet(&commands), commands.len());
        let complete = world.now();
        let wrote = commands.len() - usize::from(behind);
        let ok = replies.as_ref().is_some_and(|replies| {
            let refused = |(command, reply): (&Vec<String>, &Vec<u8>)| {
                reply[0] == b'-' || command[0] == "EXEC" && reply[0] != b'*' || reply.starts_with(b"*-1")
            };
            !commands[..wrote].iter().zip(replies).any(refused)
        });
        if let (true, Some(replies), To::Sidecar(sidecar, ident)) = (behind, &replies, to)
            && replies[wrote][0] != b'-'
        {
            let reply = replies[wrote].clone().into();
            let resp3 = IDENTS[ident as usize].resp3;
            let behind = ok.then_some(version);
            reads.push((at, Read { sidecar, ask, ident, resp3, invoke, complete, behind, reply }));
        }
        if ok {
            world.acknowledged.fetch_add(1, Relaxed);
            key.log.lock().unwrap()[version].complete = complete;
            certain[at] = version + 1;
            if let Some(px) = op.expires {
                let (px, mut log) = (px * 1000, key.log.lock().unwrap());
                // The server counts in milliseconds.
                let complete = complete + px + 2_000;
                log.push(Version { content: None, invoke: invoke + px - 2_000, complete, by: By::Foreign });
                not_before[at] = complete;
                certain[at] = log.len();
            }
            // The sidecar of the write must know at once, another one soon.
            for sidecar in [sidecar, random.below(world.sidecars.len() as u64) as u8] {
                let ident = ident_for(key.db, &mut random);
                read(world, &mut dialled, at, sidecar, ident, 0, &mut reads);
            }
            continue;
        }
        world.errors.fetch_add(1, Relaxed);
        resolve(world, key, version, op.expires, &mut random);
        if op.expires.is_some() {
            not_before[at] = world.now() + 100_000;
        }
    }
    reads
}

fn ident_for(db: u32, random: &mut Random) -> u8 {
    match db {
        0 => *random.pick(&[0, 0, 0, 1, 3]),
        _ => 2,
    }
}

/// A write came to nothing, or nobody knows: looks at what the server holds.
fn resolve(world: &World, key: &Key, version: usize, expires: Option<u64>, random: &mut Random) {
    std::thread::sleep(RESOLVE.mul_f64(1.0 + random.below(10) as f64 / 10.0));
    loop {
        if world.lost.load(Relaxed) || world.is_stopped() {
            return;
        }
        let held = world.direct(key.db).and_then(|mut conn| {
            let ask = &key.kind.asks()[0];
            let command = ask.command(&key.name);
            call(&mut conn, &command.iter().map(String::as_str).collect::<Vec<_>>())
        });
        let Some(reply) = held else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        let now = world.now();
        let mut log = key.log.lock().unwrap();
        let content = log[version].content;
        if reply == key.kind.asks()[0].expect(content, false) && expires.is_none() {
            // Nobody was told, so no sidecar owes it at once.
            log[version] = Version { complete: now, by: By::Foreign, ..log[version] };
        } else if expires.is_some() {
            // It may have come and gone.
            let gone =
                Version { content: None, invoke: log[version].invoke, complete: NEVER, by: By::Foreign };
            log.push(gone);
        }
        return;
    }
}

/// Counts up once, and never twice.
fn count(world: &World, me: usize, dialled: &mut Dialled<'_>, random: &mut Random) {
    let counter = &world.counters[me];
    let to = match random.below(100) < world.foreign {
        true => To::Server(0),
        false => To::Sidecar(random.below(world.sidecars.len() as u64) as u8, 0),
    };
    counter.attempted.fetch_add(1, Relaxed);
    let command = vec![vec!["INCR".to_string(), counter.name.clone()]];
    let replies = dialled.send(to, &packet(&command), 1);
    if replies.is_some_and(|replies| replies[0][0] == b':') {
        counter.acknowledged.fetch_add(1, Relaxed);
    }
}

fn read(
    world: &World,
    dialled: &mut Dialled<'_>,
    at: usize,
    sidecar: u8,
    ident: u8,
    ask: u8,
    reads: &mut Vec<(usize, Read)>,
) -> bool {
    let key = &world.keys[at];
    let command = key.kind.asks()[ask as usize].command(&key.name);
    let invoke = world.now();
    let reply = dialled.send(To::Sidecar(sidecar, ident), &packet(&[command]), 1);
    let complete = world.now();
    let Some(reply) = reply.map(|mut replies| replies.remove(0)) else { return false };
    if reply[0] == b'-' {
        return false;
    }
    let resp3 = IDENTS[ident as usize].resp3;
    reads
        .push((at, Read { sidecar, ask, ident, resp3, invoke, complete, behind: None, reply: reply.into() }));
    true
}

/// Reads through one sidecar, a few keys at a time, each again and again.
pub fn reads(world: &World, sidecar: u8, seed: u64) -> Vec<(usize, Read)> {
    let mut random = Random::new(seed);
    let mut dialled = Dialled::new(world);
    let mut reads = Vec::new();
    while !world.is_stopped() {
        let at = random.below(world.keys.len() as u64) as usize;
        let key = &world.keys[at];
        let ident = ident_for(key.db, &mut random);
        let asks = key.kind.asks().len() as u64;
        let favourite = if random.one_in(2) { 0 } else { random.below(asks) as u8 };
        for _ in 0..20 + random.below(40) {
            let ask = if random.one_in(8) { random.below(asks) as u8 } else { favourite };
            if !read(world, &mut dialled, at, sidecar, ident, ask, &mut reads) {
                std::thread::sleep(Duration::from_millis(2));
            }
            if world.is_stopped() {
                break;
            }
            std::thread::sleep(Duration::from_micros(random.below(300)));
        }
        match random.below(6) {
            0 => mget(world, &mut dialled, sidecar, ident, &mut random, &mut reads),
            1 => eve(world, &mut dialled, sidecar, &mut random),
            2 => transaction(world, &mut dialled, sidecar, at, &mut reads),
            _ => {}
        }
    }
    reads
}

/// Each element is a `GET`.
fn mget(
    world: &World,
    dialled: &mut Dialled<'_>,
    sidecar: u8,
    ident: u8,
    random: &mut Random,
    reads: &mut Vec<(usize, Read)>,
) {
    let db = IDENTS[ident as usize].db;
    let plain =
        |i: &usize| matches!(world.keys[*i].kind, Kind::Text | Kind::Number) && world.keys[*i].db == db;
    let all: Vec<usize> = (0..world.keys.len()).filter(plain).collect();
    let keys: Vec<usize> = (0..1 + random.below(4)).map(|_| *random.pick(&all)).collect();
    let names = keys.iter().map(|i| world.keys[*i].name.clone());
    let command = ["MGET".to_string()].into_iter().chain(names).collect();
    let invoke = world.now();
    let reply = dialled.send(To::Sidecar(sidecar, ident), &packet(&[command]), 1);
    let complete = world.now();
    let Some(reply) = reply.map(|mut replies| replies.remove(0)) else { return };
    let Some(elements) = elements(&reply) else { return };
    let resp3 = IDENTS[ident as usize].resp3;
    for (at, reply) in keys.into_iter().zip(elements) {
        reads.push((at, Read { sidecar, ask: 0, ident, resp3, invoke, complete, behind: None, reply }));
    }
}

/// The raw elements of a flat array.
fn elements(reply: &[u8]) -> Option<Vec<Box<[u8]>>> {
    let mut text = std::str::from_utf8(reply).ok()?.strip_prefix('*')?.split_once("\r\n")?.1;
    let mut elements = Vec::new();
    while let Some((head, rest)) = text.split_once("\r\n") {
        let body = head.strip_prefix('$').and_then(|len| len.parse::<usize>().ok()).map_or(0, |len| len + 2);
        elements.push(text.as_bytes()[..head.len() + 2 + body].into());
        text = &rest[body..];
    }
    Some(elements)
}

/// Reads in a transaction, past the cache.
fn transaction(
    world: &World,
    dialled: &mut Dialled<'_>,
    sidecar: u8,
    at: usize,
    reads: &mut Vec<(usize, Read)>,
) {
    let key = &world.keys[at];
    let ident = if key.db == 0 { 0 } else { 2 };
    let commands =
        [vec!["MULTI".to_string()], key.kind.asks()[0].command(&key.name), vec!["EXEC".to_string()]];
    let invoke = world.now();
    let replies = dialled.send(To::Sidecar(sidecar, ident), &packet(&commands), 3);
    let complete = world.now();
    let Some(reply) = replies.and_then(|mut replies| replies.pop()) else { return };
    if let Some(reply) = reply.strip_prefix(b"*1\r\n") {
        let reply = reply.into();
        reads
            .push((at, Read { sidecar, ask: 0, ident, resp3: false, invoke, complete, behind: None, reply }));
    }
}

/// Asks for what she may not read; whatever it is, it must be an error.
fn eve(world: &World, dialled: &mut Dialled<'_>, sidecar: u8, random: &mut Random) {
    let secret: Vec<&Key> =
        world.keys.iter().filter(|key| key.db == 0 && key.name.starts_with("free:")).collect();
    if secret.is_empty() {
        return;
    }
    let key = random.pick(&secret);
    let command = random.pick(key.kind.asks()).command(&key.name);
    let said = format!("{command:?}");
    let Some(replies) = dialled.send(To::Sidecar(sidecar, EVE), &packet(&[command]), 1) else { return };
    if replies[0][0] != b'-' {
        let text = format!("eve asked {said} and got {:?}", String::from_utf8_lossy(&replies[0]));
        world.leaks.lock().unwrap().push(text);
    }
}

/// After quiescence: every question about every key, asked of every sidecar by everybody, has the server's
/// answer. Says how often that was asked, and what was wrong.
pub fn converge(world: &World) -> (u64, Vec<String>) {
    let (mut asked, mut wrong) = (0, Vec::new());
    let mut dialled = Dialled::new(world);
    for key in &world.keys {
        let commands: Vec<_> = key.kind.asks().iter().map(|ask| ask.command(&key.name)).collect();
        for (ident, who) in
            IDENTS.iter().enumerate().filter(|(i, who)| who.db == key.db && *i != EVE as usize)
        {
            let truth = world.log_in(Conn::to(*world.server.lock().unwrap()), Ident { user: None, ..*who });
            let truth = truth.and_then(|mut conn| {
                conn.stream.write_all(&packet(&commands)).ok()?;
                commands.iter().map(|_| conn.try_reply().ok()).collect::<Option<Vec<_>>>()
            });
            let Some(truth) = truth else {
                wrong.push("the server does not answer".to_string());
                continue;
            };
            for sidecar in 0..world.sidecars.len() as u8 {
                // Twice: the second time it is a hit.
                for _ in 0..2 {
                    let to = To::Sidecar(sidecar, ident as u8);
                    let replies = (0..20).find_map(|_| dialled.send(to, &packet(&commands), commands.len()));
                    for (i, command) in commands.iter().enumerate() {
                        asked += 1;
                        let said = replies.as_ref().map(|replies| replies[i].clone()).unwrap_or_default();
                        if said != truth[i] {
                            wrong.push(format!(
                                "{command:?} of db {} by {who:?} through sidecar {sidecar}: {:?}, but the server says {:?}",
                                key.db,
                                String::from_utf8_lossy(&said),
                                String::from_utf8_lossy(&truth[i]),
                            ));
                        }
                    }
                }
            }
        }
    }
    (asked, wrong)
}

/// Runs writers and readers until the world is stopped, while `while_running` goes on.
pub fn run(
    world: &Arc<World>,
    writers: usize,
    readers: usize,
    seed: u64,
    while_running: impl FnOnce(),
) -> Vec<(usize, Read)> {
    let mut threads = Vec::new();
    for me in 0..writers {
        let world = world.clone();
        threads.push(std::thread::spawn(move || write(&world, me, writers, seed ^ (me as u64 + 1) << 20)));
    }
    for sidecar in 0..world.sidecars.len() {
        for i in 0..readers {
            let world = world.clone();
            let seed = seed ^ ((sidecar * readers + i) as u64 + 1) << 32;
            threads.push(std::thread::spawn(move || reads(&world, sidecar as u8, seed)));
        }
    }
    let theirs = world.clone();
    let noise = std::thread::spawn(move || theirs.listen_to_noise());
    while_running();
    world.stop();
    let _ = noise.join();
    threads.into_iter().flat_map(|thread| thread.join().expect("no client panics")).collect()
}
