//! One server, some sidecars behind relays, and the clients that write, read and note what they see.

use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use super::history::{By, KeyHistory, Micros, Read, Version};
use super::model::{Allowed, KINDS, Kind};
use crate::support::{Conn, request};

/// Databases of the keys; of a cluster, the first alone.
pub const DBS: [u32; 2] = [0, 1];

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
    /// Held while it is written; who changes what it holds by other means holds it, too.
    pub gate: Mutex<()>,
    /// As [`World::lost`], of this key alone.
    pub lost: AtomicBool,
}

/// A key whose every increment counts.
pub struct Counter {
    pub name: String,
    pub attempted: AtomicU64,
    pub acknowledged: AtomicU64,
}

impl Key {
    /// Between these times, and by no write of a client's, it came to hold this.
    pub fn overturn(&self, invoke: Micros, complete: Micros, content: Option<u64>) {
        self.log.lock().unwrap().push(Version { content, invoke, complete, by: By::Foreign });
    }
}

impl Counter {
    /// What was acknowledged so far may be lost.
    pub fn overturn(&self) {
        self.acknowledged.store(0, Relaxed);
    }
}

/// What the scenario is about to do to the server, so that writers do not misjudge it.
pub struct World {
    origin: Instant,
    pub sidecars: Vec<SocketAddr>,
    /// The server that counts now.
    pub server: Mutex<SocketAddr>,
    pub keys: Vec<Key>,
    /// How many databases they are in.
    pub dbs: usize,
    /// One for each writer, and one for all of them together.
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
    /// Writes that were not acknowledged.
    pub errors: AtomicU64,
    /// Requests through sidecars that were answered by an error, or not at all.
    pub refused: AtomicU64,
    /// Those among them that there must not be.
    pub unserved: Mutex<Vec<String>>,
    must_serve: MustServe,
    pub acknowledged: AtomicU64,
    pub leaks: Mutex<Vec<String>>,
    /// Requests that were never answered.
    pub hangs: Mutex<Vec<String>>,
    /// Writes on a condition that was not there any more.
    pub lost_updates: Mutex<Vec<String>>,
    /// What a fault or one client did to the others, or to the machine.
    pub misused: Mutex<Vec<String>>,
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
    /// The keys are a cluster's: what belongs together is in one hash slot, and there is one database.
    pub cluster: bool,
    pub must_serve: MustServe,
}

/// What must not be answered by an error.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum MustServe {
    Nothing,
    /// A command for one key that is no part of a transaction, nor of a session that watches.
    SingleKeys,
    Everything,
}

