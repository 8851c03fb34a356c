//! What goes wrong: with the server, and with the connections to it. What clients do wrong is in `misuse`.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::scenario::{Stage, make_users};
use super::world::{World, call};
use crate::support::chaos::{BOTH, Chaos, Role, Way};
use crate::support::{Conn, Redis, eventually};

/// Makes `replica` a replica of `master` and waits until it is in step.
pub fn follow(replica: &Redis, master: &Redis) {
    let mut conn = replica.connect();
    conn.text(&format!("REPLICAOF 127.0.0.1 {}", master.port));
    eventually("the replica is in step", || conn.text("INFO replication").contains("master_link_status:up"));
}

pub fn nap(stage: &mut Stage, from: u64, to: u64) {
    std::thread::sleep(Duration::from_millis(from + stage.random.below(to - from)));
}

pub fn calm(stage: &mut Stage) {
    nap(stage, 100, 400);
}

pub fn any(stage: &mut Stage) -> usize {
    stage.random.below(stage.chaos.len() as u64) as usize
}

pub fn delay(stage: &mut Stage) {
    let i = any(stage);
    stage.chaos[i].delay(Duration::from_millis(2 + stage.random.below(30)));
    nap(stage, 200, 800);
    stage.chaos[i].delay(Duration::ZERO);
}

fn delay_role(stage: &mut Stage, role: Role, longest: u64) {
    let i = any(stage);
    let longest = Duration::from_millis(1 + stage.random.below(longest));
    let way = *stage.random.pick(&BOTH);
    let pairs = stage.chaos[i].of(role);
    pairs.iter().for_each(|pair| pair.delay(way, longest));
    nap(stage, 200, 800);
    pairs.iter().for_each(|pair| pair.delay(way, Duration::ZERO));
}

/// Up to well above the bound.
pub fn delay_feed(stage: &mut Stage) {
    let longest = *stage.random.pick(&[10, 50, 200, 700]);
    delay_role(stage, Role::Feed, longest);
}

pub fn delay_data(stage: &mut Stage) {
    delay_role(stage, Role::Data, 30);
}

pub fn cut(stage: &mut Stage) {
    let i = any(stage);
    let pairs = stage.chaos[i].pairs();
    if !pairs.is_empty() {
        let pair = stage.random.pick(&pairs);
        let way = if stage.random.one_in(2) { Way::Up } else { Way::Down };
        match stage.random.below(4) {
            0 => pair.reset(),
            1 => pair.half_close(way),
            2 => {
                pair.cut_after(1 + stage.random.below(3000) as usize);
                nap(stage, 20, 300);
                // If so much was not said, it would be cut when all is said to be over.
                pair.reset();
                return;
            }
            _ => stage.chaos[i].reset_all(),
        }
    }
    nap(stage, 20, 300);
}

pub fn cut_feed(stage: &mut Stage) {
    let i = any(stage);
    stage.chaos[i].of(Role::Feed).iter().for_each(|pair| pair.reset());
    nap(stage, 50, 300);
}

pub fn refuse(stage: &mut Stage) {
    let i = any(stage);
    stage.chaos[i].refuse(true);
    stage.chaos[i].reset_all();
    nap(stage, 50, 400);
    stage.chaos[i].refuse(false);
    nap(stage, 300, 400);
}

fn half_open(stage: &mut Stage, role: Role) {
    let i = any(stage);
    let pairs = stage.chaos[i].of(role);
    let ways: &[Way] = match stage.random.below(3) {
        0 => &[Way::Up],
        1 => &[Way::Down],
        _ => &BOTH,
    };
    pairs.iter().for_each(|pair| ways.iter().for_each(|way| pair.swallow(*way)));
    nap(stage, 100, 900);
    pairs.iter().for_each(|pair| pair.reset());
    nap(stage, 200, 300);
}

pub fn half_open_feed(stage: &mut Stage) {
    half_open(stage, Role::Feed);
}

pub fn half_open_data(stage: &mut Stage) {
    half_open(stage, Role::Data);
}

pub fn operator(stage: &Stage) -> Conn {
    stage.redis.connect()
}

pub fn kill_feed(stage: &mut Stage) {
    operator(stage).text("CLIENT KILL TYPE pubsub");
    nap(stage, 100, 400);
}

pub fn kill_data(stage: &mut Stage) {
    let mut conn = operator(stage);
    let clients = conn.text("CLIENT LIST TYPE normal");
    let tracked: Vec<&str> = clients.lines().filter(|line| line.contains("flags=t")).collect();
    let ids: Vec<&str> =
        tracked.iter().filter_map(|line| line.strip_prefix("id=")?.split(' ').next()).collect();
    if !ids.is_empty() {
        conn.text(&format!("CLIENT KILL ID {}", stage.random.pick(&ids)));
    }
    nap(stage, 50, 300);
}

