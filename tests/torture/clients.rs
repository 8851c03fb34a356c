//! The clients: they write, read and note what they see.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::history::{By, Micros, NEVER, Read, Version};
use super::model::{Kind, op};
use super::random::Random;
use super::world::{Dialled, EVE, IDENTS, Ident, Key, To, World, call, packet};
use crate::support::Conn;

/// How long a writer that does not know what became of its write waits until it looks: what was still on the
/// way has arrived or is lost by then.
const RESOLVE: Duration = Duration::from_millis(60);

/// Writes its share of the keys, one write after another for each key, and reads what it wrote.
pub fn write(world: &World, me: usize, writers: usize, seed: u64) -> Vec<(usize, Read)> {
    let mut random = Random::new(seed);
    let mut dialled = Dialled::new(world);
    let mut reads = Vec::new();
    let mine: Vec<usize> = (0..world.keys.len()).filter(|i| i / world.dbs % writers == me).collect();
    let mut next: Vec<u64> = vec![1; world.keys.len()];
    let mut not_before: Vec<Micros> = vec![0; world.keys.len()];
    // How many versions there were when it was last known for certain what the key holds.
    let mut certain: Vec<usize> = vec![1; world.keys.len()];
    while !world.is_stopped() {
        std::thread::sleep(world.pace.mul_f64(0.5 + random.below(100) as f64 / 100.0));
        let _all = world.gate.read().unwrap();
        if random.one_in(10) {
            count(world, me, &mut dialled, &mut random);
        }
        if random.one_in(15) {
            count_if_unchanged(world, writers, &mut dialled, &mut random);
        }
        let at = *random.pick(&mine);
        let key = &world.keys[at];
        if world.now() < not_before[at] || key.lost.load(Relaxed) {
            continue;
        }
        let Ok(_gate) = key.gate.try_lock() else { continue };
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
        let op = op(key.kind, &key.name, n, held, world.allowed, &mut random);
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
        let replies = dialled.send(to, &commands);
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
        if world.lost.load(Relaxed) || key.lost.load(Relaxed) || world.is_stopped() {
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
    let replies = dialled.send(to, &command);
    if replies.is_some_and(|replies| replies[0][0] == b':') {
        counter.acknowledged.fetch_add(1, Relaxed);
    }
}

/// Counts up as optimists do, with WATCH, together with all other writers: no count is lost.
fn count_if_unchanged(world: &World, writers: usize, dialled: &mut Dialled<'_>, random: &mut Random) {
    let counter = &world.counters[writers];
    let to = match random.below(100) < world.foreign {
        true => To::Server(0),
        false => To::Sidecar(random.below(world.sidecars.len() as u64) as u8, 0),
    };
    let command = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
    let watch = [command(&["WATCH", &counter.name]), command(&["GET", &counter.name])];
    let Some(replies) = dialled.send(to, &watch) else { return };
    if replies[0] != b"+OK\r\n" {
        return;
    }
    let held = match std::str::from_utf8(&replies[1]).ok().and_then(|text| text.split("\r\n").nth(1)) {
        _ if replies[1].starts_with(b"$-1") => Some(0),
        Some(digits) if replies[1][0] == b'$' => digits.parse::<u64>().ok(),
        _ => None,
    };
    let Some(held) = held else {
        dialled.send(to, &[command(&["UNWATCH"])]);
        return;
    };
    std::thread::sleep(Duration::from_micros(random.below(3000)));
    counter.attempted.fetch_add(1, Relaxed);
    let next = (held + 1).to_string();
    let write = [command(&["MULTI"]), command(&["SET", &counter.name, &next]), command(&["EXEC"])];
    let replies = dialled.send(to, &write);
    if replies.is_some_and(|replies| replies[2].starts_with(b"*1\r\n+OK")) {
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
    let reply = dialled.send(To::Sidecar(sidecar, ident), &[command]);
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
    let reply = dialled.send(To::Sidecar(sidecar, ident), &[command]);
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
    let replies = dialled.send(To::Sidecar(sidecar, ident), &commands);
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
    let Some(replies) = dialled.send(To::Sidecar(sidecar, EVE), &[command]) else { return };
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
                    let replies = (0..20).find_map(|_| dialled.send(to, &commands));
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
