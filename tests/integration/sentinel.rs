//! Sentinels say where the upstream is: a failover costs clients errors that say what happened, and never a stale read
//! beyond the bound, nor a write that goes to the old master.

use crate::support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::program::Program;
use support::relay::Relay;
use support::sentinel::{
    SERVICE, Sentinel, Watched, behind, in_time, is_replica, replicate, server, signal, watch,
};
use support::{Conn, Nearside, Redis, eventually, free_port, line};

/// Writes until that succeeds. Until then nothing else is said than what happened.
#[track_caller]
fn until_written(nearside: &Nearside, command: &str) {
    let mut client = nearside.connect();
    let deadline = Instant::now() + support::sentinel::FAILOVER;
    loop {
        let said = client.text(command);
        let known = ["+OK", "-READONLY", "-ERR nearside: upstream main"];
        assert!(known.iter().any(|known| said.starts_with(known)), "{said}");
        if said.starts_with("+OK") {
            return;
        }
        assert!(Instant::now() < deadline, "no write succeeds: {said}, {}", nearside.get("/readyz").1);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads until a hit has given this.
#[track_caller]
fn until_hit(nearside: &Nearside, key: &str, value: &str) {
    let mut client = nearside.connect();
    in_time("hits go on", || {
        let before = nearside.stat("hits");
        client.args(&[b"GET", key.as_bytes()]).ends_with(format!("\r\n{value}\r\n").as_bytes())
            && nearside.stat("hits") > before
    });
}

fn calls(server: &Redis, command: &str) -> u64 {
    server.calls(command)
}

#[test]
fn after_a_planned_failover_all_go_to_the_new_master_and_hits_are_of_it() {
    let watched = Watched::start();
    for server in &watched.servers {
        // Who may not ask a server what it is, is served all the same.
        server.connect().cmd("ACL SETUSER bob on >b ~* &* +@all -@dangerous -@admin");
    }
    let nearside = watched.nearside(|config| config.workers = 2);
    let mut clients: Vec<_> = (0..6).map(|_| nearside.connect()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        match i / 2 {
            0 => {}
            1 => assert!(client.cmd("HELLO 3").starts_with(b"%")),
            _ => assert_eq!(client.text("AUTH bob b"), "+OK\r\n"),
        }
        assert_eq!(client.text("SET users/1 old"), "+OK\r\n");
        client.value("users/1");
    }
    until_hit(&nearside, "users/1", "old");
    let old = watched.master(0);
    watched.fail_over(0);
    until_written(&nearside, "SET users/1 new");
    in_time("all sentinels name another", || (0..3).all(|i| watched.master(i) != old));
    let new = watched.master(0);
    in_time("everything has gone there", || {
        clients.iter_mut().all(|client| client.text("SET users/1 new").starts_with("+OK"))
            && nearside.stat("servers_left") == 1
    });
    in_time("the old one is a replica", || is_replica(&watched.servers[old]));
    let reads = calls(&watched.servers[old], "get");
    for value in ["a", "b"] {
        watched.servers[new].connect().cmd(&format!("SET users/1 {value}"));
        for client in &mut clients {
            eventually("what is changed there is seen", || client.value("users/1").as_deref() == Some(value));
        }
        until_hit(&nearside, "users/1", value);
    }
    assert_eq!(calls(&watched.servers[old], "get"), reads, "nobody reads from the old one");
    in_time("nothing stays behind", || {
        let listed = watched.servers[old].connect().text("CLIENT LIST");
        !listed.contains("name=nearside ")
    });
    assert_eq!(nearside.stat("sentinels"), 3);
}

#[test]
fn over_tls_the_sentinels_are_asked_and_a_failover_is_followed_too() {
    let watched = Watched::secure();
    let nearside = watched.nearside(|_| ());
    assert_eq!(nearside.connect().text("SET users/1 old"), "+OK\r\n");
    until_hit(&nearside, "users/1", "old");
    let old = watched.master(0);
    watched.fail_over(0);
    in_time("it has gone there", || nearside.stat("servers_left") == 1);
    until_written(&nearside, "SET users/1 new");
    until_hit(&nearside, "users/1", "new");
    in_time("all sentinels name another", || (0..3).all(|i| watched.master(i) != old));
    let mut direct = watched.servers[watched.master(0)].connect();
    assert_eq!(direct.value("users/1").as_deref(), Some("new"));
    direct.cmd("SET users/1 newest");
    until_hit(&nearside, "users/1", "newest");
    in_time("nothing stays behind", || {
        !watched.servers[old].connect().text("CLIENT LIST").contains("name=nearside ")
    });
    assert_eq!(nearside.stat("sentinels"), 3);
    let unsecured = behind(&watched.url(&[0]).replace("rediss", "redis"), |_| ());
    in_time("that they want TLS is said", || unsecured.get("/readyz").1.contains("write rediss+sentinel://"));
}

/// The default bound, and what a busy machine holds a thread up.
const BOUND: Duration = Duration::from_millis(1500);

/// What one counts up and another reads, and what each was told.
#[derive(Default)]
struct Counted {
    /// The last that was acknowledged, and when.
    written: Mutex<Vec<(u64, Instant)>>,
    read: Mutex<Vec<(u64, Instant)>>,
    errors: AtomicU64,
    over: AtomicBool,
}

impl Counted {
    /// Runs `each` on a connection until it is over; gives it a new one when it is lost.
    fn run(
        self: &Arc<Self>,
        nearside: &Nearside,
        (command, each): (&'static str, fn(&Self, &str)),
    ) -> std::thread::JoinHandle<()> {
        let (counted, at) = (self.clone(), nearside.address);
        std::thread::spawn(move || {
            let mut conn = Conn::to(at);
            while !counted.over.load(Ordering::Relaxed) {
                match conn.try_reply_to(command) {
                    Ok(said) => each(&counted, &String::from_utf8_lossy(&said)),
                    Err(_) => conn = Conn::to(at),
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        })
    }

    fn wrote(&self, said: &str) {
        match said.strip_prefix(':') {
            Some(number) => {
                self.written.lock().unwrap().push((number.trim_end().parse().unwrap(), Instant::now()));
            }
            None => drop(self.errors.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn saw(&self, said: &str) {
        if let Some(number) = said.split("\r\n").nth(1).and_then(|number| number.parse().ok()) {
            self.read.lock().unwrap().push((number, Instant::now()));
        }
    }

    fn written(&self) -> usize {
        self.written.lock().unwrap().len()
    }

    /// Replication is not awaited, so a failover may lose the last writes, once: whoever reads from the new master before the
    /// first that it has acknowledged may miss as many as the replica was behind. Before the failover began, and from that
    /// first one on, nobody reads what is older than the bound allows.
    fn check(&self, bound: Duration, from: Instant, failing: Instant) {
        let (written, read) = (self.written.lock().unwrap(), self.read.lock().unwrap());
        let falls = written.windows(2).filter(|pair| pair[1].0 <= pair[0].0).count();
        assert!(falls <= 1, "written: fell {falls} times");
        let fell = written.windows(2).position(|pair| pair[1].0 <= pair[0].0).map(|i| written[i + 1].1);
        let since = |at: Instant| written.iter().rev().find(|(_, when)| *when + bound < at).copied();
        let mut checked = 0;
        for (value, at) in read.iter().filter(|(_, at)| *at >= from) {
            let Some((least, when)) = since(*at) else { continue };
            // What was acknowledged before it fell may be lost.
            if fell.is_none_or(|fell| when >= fell || *at < failing) {
                assert!(*value >= least, "{value} was read, and {least} was written {:?} before", *at - when);
                checked += 1;
            }
        }
        assert!(checked > 100, "{checked} of {} reads", read.len());
    }
}

/// While one counts and another reads through the same nearside, and a third through another one.
fn counted_over(watched: &Watched, fail: impl FnOnce()) {
    let (here, there) = (watched.nearside(|_| ()), watched.nearside(|_| ()));
    here.connect().cmd("SET users/n 0");
    let (counted, elsewhere, began) = (Arc::<Counted>::default(), Arc::<Counted>::default(), Instant::now());
    let threads = [
        counted.run(&here, ("INCR users/n", Counted::wrote)),
        counted.run(&here, ("GET users/n", Counted::saw)),
        elsewhere.run(&there, ("GET users/n", Counted::saw)),
    ];
    eventually("it counts", || counted.written() > 300);
    let (hits, failing) = (there.stat("hits"), Instant::now());
    fail();
    in_time("they leave the old master", || {
        here.stat("servers_left") == 1 && there.stat("servers_left") == 1
    });
    let (before, left) = (counted.written(), Instant::now());
    in_time("it counts on", || counted.written() > before + 1000 && left.elapsed() > 2 * BOUND);
    assert!(there.stat("hits") > hits);
    counted.over.store(true, Ordering::Relaxed);
    elsewhere.over.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    counted.check(BOUND, began, failing);
    // The other may have heard of the new master later, from when on the same holds for it.
    *elsewhere.written.lock().unwrap() = counted.written.lock().unwrap().clone();
    elsewhere.check(BOUND, left, failing);
    let last = counted.written.lock().unwrap().last().unwrap().0.to_string();
    let new = &watched.servers[watched.master(0)];
    assert_eq!(new.connect().value("users/n").as_deref(), Some(&*last));
    until_hit(&here, "users/n", &last);
    until_hit(&there, "users/n", &last);
}

#[test]
fn nobody_reads_the_past_while_the_master_is_changed() {
    let watched = Watched::start();
    counted_over(&watched, || watched.fail_over(1));
}

#[test]
fn a_master_that_is_killed_is_replaced_and_is_a_replica_when_it_is_back() {
    let mut watched = Watched::start();
    let nearside = watched.nearside(|_| ());
    assert_eq!(nearside.connect().text("SET users/1 old"), "+OK\r\n");
    until_hit(&nearside, "users/1", "old");
    watched.servers[0].kill();
    until_written(&nearside, "SET users/1 new");
    until_hit(&nearside, "users/1", "new");
    let new = watched.master(0);
    assert_ne!(new, 0);
    assert_eq!(watched.servers[new].connect().value("users/1").as_deref(), Some("new"));
    // It is back, says that it is a master, and has nothing; the sentinels know better.
    watched.servers[0].restart();
    let mut client = nearside.connect();
    in_time("the sentinels make a replica of it", || {
        assert_eq!(client.value("users/1").as_deref(), Some("new"));
        assert_eq!(client.text("SET users/2 x"), "+OK\r\n");
        is_replica(&watched.servers[0])
    });
    assert_eq!(calls(&watched.servers[0], "get") + calls(&watched.servers[0], "client|tracking"), 0);
    assert_eq!(nearside.stat("servers_left"), 1);
}

#[test]
fn a_master_that_has_gone_silent_keeps_nobody_waiting_for_it() {
    let watched = Watched::start();
    let nearside = watched.nearside(|_| ());
    let (mut waits, mut hears, mut writes) = (nearside.connect(), nearside.connect(), nearside.connect());
    waits.send(&line("BLPOP list 0"));
    assert!(hears.text("SUBSCRIBE news").contains("subscribe"));
    eventually("it waits", || {
        watched.servers[0].connect().text("INFO clients").contains("blocked_clients:1")
    });
    for conn in [&waits, &hears, &writes] {
        conn.stream.set_read_timeout(Some(support::sentinel::FAILOVER)).unwrap();
    }
    signal(watched.servers[0].pid(), Signal::STOP);
    writes.send(&line("SET users/1 lost"));
    let said = String::from_utf8(writes.reply()).unwrap();
    assert!(said.contains("may have been executed"), "{said}");
    // It would wait and hear for ever, on a server that is not the master any more.
    assert!(waits.try_reply().map_or(true, |said| said.starts_with(b"-")), "the wait ends");
    in_time("and so does the subscription", || hears.is_closed());
    until_written(&nearside, "SET users/1 new");
    until_hit(&nearside, "users/1", "new");
    signal(watched.servers[0].pid(), Signal::CONT);
    let mut client = nearside.connect();
    in_time("it is a replica when it wakes up", || {
        assert_eq!(client.value("users/1").as_deref(), Some("new"));
        is_replica(&watched.servers[0])
    });
}

#[test]
fn the_first_sentinel_may_be_dead_and_one_that_slept_does_not_bring_the_old_master_back() {
    let mut watched = Watched::start();
    // The third is not in the URL: it is learnt from the second.
    let nearside = behind(&watched.url(&[0, 1]), |_| ());
    in_time("all are heard", || nearside.stat("sentinels") == 3);
    watched.sentinels[0].signal(Signal::STOP);
    let old = watched.master(1);
    watched.fail_over(1);
    // What the old master takes in the meantime may be lost.
    in_time("it has gone there", || nearside.stat("servers_left") == 1);
    until_written(&nearside, "SET users/1 new");
    in_time("those that are awake name it", || (1..3).all(|i| watched.master(i) != old));
    watched.sentinels[0].signal(Signal::CONT);
    let mut client = nearside.connect();
    in_time("the one that slept has heard of it, too", || {
        assert_eq!(client.value("users/1").as_deref(), Some("new"));
        watched.master(0) != old && nearside.stat("sentinels") == 3
    });
    assert_eq!(nearside.stat("servers_left"), 1);
    watched.sentinels[0].kill();
    watched.sentinels[1].kill();
    // One alone cannot make another master, and can say which it is; it is the last of the URL.
    let late = behind(&watched.url(&[0, 1, 2]), |_| ());
    in_time("it is ready", || late.get("/readyz").0 == 200);
    until_hit(&late, "users/1", "new");
    watched.sentinels[2].kill();
    in_time("none is left", || nearside.stat("sentinels") == 0);
    until_written(&nearside, "SET users/1 newest");
    until_hit(&nearside, "users/1", "newest");
}

#[test]
fn a_server_that_is_no_master_is_not_used_though_a_sentinel_names_it() {
    let [primary, replica] = [server(), server()];
    replicate(&replica, &primary);
    primary.connect().cmd("SET users/1 v");
    // It can do nothing alone.
    let sentinel = Sentinel::start(&watch(replica.port, 5));
    let nearside = behind(&format!("redis+sentinel://{}/{SERVICE}", sentinel.address()), |_| ());
    in_time("it says why it is not ready", || nearside.get("/readyz").1.contains("it is a replica now"));
    let said = nearside.connect().text("GET users/1");
    assert!(said.contains("it is a replica now; asking the sentinels; the command was not sent"), "{said}");
    assert_eq!(calls(&replica, "get"), 0);
    assert_eq!(sentinel.ask(&format!("SENTINEL REMOVE {SERVICE}")), "+OK\r\n");
    sentinel.ask(&format!("SENTINEL MONITOR {SERVICE} 127.0.0.1 {} 1", primary.port));
    until_written(&nearside, "SET users/1 w");
    until_hit(&nearside, "users/1", "w");
    assert_eq!(primary.connect().value("users/1").as_deref(), Some("w"));
}

#[test]
fn a_server_that_does_not_let_its_role_be_asked_is_asked_in_other_words_or_not_used() {
    let redis = server();
    let sentinel = Sentinel::start(&watch(redis.port, 1));
    let url = |user: &str| format!("redis+sentinel://{user}:pw@{}/{SERVICE}", sentinel.address());
    let mut direct = redis.connect();
    direct.cmd("ACL SETUSER near on >pw ~* &* +@all -role");
    direct.cmd("ACL SETUSER blind on >pw ~* &* +@all -role -info");
    let nearside = behind(&url("near"), |_| ());
    until_written(&nearside, "SET users/1 v");
    until_hit(&nearside, "users/1", "v");
    let nearside = behind(&url("blind"), |_| ());
    in_time("it says what is missing", || {
        nearside.get("/readyz").1.contains("let the user of the upstream URL say ROLE or INFO")
    });
    direct.cmd("ACL SETUSER blind +role");
    until_written(&nearside, "SET users/1 w");
}

#[test]
fn what_is_wrong_with_the_sentinels_is_said() {
    let redis = server();
    let open = Sentinel::start(&watch(redis.port, 1));
    let locked = Sentinel::start(&format!("{}requirepass sesame\n", watch(redis.port, 1)));
    let url =
        |sentinel: &Sentinel, service: &str| format!("redis+sentinel://{}/{service}", sentinel.address());
    let not_ready = |nearside: &Nearside, why: &str| {
        let (status, page) = nearside.get("/readyz");
        (status == 503 && page.contains("no master is known: sentinel 127.0.0.1") && page.contains(why))
            .then(|| nearside.connect().text("GET users/1"))
            .filter(|said| said.starts_with("-ERR nearside: upstream") && said.contains(why))
    };
    let password = |password: &str| Some(nearside::config::Secret::new(password));
    let unknown = behind(&url(&open, "mian"), |_| ());
    in_time("that there is no such service", || {
        not_ready(&unknown, "it knows no service \"mian\"").is_some()
    });
    open.ask(&format!("SENTINEL MONITOR mian 127.0.0.1 {} 1", redis.port));
    in_time("and when there is", || unknown.get("/readyz").0 == 200);
    let without = behind(&url(&locked, SERVICE), |_| ());
    in_time("that a password is wanted", || not_ready(&without, "set sentinel-password").is_some());
    let wrong = behind(&url(&locked, SERVICE), |config| config.sentinel_password = password("wrong"));
    in_time("that it is wrong", || {
        not_ready(&wrong, "look at sentinel-username and sentinel-password").is_some()
    });
    let right = behind(&url(&locked, SERVICE), |config| config.sentinel_password = password("sesame"));
    until_written(&right, "SET users/1 v");
    let none = behind(&url(&open, SERVICE).replace(&open.port.to_string(), "1"), |_| ());
    in_time("that nobody is there", || not_ready(&none, "refused").is_some());
    let stranger = behind(&format!("redis+sentinel://{}/{SERVICE}", redis.address()), |_| ());
    in_time("that it is no sentinel", || not_ready(&stranger, "ERR unknown command").is_some());
    assert!(!wrong.get("/metrics").1.contains("nearside_sentinel_failures_total 0"));
    assert_eq!((wrong.stat("sentinels"), right.stat("sentinels")), (0, 1));
}

#[test]
fn a_sentinel_that_comes_and_goes_is_told_of_seldom_and_asked_less_often() {
    let redis = server();
    let sentinel = Sentinel::start(&watch(redis.port, 1));
    let relay = Relay::to(sentinel.address());
    let (port, admin) = (free_port(), free_port());
    let (listen, pages) = (port.to_string(), admin.to_string());
    let url = format!("redis+sentinel://{}/{SERVICE}", relay.address);
    let mut near = Program::run(&["--listen", &listen, "--admin", &pages, "--upstream", &url], port, admin);
    near.wait_for("the sentinels name the master");
    let (began, mut cuts) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(4) {
        // It has answered, and is gone.
        eventually("it answers", || near.stat("sentinels") == 1);
        relay.cut();
        eventually("that is noticed", || near.stat("sentinels") == 0);
        cuts += 1;
    }
    near.terminate();
    assert!(near.ended().success());
    let told =
        near.seen.matches(" a sentinel cannot be asked").count() + near.seen.matches(" answers now").count();
    assert!(told <= 2, "{told} lines:\n{}", near.seen);
    assert!((2..=10).contains(&cuts), "{cuts} connections in four seconds");
}
