//! What a node of a cluster has not executed is sent again, in the order in which it came: clients see no error of it.

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use support::cluster::{Cluster, Failover, in_time, key_in_slot};
use support::{Conn, Nearside, eventually, line};

/// What the metrics say: `metric(&nearside, "redirects_total{kind=\"moved\"}")`.
fn metric(nearside: &Nearside, name: &str) -> u64 {
    let page = nearside.get("/metrics").1;
    let prefix = format!("nearside_{name} ");
    let found = page.lines().find_map(|line| line.strip_prefix(&*prefix).map(str::to_owned));
    found.unwrap_or_else(|| panic!("no {name}")).parse::<f64>().unwrap() as u64
}

fn redirects(nearside: &Nearside, kind: &str) -> u64 {
    metric(nearside, &format!("redirects_total{{kind=\"{kind}\"}}"))
}

/// Clients that go round until they are stopped, each a thread that checks every reply.
struct Load {
    stopped: Arc<AtomicBool>,
    rounds: Arc<Vec<AtomicU64>>,
    threads: Vec<JoinHandle<()>>,
}

type Round = Box<dyn FnMut(u64) + Send>;

impl Load {
    fn start(clients: Vec<Round>) -> Self {
        let stopped = Arc::<AtomicBool>::default();
        let rounds: Arc<Vec<_>> = Arc::new(clients.iter().map(|_| AtomicU64::new(0)).collect());
        let threads = clients.into_iter().enumerate().map(|(i, mut round)| {
            let (stopped, rounds) = (stopped.clone(), rounds.clone());
            std::thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    round(rounds[i].load(Ordering::Relaxed));
                    rounds[i].fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        Self { threads: threads.collect(), stopped, rounds }
    }

    /// Waits until each has gone so many times round from now on, or one has failed.
    #[track_caller]
    fn go_round(&self, times: u64) {
        let before: Vec<_> = self.rounds.iter().map(|rounds| rounds.load(Ordering::Relaxed)).collect();
        in_time("all clients go round", || {
            assert!(self.threads.iter().all(|thread| !thread.is_finished()), "a client has failed");
            let gone = self.rounds.iter().zip(&before);
            gone.into_iter().all(|(rounds, before)| rounds.load(Ordering::Relaxed) >= before + times)
        });
    }

    #[track_caller]
    fn stop(self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a client"));
    }
}

/// Commands of all kinds on keys of one slot, each reply checked. A client that executed anything twice, or in another
/// order, would see it.
fn commands(mut conn: Conn, tag: String, resp3: bool) -> Round {
    let null = if resp3 { "_\r\n" } else { "$-1\r\n" };
    let large = "x".repeat(100_000);
    Box::new(move |n| {
        let mut says = |line: &str, reply: &str| {
            let said = conn.text(line);
            assert!(said == reply, "round {n}: {line:.80}: {said:.200}");
        };
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let int = |n: u64| format!(":{n}\r\n");
        says(&format!("SET {tag}s v{n}"), "+OK\r\n");
        says(&format!("GET {tag}s"), &bulk(&format!("v{n}")));
        says(&format!("GET {tag}s"), &bulk(&format!("v{n}")));
        says(&format!("GET {tag}absent"), null);
        says(&format!("INCR {tag}i"), &int(n + 1));
        says(&format!("HSET {tag}h f{n} {n}"), ":1\r\n");
        says(&format!("HGET {tag}h f{n}"), &bulk(&n.to_string()));
        says(&format!("HLEN {tag}h"), &int(n + 1));
        says(&format!("LPUSH {tag}l {n}"), &int(n + 1));
        says(&format!("LINDEX {tag}l 0"), &bulk(&n.to_string()));
        says(&format!("EXPIRE {tag}l 1000"), ":1\r\n");
        says(&format!("SETEX {tag}x 1000 {n}"), "+OK\r\n");
        says(&format!("STRLEN {tag}x"), &int(n.to_string().len() as u64));
        says(
            &format!("EVAL return{{redis.call('incr',KEYS[1])}} 1 {tag}e"),
            &format!("*1\r\n:{}\r\n", n + 1),
        );
        says(&format!("GETDEL {tag}x"), &bulk(&n.to_string()));
        says(&format!("GET {tag}x"), null);
        if n.is_multiple_of(8) {
            says(&format!("SET {tag}large {large}"), "+OK\r\n");
            says(&format!("GET {tag}large"), &bulk(&large));
        }
        conn.send(format!("INCR {tag}inline\r\n").as_bytes());
        assert_eq!(String::from_utf8_lossy(&conn.reply()), int(n + 1));
    })
}

/// `SET k 1`, `SET k 2`, `GET k` in one packet, and counters.
fn pipelines(mut conn: Conn, tag: String) -> Round {
    Box::new(move |n| {
        let lines = [
            format!("SET {tag}p {}", 2 * n),
            format!("INCR {tag}pi"),
            format!("SET {tag}p {}", 2 * n + 1),
            format!("GET {tag}p"),
            format!("INCR {tag}pi"),
            format!("GET {tag}pi"),
            format!("APPEND {tag}a{} x", n / 50),
            format!("GET {tag}p"),
        ];
        let replies = conn.pipeline(&lines);
        let last = format!("${}\r\n{}\r\n", (2 * n + 1).to_string().len(), 2 * n + 1);
        let count = format!("${}\r\n{}\r\n", (2 * n + 2).to_string().len(), 2 * n + 2);
        let appended = format!(":{}\r\n", n % 50 + 1);
        let (first, second) = (format!(":{}\r\n", 2 * n + 1), format!(":{}\r\n", 2 * n + 2));
        assert_eq!(replies, ["+OK\r\n", &first, "+OK\r\n", &last, &second, &count, &appended, &last], "{n}");
    })
}

/// Hundreds of counts in one packet, of one key of the slot, and of keys of many slots between them.
fn deep(mut conn: Conn, tag: String) -> Round {
    const MANY: u64 = 300;
    Box::new(move |n| {
        let spread = tag.replace(['{', '}'], "");
        let both = |i| [format!("INCR {tag}d"), format!("INCR {spread}{i}")];
        let lines: Vec<_> = (0..MANY).flat_map(both).collect();
        let expected: Vec<_> =
            (0..MANY).flat_map(|i| [n * MANY + i + 1, n + 1]).map(|n| format!(":{n}\r\n")).collect();
        let replies = conn.pipeline(&lines);
        let wrong = replies.iter().zip(&expected).position(|(reply, expected)| reply != expected);
        assert!(
            wrong.is_none(),
            "round {n}: {wrong:?}: {:?}",
            wrong.map(|i| (&lines[i], &replies[i], &expected[i]))
        );
    })
}

/// Clients of all kinds, on keys of this slot.
fn all_kinds(cluster: &Cluster, nearside: &Nearside, slot: u16) -> Vec<Round> {
    for node in cluster.up() {
        node.order("ACL SETUSER other on >s3cret ~* &* +@all");
    }
    let tag = format!("{{{}}}", key_in_slot(slot));
    let mut other = nearside.connect();
    assert_eq!(other.text("AUTH other s3cret"), "+OK\r\n");
    vec![
        commands(nearside.connect(), format!("{tag}2"), false),
        commands(nearside.connect_resp3(), format!("{tag}3"), true),
        commands(other, format!("{tag}o"), false),
        pipelines(nearside.connect(), format!("{tag}p")),
        pipelines(nearside.connect(), format!("users/{tag}n")),
        deep(nearside.connect(), format!("{tag}deep")),
    ]
}

#[test]
fn commands_of_all_kinds_see_nothing_of_a_slot_that_moves() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster_with(&cluster, |config| config.workers = 2);
    let (slot, places) = (100, [0, 1, 2]);
    let load = Load::start(all_kinds(&cluster, &nearside, slot));
    load.go_round(2);
    for (from, to) in places.into_iter().cycle().zip(places.into_iter().cycle().skip(1)).take(6) {
        cluster.begin_move(slot, from, to);
        load.go_round(1);
        while cluster.move_keys(slot, from, to, 1) > 0 {}
        load.go_round(1);
        while cluster.move_keys(slot, from, to, 3) > 0 {}
        cluster.end_move(slot, from, to);
        load.go_round(1);
    }
    load.stop();
    for kind in ["moved", "ask"] {
        assert!(redirects(&nearside, kind) > 0, "{kind}");
    }
    assert!(metric(&nearside, "resent_requests_total") > 0);
    for why in ["overtaken", "exhausted"] {
        assert_eq!(metric(&nearside, &format!("unresent_requests_total{{reason=\"{why}\"}}")), 0);
    }
}

#[test]
fn pipelines_keep_their_order_while_slots_go_back_and_forth() {
    let cluster = Cluster::start(2, 0);
    let nearside = Nearside::cluster(&cluster);
    let slots = [10, 20];
    let clients = slots.iter().flat_map(|slot| {
        let tag = format!("{{{}}}", key_in_slot(*slot));
        (0..2).map(|i| pipelines(nearside.connect(), format!("{tag}{i}"))).collect::<Vec<_>>()
    });
    let load = Load::start(clients.collect());
    for turn in 0..8 {
        let (from, to) = if turn % 2 == 0 { (0, 1) } else { (1, 0) };
        slots.iter().for_each(|slot| cluster.begin_move(*slot, from, to));
        load.go_round(5);
        for slot in slots {
            while cluster.move_keys(slot, from, to, 1) > 0 {}
            // Those that were made meanwhile, too, before the slot goes.
            cluster.end_move(slot, from, to);
        }
        load.go_round(5);
    }
    load.stop();
    assert!(redirects(&nearside, "ask") > 0 && redirects(&nearside, "moved") > 0);
}

#[test]
fn a_graceful_failover_is_seen_by_nobody() {
    let cluster = Cluster::start(3, 3);
    let nearside = Nearside::cluster(&cluster);
    let mut clients = all_kinds(&cluster, &nearside, 100);
    clients.push(pipelines(nearside.connect(), format!("{{{}}}", key_in_slot(6000))));
    let load = Load::start(clients);
    load.go_round(2);
    // None twice of the same master: the others vote only so often.
    for (replica, master) in [(3, 0), (4, 1), (0, 3)] {
        cluster.failover(replica, Failover::Graceful);
        load.go_round(3);
        in_time("the old master follows", || cluster.master_of(master) == Some(replica));
        cluster.wait_ready();
    }
    load.stop();
    assert!(redirects(&nearside, "moved") > 0);
}

#[test]
fn where_a_slot_is_is_learned_from_the_first_request_for_it() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster(&cluster);
    let mut client = nearside.connect();
    for (slot, write) in [(50, false), (60, true)] {
        let key = key_in_slot(slot);
        assert_eq!(client.text(&format!("SET {key} before")), "+OK\r\n");
        cluster.migrate(slot, 0, 2);
        if write {
            assert_eq!(client.text(&format!("SET {key} before")), "+OK\r\n");
        }
        assert_eq!(client.value(&key).as_deref(), Some("before"));
    }
}