pub fn signal(pid: u32, signal: &str) {
    let done = std::process::Command::new("kill").args([signal, &pid.to_string()]).status();
    assert!(done.is_ok_and(|status| status.success()), "kill {signal}");
}

pub fn stop(stage: &mut Stage) {
    signal(stage.redis.pid(), "-STOP");
    std::thread::sleep(Duration::from_secs(2));
    signal(stage.redis.pid(), "-CONT");
    nap(stage, 500, 1500);
}

pub fn pause(stage: &mut Stage) {
    let mode = *stage.random.pick(&["WRITE", "ALL"]);
    let millis = 100 + stage.random.below(600);
    operator(stage).text(&format!("CLIENT PAUSE {millis} {mode}"));
    nap(stage, 700, 900);
}

/// Does something to the whole server while no write is under way.
fn overturn(stage: &mut Stage, line: &str, content: impl Fn(&World, usize) -> Option<Option<u64>>) {
    let world = stage.world.clone();
    let gate = world.gate.write().unwrap();
    let content: Vec<_> = (0..world.keys.len()).map(|i| content(&world, i)).collect();
    let mut conn = operator(stage);
    let invoke = world.now();
    assert_eq!(conn.text(line), "+OK\r\n", "{line}");
    world.overturn(invoke, world.now(), &content);
    drop(gate);
    nap(stage, 100, 500);
}

pub fn flush(stage: &mut Stage) {
    match stage.random.below(3) {
        0 => overturn(stage, "FLUSHALL", |_, _| Some(None)),
        1 => overturn(stage, "FLUSHALL ASYNC", |_, _| Some(None)),
        _ => overturn(stage, "FLUSHDB", |world, i| (world.keys[i].db == 0).then_some(None)),
    }
}

pub fn swap(stage: &mut Stage) {
    // The keys stand in pairs: the same name in both databases. What the last write came to is for the
    // server to say.
    overturn(stage, "SWAPDB 0 1", |world, i| Some(held(world, i ^ 1)));
}

/// What a key holds by the server's account.
fn held(world: &World, i: usize) -> Option<u64> {
    let key = &world.keys[i];
    let mut conn = world.direct(key.db).expect("the server that counts");
    world.held(&mut conn, key).flatten()
}

pub fn restart(stage: &mut Stage) {
    let world = stage.world.clone();
    world.lost.store(true, Relaxed);
    let invoke = world.now();
    stage.redis.kill();
    let gate = world.gate.write().unwrap();
    nap(stage, 1, 300);
    stage.redis.restart();
    make_users(&stage.redis);
    world.overturn(invoke, world.now(), &vec![Some(None); world.keys.len()]);
    world.lost.store(false, Relaxed);
    drop(gate);
    nap(stage, 500, 1000);
}

pub fn overflow(stage: &mut Stage) {
    let mut conn = operator(stage);
    call(&mut conn, &["CONFIG", "SET", "client-output-buffer-limit", "pubsub 32kb 16kb 1"])
        .expect("a known setting");
    call(&mut conn, &["PUBLISH", "users/update", &"x".repeat(1 << 20)]);
    call(&mut conn, &["CONFIG", "SET", "client-output-buffer-limit", "pubsub 32mb 8mb 60"]);
    nap(stage, 200, 500);
}

pub fn fill_up(stage: &mut Stage) {
    let mut conn = operator(stage);
    for _ in 0..100 {
        let name = format!("filler{}", stage.random.below(1000));
        call(&mut conn, &["SET", &name, &"x".repeat(20_000)]);
    }
    nap(stage, 20, 100);
}

pub fn promote(stage: &mut Stage) {
    promotion(stage, false);
}

/// As a proxy in between may do it: what is open stays with the old server.
pub fn promote_split(stage: &mut Stage) {
    promotion(stage, true);
}