impl World {
    pub fn new(sidecars: Vec<SocketAddr>, server: SocketAddr, setup: &Setup) -> Self {
        let (mut keys, dbs) = (Vec::new(), if setup.cluster { 1 } else { DBS.len() });
        // Each kind in each database under the same name, in turn inside and outside the namespaces.
        for (i, kind) in KINDS.into_iter().cycle().take(7 * setup.writers.div_ceil(2)).enumerate() {
            let inside = i % 2 == 0 || setup.namespaces_only;
            let own = if setup.cluster { format!("{{{kind:?}{i}}}") } else { format!("{kind:?}{i}") };
            let name = format!("{}{own}", if inside { "users/" } else { "free:" });
            for db in &DBS[..dbs] {
                let first = Version { content: None, invoke: 0, complete: 0, by: By::Foreign };
                keys.push(Key {
                    name: name.clone(),
                    db: *db,
                    kind,
                    log: Mutex::new(vec![first]),
                    gate: Mutex::default(),
                    lost: AtomicBool::default(),
                });
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
            dbs,
            counters: (0..=setup.writers).map(counter).collect(),
            allowed: setup.allowed,
            vanishes: setup.vanishes,
            foreign: setup.foreign,
            gate: RwLock::default(),
            lost: AtomicBool::default(),
            stop: AtomicBool::default(),
            noise: Mutex::default(),
            errors: AtomicU64::default(),
            refused: AtomicU64::default(),
            unserved: Mutex::default(),
            must_serve: setup.must_serve,
            acknowledged: AtomicU64::default(),
            leaks: Mutex::default(),
            hangs: Mutex::default(),
            lost_updates: Mutex::default(),
            misused: Mutex::default(),
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

    pub fn log_in(&self, mut conn: Conn, ident: Ident) -> Option<Conn> {
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
            key.overturn(invoke, complete, content);
        }
        self.counters.iter().for_each(Counter::overturn);
    }

    /// What a key holds, as the server says.
    pub fn held(&self, conn: &mut Conn, key: &Key) -> Option<Option<u64>> {
        let ask = &key.kind.asks()[0];
        let command = ask.command(&key.name);
        let reply = call(conn, &command.iter().map(String::as_str).collect::<Vec<_>>())?;
        let log = key.log.lock().unwrap();
        log.iter().rev().map(|version| version.content).find(|content| reply == ask.expect(*content, false))
    }

    /// Notes who was refused, or heard nothing.
    fn count_refused(&self, commands: &[Vec<String>], replies: Option<&[Vec<u8>]>) {
        let mut in_transaction = false;
        for (i, command) in commands.iter().enumerate() {
            in_transaction |= command[0] == "MULTI" || command[0] == "WATCH";
            let said = replies.map_or("nothing".into(), |replies| String::from_utf8_lossy(&replies[i]));
            if replies.is_some() && !said.starts_with('-') {
                continue;
            }
            self.refused.fetch_add(1, Relaxed);
            let must_be_served = match self.must_serve {
                MustServe::Nothing => false,
                MustServe::SingleKeys => !in_transaction && is_of_one_key(command),
                MustServe::Everything => true,
            };
            if must_be_served {
                self.unserved.lock().unwrap().push(format!("{command:?} was answered {said:?}"));
            }
        }
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
pub struct Dialled<'w> {
    world: &'w World,
    sidecars: Vec<[Option<Conn>; IDENTS.len()]>,
    direct: [Option<(SocketAddr, Conn)>; DBS.len()],
}

impl<'w> Dialled<'w> {
    pub fn new(world: &'w World) -> Self {
        let sidecars = world.sidecars.iter().map(|_| Default::default()).collect();
        Self { world, sidecars, direct: Default::default() }
    }

    /// Sends all commands in one packet and gives all replies, errors among them.
    pub fn send(&mut self, to: To, commands: &[Vec<String>]) -> Option<Vec<Vec<u8>>> {
        let replies = self.exchange(to, &packet(commands), commands.len());
        if matches!(to, To::Sidecar(_, ident) if ident != EVE) {
            self.world.count_refused(commands, replies.as_deref());
        }
        replies
    }

    fn exchange(&mut self, to: To, packet: &[u8], replies: usize) -> Option<Vec<Vec<u8>>> {
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

/// Whether a command concerns one key alone, and is no part of a transaction.
fn is_of_one_key(command: &[String]) -> bool {
    let others = "MULTI EXEC WATCH UNWATCH MGET MSET RENAME COPY BITOP SORT ZUNIONSTORE ZRANGESTORE SUNIONSTORE \
                  SCRIPT FUNCTION EVALSHA FCALL";
    let undeclared = command[0] == "EVAL" && command.get(3).is_some_and(|key| key.ends_with(".tmp"));
    !undeclared && !others.split(' ').any(|other| other == command[0])
}

#[derive(Clone, Copy)]
pub enum To {
    Sidecar(u8, u8),
    Server(u32),
}

pub fn packet(commands: &[Vec<String>]) -> Vec<u8> {
    let mut out = Vec::new();
    for command in commands {
        out.extend(request(&command.iter().map(|arg| arg.as_bytes()).collect::<Vec<_>>()));
    }
    out
}