#[test]
fn nothing_is_kept_of_what_was_asked_for_at_another_node_than_its_owner() {
    let cluster = Cluster::start(2, 0);
    let nearside = Nearside::cluster(&cluster);
    let (slot, key) = (70, key_in_slot(70));
    cluster.begin_move(slot, 0, 1);
    let mut client = nearside.connect();
    let mut there = cluster.node(1).connect();
    let before = nearside.stat("fills");
    for n in 0..20 {
        assert_eq!(client.value(&key), (n > 0).then(|| format!("v{}", n - 1)), "{n}");
        assert_eq!(client.value(&key), (n > 0).then(|| format!("v{}", n - 1)), "{n}");
        assert_eq!(there.pipeline(&["ASKING".into(), format!("SET {key} v{n}")]), ["+OK\r\n"; 2]);
    }
    assert_eq!(nearside.stat("fills"), before);
    assert!(!nearside.is_cached(&key) && redirects(&nearside, "ask") >= 40);
}

#[test]
fn what_was_refused_is_announced_when_it_is_done_and_once() {
    let cluster = Cluster::start(2, 0);
    let nearside = Nearside::cluster(&cluster);
    let (slot, key) = (80, key_in_slot(80));
    let (mut client, mut direct) = (nearside.connect(), cluster.node(0).connect());
    let mut listener = cluster.node(1).redis().listen();
    cluster.begin_move(slot, 0, 1);
    let bare = key.strip_prefix("users/").unwrap();
    for n in 0..5 {
        assert_eq!(client.text(&format!("SET {key} {n}")), "+OK\r\n");
        let (channel, payload) = listener.next();
        assert_eq!((&channel[..], &payload[..]), (&b"users/update"[..], bare.as_bytes()));
    }
    assert!(redirects(&nearside, "ask") >= 5);
    assert_eq!(client.text(&format!("DEL {key}")), ":1\r\n");
    assert_eq!(listener.next().0, b"users/delete");
    // By way of the other node, so behind what was said there.
    assert!(direct.text("PUBLISH mark end").starts_with(':'));
    assert_eq!(listener.next().0, b"mark");
}