fn promotion(stage: &mut Stage, split: bool) {
    let world = stage.world.clone();
    nap(stage, 300, 800);
    let Some(replica) = stage.replica.take() else { return };
    // The replica lags behind, so acknowledged writes are lost.
    signal(replica.pid(), "-STOP");
    nap(stage, 20, 100);
    world.lost.store(true, Relaxed);
    let invoke = world.now();
    let gate = world.gate.write().unwrap();
    call(&mut operator(stage), &["CLIENT", "KILL", "TYPE", "replica"]);
    signal(replica.pid(), "-CONT");
    assert_eq!(replica.connect().text("REPLICAOF NO ONE"), "+OK\r\n");
    stage.chaos.iter().for_each(|chaos| chaos.target(replica.address()));
    // More than once: a connection may have been under way to the old server.
    for _ in 0..10 {
        let pairs = stage.chaos.iter().flat_map(Chaos::pairs);
        let old = pairs.filter(|pair| pair.target != replica.address());
        old.filter(|pair| !split || pair.role() != Role::Feed).for_each(|pair| pair.reset());
        std::thread::sleep(Duration::from_millis(10));
    }
    *world.server.lock().unwrap() = replica.address();
    let held: Vec<_> = (0..world.keys.len()).map(|i| Some(held(&world, i))).collect();
    world.overturn(invoke, world.now(), &held);
    world.lost.store(false, Relaxed);
    let old = std::mem::replace(&mut stage.redis, replica);
    drop(gate);
    nap(stage, 1000, 1500);
    follow(&old, &stage.redis);
    stage.replica = Some(old);
}

/// Somebody's script does not end for a while. Whoever asks meanwhile is answered `-BUSY`, also by hand-shakes.
pub fn busy(stage: &mut Stage) {
    busy_while(stage, |_| ());
}

/// The same, and all connections are lost meanwhile, so that nearside makes new ones to a busy server.
pub fn busy_cut(stage: &mut Stage) {
    busy_while(stage, |stage| stage.chaos.iter().for_each(Chaos::reset_all));
}

fn busy_while(stage: &mut Stage, meanwhile: fn(&Stage)) {
    let mut script = operator(stage);
    script.send(&crate::support::request(&[b"EVAL", b"while true do end", b"0"]));
    nap(stage, 30, 300);
    meanwhile(stage);
    nap(stage, 100, 1500);
    let mut conn = operator(stage);
    eventually("the script is killed", || {
        let said = conn.text("SCRIPT KILL");
        said == "+OK\r\n" || said.starts_with("-NOTBUSY")
    });
    let forgetful = stage.world.sidecars.iter().filter(|sidecar| !keeps(**sidecar)).count();
    if forgetful > 0 {
        let story = format!("{forgetful} sidecars cache nothing, though the server is busy no more");
        stage.world.misused.lock().unwrap().push(story);
    }
    nap(stage, 200, 500);
}

/// Whether what is read through the sidecar is soon kept.
fn keeps(sidecar: SocketAddr) -> bool {
    const KEY: &str = "users/kept";
    let (mut conn, until) = (Conn::to(sidecar), Instant::now() + Duration::from_secs(4));
    while Instant::now() < until {
        call(&mut conn, &["GET", KEY]);
        if conn.text(&format!("NEARSIDE WHY {KEY}")).contains("cached: yes") {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// The server takes no more clients when all connections of one sidecar are lost. It must not be stormed.
pub fn maxclients(stage: &mut Stage) {
    /// Some at once, for each user, database and protocol, and then with pauses.
    const AT_ONCE: u64 = 60;
    const IN_A_SECOND: u64 = 100;
    let mut conn = operator(stage);
    let i = any(stage);
    call(&mut conn, &["CONFIG", "SET", "maxclients", "1"]).expect("a known setting");
    let (before, begun) = (stage.chaos[i].accepted(), Instant::now());
    stage.chaos[i].reset_all();
    nap(stage, 300, 1500);
    let (tries, lasted) = (stage.chaos[i].accepted() - before, begun.elapsed());
    call(&mut conn, &["CONFIG", "SET", "maxclients", "10000"]).expect("a known setting");
    let most = AT_ONCE + IN_A_SECOND * lasted.as_millis() as u64 / 1000;
    if tries > most {
        let story =
            format!("sidecar {i} connected {tries} times in {lasted:?} to a server that has no room for it");
        stage.world.misused.lock().unwrap().push(story);
    }
    nap(stage, 500, 900);
}

/// Connections that are a session's own: not tracked, and not the feed's.
pub fn kill_dedicated(stage: &mut Stage) {
    let mut conn = operator(stage);
    let clients = conn.text("CLIENT LIST TYPE normal");
    let own = clients.lines().filter(|line| line.contains("name=nearside") && !line.contains("flags=t"));
    let ids: Vec<&str> = own.filter_map(|line| line.strip_prefix("id=")?.split(' ').next()).collect();
    for id in ids {
        conn.text(&format!("CLIENT KILL ID {id}"));
    }
    nap(stage, 5, 50);
}