#[test]
fn a_slot_that_nobody_has_is_an_error_to_its_commands_alone() {
    let cluster = Cluster::with(2, 0, &["--cluster-require-full-coverage", "no"]);
    let nearside = Nearside::cluster(&cluster);
    let (slot, key) = (90, key_in_slot(90));
    let mut client = nearside.connect();
    assert_eq!(client.text(&format!("SET {key} v")), "+OK\r\n");
    for node in [0, 1] {
        cluster.node(node).order(&format!("CLUSTER DELSLOTS {slot}"));
    }
    let other = cluster.keys_of(cluster.node(1), 1).remove(0);
    let waiting = std::thread::spawn({
        let (mut conn, key, other) = (nearside.connect(), key.clone(), other.clone());
        move || conn.pipeline(&[format!("SET {key} w"), format!("SET {other} w"), format!("GET {other}")])
    });
    let mut answered = 0;
    while !waiting.is_finished() {
        assert_eq!(client.text(&format!("SET {other} v{answered}")), "+OK\r\n");
        answered += 1;
    }
    assert!(answered > 20, "{answered}");
    let replies = waiting.join().unwrap();
    assert_eq!(replies[0], "-CLUSTERDOWN Hash slot not served\r\n");
    assert_eq!(replies[1], "+OK\r\n");
    assert!(replies[2].starts_with('$'));
    assert_eq!(redirects(&nearside, "clusterdown"), 6, "it was sent again five times");
    assert_eq!(metric(&nearside, "unresent_requests_total{reason=\"exhausted\"}"), 1);
}

/// A request whose slot nobody has waits; the reads behind it were answered long before it is, and changed since.
#[test]
fn reads_that_wait_behind_it_for_long_are_not_old_when_they_leave() {
    let cluster = Cluster::with(2, 0, &["--cluster-require-full-coverage", "no"]);
    let nearside = Nearside::cluster_with(&cluster, |config| {
        config.max_staleness = Duration::from_millis(100);
        config.namespaces = [].into();
    });
    let (slot, key) = (90, key_in_slot(90));
    let (mut client, mut direct) = (nearside.connect(), cluster.node(1).connect());
    let [cached, fetched] = cluster.keys_of(cluster.node(1), 2).try_into().unwrap();
    let both = [&cached, &fetched];
    both.iter().for_each(|key| drop(direct.text(&format!("SET {key} old"))));
    eventually("it is a hit", || {
        let hits = nearside.stat("hits");
        client.text(&format!("GET {cached}"));
        nearside.stat("hits") > hits
    });
    for node in [0, 1] {
        cluster.node(node).order(&format!("CLUSTER DELSLOTS {slot}"));
    }
    let lines = [
        format!("SET {key} 1"),
        format!("GET {cached}"),
        format!("GET {fetched}"),
        format!("MGET {cached} {fetched}"),
    ];
    client.send(&lines.iter().flat_map(|text| line(text)).collect::<Vec<_>>());
    let mut others = [nearside.connect(), nearside.connect()];
    others[0].send(&line(&format!("MGET {key} {cached} {fetched}")));
    others[1].send(&line(&format!("EXISTS {key} {fetched} {{{fetched}}}new")));
    eventually("they are refused again", || redirects(&nearside, "clusterdown") > 6);
    direct.text(&format!("SET {{{fetched}}}new 1"));
    both.iter().for_each(|key| assert_eq!(direct.text(&format!("SET {key} new")), "+OK\r\n"));
    let id = cluster.node(0).id();
    cluster.node(0).order(&format!("CLUSTER ADDSLOTS {slot}"));
    cluster.node(1).order(&format!("CLUSTER SETSLOT {slot} NODE {id}"));
    let new = "$3\r\nnew\r\n";
    for expected in ["+OK\r\n", new, new, &format!("*2\r\n{new}{new}")] {
        assert_eq!(String::from_utf8_lossy(&client.reply()), expected);
    }
    // The first is there by then, or is not yet.
    let whole = String::from_utf8(others[0].reply()).unwrap();
    assert!(whole.ends_with(&format!("{new}{new}")), "{whole}");
    let count = String::from_utf8(others[1].reply()).unwrap();
    assert!([":2\r\n", ":3\r\n"].contains(&&*count), "{count}");
}

#[test]
fn what_could_not_be_sent_waits_for_the_promotion_of_a_replica() {
    let cluster = Cluster::start(3, 3);
    let nearside = Nearside::cluster(&cluster);
    let key = cluster.keys_of(cluster.node(0), 1).remove(0);
    let mut client = nearside.connect();
    assert_eq!(client.text(&format!("SET {key} 1")), "+OK\r\n");
    eventually("the replica has it", || {
        cluster.node(3).ask(&format!("DEBUG OBJECT {key}")).starts_with("+Value")
    });
    cluster.node(0).kill();
    client.send(&line(&format!("INCR {key}")));
    client.send(&line("PING"));
    client.stream.set_read_timeout(Some(support::cluster::IN_TIME)).unwrap();
    assert_eq!(String::from_utf8_lossy(&client.reply()), ":2\r\n");
    assert_eq!(client.reply(), b"+PONG\r\n");
    assert!(redirects(&nearside, "unsent") > 0);
    let heir = cluster.wait_promoted(cluster.node(0));
    assert_eq!(cluster.node(heir).ask(&format!("GET {key}")), "$1\r\n2\r\n");
}

#[test]
fn what_has_no_keys_goes_to_another_node_when_its_own_is_gone() {
    let cluster = Cluster::start(3, 3);
    let nearside = Nearside::cluster(&cluster);
    let mut clients = [nearside.connect(), nearside.connect_resp3()];
    let node = |calls: &dyn Fn(usize) -> u64| (0..3).find(|place| calls(*place) > 0).expect("one of them");
    assert_eq!(clients[0].text("ECHO x"), "$1\r\nx\r\n");
    let own = node(&|place| cluster.node(place).calls("echo"));
    cluster.node(own).kill();
    for client in &mut clients {
        let begun = std::time::Instant::now();
        assert_eq!(client.text("ECHO x"), "$1\r\nx\r\n");
        assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    assert_eq!(nearside.connect().text("ECHO x"), "$1\r\nx\r\n");
}
