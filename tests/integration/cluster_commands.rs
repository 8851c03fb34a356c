//! Commands that concern several hash slots of a cluster, or all its nodes: what they answer is what one Redis with the same
//! data would, or an error that says what was done.

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nearside::config::CrossSlot;
use nearside::resp::decode::{Value, decode};
use nearside::resp::key_slot;
use nearside::resp::scanner::elements;

use support::cluster::{Cluster, in_time};
use support::{Conn, Nearside, Redis, line};

/// A cluster, nearside in front of it, and one Redis to compare with.
struct Both {
    cluster: Cluster,
    nearside: Nearside,
    redis: Redis,
}

impl Both {
    fn start() -> Self {
        let cluster = Cluster::start(3, 0);
        let nearside = Nearside::cluster(&cluster);
        Self { cluster, nearside, redis: Redis::start() }
    }

    /// Clients of both: of RESP2, or of RESP3.
    fn clients(&self, resp3: bool) -> [Conn; 2] {
        let mut clients = [self.nearside.connect(), self.redis.connect()];
        if resp3 {
            clients.iter_mut().for_each(|client| assert!(client.cmd("HELLO 3").starts_with(b"%")));
        }
        clients
    }
}

/// Both answer each line alike, whatever the order of the elements is where that is not told.
#[track_caller]
fn alike(clients: &mut [Conn; 2], lines: &[&str]) {
    for line in lines {
        let [ours, theirs] = clients.each_mut().map(|client| client.text(line));
        let unordered = ["KEYS", "PUBSUB CHANNELS", "SCAN"].iter().any(|name| line.starts_with(name));
        match unordered {
            true => assert_eq!(sorted(&ours), sorted(&theirs), "{line}"),
            false => assert_eq!(ours, theirs, "{line}"),
        }
    }
}

fn sorted(reply: &str) -> Vec<&str> {
    let mut lines: Vec<_> = reply.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn keys_of_several_slots_are_as_on_one_server() {
    let both = Both::start();
    for resp3 in [false, true] {
        let mut clients = both.clients(resp3);
        let lines = [
            "FLUSHALL",
            "MSET a 1 b 2 c 3 d 4 {a}x 5 a 6",
            "MGET a b nosuch c a {a}x d nosuch",
            // From the cache, as far as it is there.
            "MGET a b nosuch c a {a}x d nosuch",
            "MGET d e f c",
            "EXISTS a b nosuch a",
            "TOUCH a b nosuch",
            "LPUSH list 1",
            "MGET list a",
            "MGET a list",
            "DEL a b nosuch list",
            "MGET a b c d",
            "UNLINK c d nosuch",
            "EXISTS a b c d {a}x",
            "MSET a 1 b",
            "MSET a",
            "MGET",
            "DEL",
            "DBSIZE",
            "SETNX c 1",
            "MGET c",
        ];
        alike(&mut clients, &lines);
    }
    let [mut client, _] = both.clients(false);
    for wrong in ["MSETNX a 1 b 2", "RENAME a b", "SUNIONSTORE a b c", "EVAL return 2 a b"] {
        let said = client.text(wrong);
        assert_eq!(said, "-CROSSSLOT Keys in request don't hash to the same slot\r\n", "{wrong}");
    }
    assert_eq!(client.text("MSETNX {a}y 1 {a}z 2"), ":1\r\n");
    // A request of that much goes on a connection of its own; one of two of each slot.
    let large = "x".repeat(2 << 20);
    assert_eq!(client.text(&format!("MSET big1 {large} big2 {large} big3 small")), "+OK\r\n");
    let held = client.cmd("MGET big1 big2 big3");
    assert_eq!(held.len(), 2 * (large.len() + 12) + "*3\r\n$5\r\nsmall\r\n".len());
}

#[test]
fn each_key_is_cached_alone_and_what_is_missing_is_fetched_from_its_node() {
    let both = Both::start();
    let mut client = both.nearside.connect();
    let keys: Vec<_> = (0..3).flat_map(|node| both.cluster.keys_of(both.cluster.node(node), 4)).collect();
    let mset: Vec<_> = keys.iter().map(|key| format!("{key} {key}")).collect();
    assert_eq!(client.text(&format!("MSET {}", mset.join(" "))), "+OK\r\n");
    let mget = format!("MGET {} users/absent", keys.join(" "));
    let first = client.text(&mget);
    in_time("all of it is a hit", || {
        let before = both.nearside.stat("hits");
        assert_eq!(client.text(&mget), first);
        both.nearside.stat("hits") > before
    });
    assert!(keys.iter().all(|key| both.nearside.is_cached(key)));
    // One of each node is written by another: it alone is fetched again.
    for node in 0..3 {
        both.cluster.node(node).ask(&format!("SET {} new", keys[node * 4]));
    }
    in_time("the writes are seen", || client.text(&mget).matches("new").count() == 3);
    // What is deleted here is not there for the next read.
    assert_eq!(client.text(&format!("DEL {}", keys.join(" "))), format!(":{}\r\n", keys.len()));
    assert_eq!(client.text(&mget).matches("$-1").count(), keys.len() + 1);
}

#[test]
fn pipelined_requests_in_parts_keep_their_order() {
    let both = Both::start();
    let mut client = both.nearside.connect();
    let mut lines = Vec::new();
    for i in 0..200 {
        lines.push(format!("MSET a {i} b {i} c {i}"));
        lines.push("MGET a b c".to_owned());
        lines.push(format!("SET b x{i}"));
        lines.push("MGET c b a".to_owned());
        lines.push("EXISTS a b c nosuch".to_owned());
        lines.push("DBSIZE".to_owned());
    }
    let said = client.pipeline(&lines);
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    for (i, said) in said.chunks(6).enumerate() {
        let (i, x) = (bulk(&i.to_string()), bulk(&format!("x{i}")));
        let expected = [
            "+OK\r\n".to_owned(),
            format!("*3\r\n{i}{i}{i}"),
            "+OK\r\n".to_owned(),
            format!("*3\r\n{i}{x}{i}"),
        ];
        assert_eq!(said[..4], expected);
        assert_eq!(said[4..], [":3\r\n", ":3\r\n"]);
    }
}

#[test]
fn ten_thousand_keys_at_once() {
    let both = Both::start();
    let mut clients = both.clients(false);
    let keys: Vec<_> = (0..10_000).map(|i| format!("key:{i}")).collect();
    let mset: Vec<_> = keys.iter().step_by(2).map(|key| format!("{key} v{key}")).collect();
    let (mset, mget) = (format!("MSET {}", mset.join(" ")), format!("MGET {}", keys.join(" ")));
    let began = Instant::now();
    alike(&mut clients, &[&mset, &mget, &mget, &mget, "DBSIZE"]);
    let [client, _] = &mut clients;
    let lines = vec![&mget; 5];
    let said = client.pipeline(&lines);
    assert!(said.iter().all(|one| *one == said[0]));
    assert_eq!(client.text(&format!("DEL {}", keys.join(" "))), ":5000\r\n");
    assert_eq!(client.text("DBSIZE"), ":0\r\n");
    println!("all of it took {:?}", began.elapsed());
}

#[test]
fn keyless_commands_speak_of_all_nodes() {
    let both = Both::start();
    for resp3 in [false, true] {
        let mut clients = both.clients(resp3);
        let lines = [
            "FLUSHALL",
            "RANDOMKEY",
            "KEYS *",
            "MSET a 1 b 2 c 3 d 4",
            "KEYS *",
            "KEYS [ab]",
            "DBSIZE",
            "SCRIPT FLUSH",
            "SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0000000000000000000000000000000000000000",
            "SCRIPT LOAD return#1",
            "SCRIPT KILL",
            "FUNCTION KILL",
            "CONFIG SET hz 12",
            "CONFIG GET hz",
            "CONFIG RESETSTAT",
            "CONFIG SET nosuch 1",
            "ACL SETUSER u on nopass +get ~*",
            "ACL DELUSER u nosuch",
            "ACL SETUSER u nonsense",
            "SLOWLOG RESET",
            "SLOWLOG LEN",
            "SLOWLOG GET",
            "PUBSUB CHANNELS nosuch*",
            "PUBSUB NUMSUB c",
            "PUBSUB NUMPAT",
            "PING",
            "ECHO x",
            "WAIT 0 100",
            "FLUSHDB",
            "DBSIZE",
            "KEYS *",
        ];
        let shown: Vec<_> = lines.iter().filter(|line| !line.contains('#')).copied().collect();
        alike(&mut clients, &shown);
        for client in &mut clients {
            let said = client.args(&[b"SCRIPT", b"LOAD", b"return 1"]);
            assert_eq!(said, b"$40\r\ne0e1f9fabfc9d4800c877a703b823ac0578ff8db\r\n");
        }
        alike(&mut clients, &["SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db"]);
        assert!(both.cluster.nodes().iter().all(|node| {
            node.ask("SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db").contains(":1")
                && node.ask("CONFIG GET hz").contains("12")
        }));
    }
    let mut client = both.nearside.connect();
    client.cmd("MSET a 1 b 2 c 3 d 4");
    let random: BTreeSet<_> = (0..200).map(|_| client.text("RANDOMKEY")).collect();
    let nodes: BTreeSet<_> =
        random.iter().map(|key| both.cluster.place_of(key.lines().nth(1).unwrap())).collect();
    assert!(random.iter().all(|key| key.starts_with('$')) && nodes.len() == 3, "{random:?}");
}

#[test]
fn functions_and_scripts_are_on_every_node_also_on_one_that_comes_later() {
    let mut both = Both::start();
    let mut clients = both.clients(false);
    let library: &[u8] = b"#!lua name=lib\nredis.register_function{function_name='f', callback=function(keys) return keys[1] end, flags={'no-writes'}}";
    for client in &mut clients {
        assert_eq!(client.args(&[b"FUNCTION", b"LOAD", library]), b"$3\r\nlib\r\n");
    }
    let keys: Vec<_> =
        (0..3).map(|node| both.cluster.keys_of(both.cluster.node(node), 1).remove(0)).collect();
    for key in &keys {
        alike(&mut clients, &[&format!("FCALL f 1 {key}")]);
    }
    alike(&mut clients, &["FUNCTION DELETE lib", "FUNCTION DELETE lib", "FUNCTION FLUSH"]);
    let script: &[u8] = b"return redis.call('set',KEYS[1],ARGV[1])";
    let load = clients[0].args(&[b"SCRIPT", b"LOAD", script]);
    let name = String::from_utf8_lossy(&load).lines().nth(1).unwrap().to_owned();
    let [client, _] = &mut clients;
    let run = |client: &mut Conn, key: &str| {
        let said = client.pipeline(&[format!("EVALSHA {name} 1 {key} v"), format!("GET {key}")]);
        assert_eq!(said, ["+OK\r\n", "$1\r\nv\r\n"], "{key}");
    };
    keys.iter().for_each(|key| run(client, key));
    // One that was run by EVAL is known as well, though by one node alone.
    let other: &[u8] = b"return 'here'";
    client.args(&[b"EVAL", other, b"1", keys[0].as_bytes()]);
    let mut direct = both.redis.connect();
    let other = String::from_utf8_lossy(&direct.args(&[b"SCRIPT", b"LOAD", other]))
        .lines()
        .nth(1)
        .unwrap()
        .to_owned();
    for key in &keys {
        assert_eq!(client.text(&format!("EVALSHA {other} 1 {key}")), "$4\r\nhere\r\n", "{key}");
    }
    let place = both.cluster.add_node();
    let slot = key_slot(keys[0].as_bytes());
    both.cluster.migrate(slot, 0, place);
    in_time("the new node is asked", || {
        *client = both.nearside.connect();
        client.text(&format!("SET {} w", keys[0])) == "+OK\r\n" && both.cluster.node(place).calls("set") > 0
    });
    run(client, &keys[0]);
    assert!(both.nearside.get("/metrics").1.contains("nearside_scripts_loaded_total"));
    // One that has forgotten it is told again, and the order of what is asked stays.
    both.cluster.nodes().iter().for_each(|node| node.order("SCRIPT FLUSH"));
    keys.iter().for_each(|key| run(client, key));
    // What is flushed is unknown, as on one server.
    assert_eq!(client.text("SCRIPT FLUSH"), "+OK\r\n");
    assert!(client.text(&format!("EVALSHA {name} 1 {} v", keys[1])).starts_with("-NOSCRIPT "));
}

#[test]
fn one_lost_node_costs_its_own_keys_and_the_error_says_which() {
    let cluster = Cluster::with(3, 0, &["--cluster-require-full-coverage", "no"]);
    // What could not be sent is tried again for so long.
    let nearside =
        Nearside::cluster_with(&cluster, |config| config.upstream_timeout = Some(Duration::from_millis(500)));
    let mut client = nearside.connect();
    let keys: Vec<_> = (0..3).map(|node| cluster.keys_of(cluster.node(node), 1).remove(0)).collect();
    let [a, b, c] = &keys[..] else { panic!() };
    assert_eq!(client.text(&format!("MSET {a} 1 {b} 1 {c} 1")), "+OK\r\n");
    cluster.node(1).kill();
    in_time("it is known", || client.text(&format!("GET {b}")).starts_with('-'));
    let said = client.text(&format!("MSET {a} 2 {b} 2 {c} 2"));
    assert!(said.starts_with("-ERR nearside: carried out in part; done: "), "{said}");
    assert!(said.contains(&format!("done: {a}, {c}")) && said.contains(&format!("not done: {b}")), "{said}");
    let values = [a, c].map(|key| client.value(key));
    assert_eq!(values, [Some("2".into()), Some("2".into())]);
    let many: Vec<_> = cluster.keys_of(cluster.node(0), 30);
    let said = client.text(&format!("DEL {} {b}", many.join(" ")));
    assert!(said.contains(" and 22 more") && said.contains(&format!("not done: {b}")), "{said}");
    assert!(said.len() < 1500, "{said}");
    // A read is an error, and hits of the others' go on.
    assert_eq!(client.text(&format!("MSET {a} 3 {c} 3")), "+OK\r\n");
    let said = client.text(&format!("MGET {a} {b} {c}"));
    assert!(said.starts_with("-ERR nearside: upstream ") || said.starts_with("-CLUSTERDOWN"), "{said}");
    assert_eq!(client.text(&format!("MGET {a} {c}")), "*2\r\n$1\r\n3\r\n$1\r\n3\r\n");
    for command in ["DBSIZE", "KEYS *"] {
        let said = client.text(command);
        assert!(
            said.starts_with("-ERR ") && said.contains(&cluster.node(1).port.to_string()),
            "{command}: {said}"
        );
    }
    let said = client.text("FLUSHALL");
    let [left, right] = [cluster.node(0), cluster.node(2)].map(|node| format!("127.0.0.1:{}", node.port));
    assert!(said.starts_with("-ERR nearside: carried out in part; done: "), "{said}");
    assert!(said.contains(&left) && said.contains(&right), "{said}");
    assert_eq!(client.text(&format!("MGET {a} {c}")), "*2\r\n$-1\r\n$-1\r\n");
}

#[test]
fn commands_are_not_cut_where_that_is_not_wanted() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster_with(&cluster, |config| config.cross_slot = CrossSlot::Refuse);
    let mut client = nearside.connect();
    for refused in ["MGET a b", "MSET a 1 b 2", "DEL a b", "UNLINK a b", "EXISTS a b", "TOUCH a b"] {
        let said = client.text(refused);
        assert_eq!(said, "-CROSSSLOT Keys in request don't hash to the same slot\r\n", "{refused}");
    }
    assert_eq!(client.text("MSET {a}1 1 {a}2 2"), "+OK\r\n");
    for _ in 0..3 {
        assert_eq!(client.text("MGET {a}1 {a}2"), "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
    }
    assert_eq!(client.text("DBSIZE"), ":2\r\n");
}

/// One page: the next cursor, and the keys.
fn page(client: &mut Conn, cursor: &str, options: &str) -> (String, Vec<String>) {
    let reply = client.cmd(&format!("SCAN {cursor}{options}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().nth(1).unwrap().to_owned();
    let parts = elements(&reply).unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&reply)));
    let keys = &reply[parts[1].clone()];
    let keys = elements(keys).unwrap().into_iter().map(|key| text(&keys[key])).collect();
    (text(&reply[parts[0].clone()]), keys)
}

/// All that a scan gives, with how often; `between` is called between two pages.
fn scanned(client: &mut Conn, options: &str, mut between: impl FnMut(usize)) -> BTreeMap<String, usize> {
    let (mut cursor, mut all, mut pages) = ("0".to_owned(), BTreeMap::new(), 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (next, keys) = page(client, &cursor, options);
        keys.into_iter().for_each(|key| *all.entry(key).or_default() += 1);
        assert!(next.parse::<u64>().unwrap() < 1 << 53, "{next}");
        if next == "0" {
            return all;
        }
        assert!(Instant::now() < deadline, "it has no end");
        (cursor, pages) = (next, pages + 1);
        between(pages);
    }
}

fn fill(client: &mut Conn, n: usize) -> BTreeSet<String> {
    let keys: BTreeSet<_> = (0..n).map(|i| format!("key:{i}")).collect();
    let mset: Vec<_> = keys.iter().map(|key| format!("{key} v")).collect();
    assert_eq!(client.text(&format!("MSET {}", mset.join(" "))), "+OK\r\n");
    keys
}

#[test]
fn a_scan_gives_all_keys_of_all_nodes() {
    let both = Both::start();
    for resp3 in [false, true] {
        let [mut client, _] = both.clients(resp3);
        let keys = fill(&mut client, 3000);
        client.cmd("LPUSH list 1");
        let all = scanned(&mut client, " COUNT 100", |_| ());
        assert!(keys.iter().all(|key| all[key] == 1), "each once, while nothing moves");
        assert_eq!(all.len(), keys.len() + 1);
        assert_eq!(scanned(&mut client, " TYPE list COUNT 1000", |_| ()).len(), 1);
        assert_eq!(scanned(&mut client, " MATCH key:1* COUNT 500", |_| ()).len(), 1111);
    }
    let mut client = both.nearside.connect();
    // A page may be asked for again, on another connection.
    let (next, _) = page(&mut client, "0", " COUNT 50");
    let again = page(&mut both.nearside.connect(), &next, " COUNT 50");
    assert_eq!(page(&mut client, &next, " COUNT 50"), again);
    for (wrong, said) in [
        ("SCAN x", "-ERR invalid cursor\r\n"),
        ("SCAN", "-ERR wrong number of arguments for 'scan' command\r\n"),
        ("SCAN 0 COUNT 0", "-ERR syntax error\r\n"),
        ("SCAN 0 NONSENSE", "-ERR syntax error\r\n"),
    ] {
        assert_eq!(client.text(wrong), said, "{wrong}");
    }
    // A cursor of another process begins anew.
    let keys = scanned(&mut client, " COUNT 1000", |_| ());
    let (_, first) = page(&mut client, "123456789012", " COUNT 10");
    assert!(!first.is_empty() && first.iter().all(|key| keys.contains_key(key)));
    assert!(both.nearside.get("/metrics").1.contains("nearside_scans_begun_anew_total 1"));
    let mut ours = client;
    assert_eq!(ours.text("HSET h f v"), ":1\r\n");
    assert_eq!(ours.text("HSCAN h 0"), "*2\r\n$1\r\n0\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n");
}

#[test]
fn a_scan_loses_no_key_while_slots_move() {
    let both = Both::start();
    let mut client = both.nearside.connect();
    let keys = fill(&mut client, 2000);
    for round in 0..6 {
        let moved: Vec<u16> =
            keys.iter().skip(round * 97).step_by(101).map(|key| key_slot(key.as_bytes())).collect();
        let mut moves = moved.iter();
        let cluster = &both.cluster;
        let all = scanned(&mut client, " COUNT 20", |pages| {
            if pages % 5 != 0 {
                return;
            }
            let Some(slot) = moves.next() else { return };
            let from = cluster.owner_of_slot(*slot).unwrap().place;
            // Back to where the scan has been, and on to where it will be.
            cluster.migrate(*slot, from, (from + 1 + pages % 2) % 3);
        });
        let missed: Vec<_> = keys.iter().filter(|key| !all.contains_key(*key)).collect();
        assert!(missed.is_empty(), "round {round}: {missed:?}");
    }
}

#[test]
fn a_scan_ends_while_a_slot_stays_on_the_move_and_follows_its_keys() {
    let both = Both::start();
    let mut client = both.nearside.connect();
    let keys = fill(&mut client, 600);
    let of_last: Vec<_> = keys.iter().filter(|key| both.cluster.place_of(key) == Some(2)).take(20).collect();
    let slots: BTreeSet<_> = of_last.iter().map(|key| key_slot(key.as_bytes())).collect();
    slots.iter().for_each(|slot| both.cluster.begin_move(*slot, 2, 0));
    // The keys go from a node that is not scanned yet to one that is.
    let all = scanned(&mut client, " COUNT 50", |pages| {
        if pages == 6 {
            for slot in &slots {
                both.cluster.move_keys(*slot, 2, 0, 100);
            }
        }
    });
    let missed: Vec<_> = keys.iter().filter(|key| !all.contains_key(*key)).collect();
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn a_scan_goes_on_when_a_node_comes_and_takes_slots() {
    let mut both = Both::start();
    let mut client = both.nearside.connect();
    let keys = fill(&mut client, 1000);
    let place = both.cluster.add_node();
    let slots: BTreeSet<_> = keys.iter().step_by(20).map(|key| key_slot(key.as_bytes())).collect();
    let mut slots = slots.into_iter();
    let all = scanned(&mut client, " COUNT 30", |_| {
        let Some(slot) = slots.next() else { return };
        let from = both.cluster.owner_of_slot(slot).unwrap().place;
        both.cluster.migrate(slot, from, place);
    });
    let missed: Vec<_> = keys.iter().filter(|key| !all.contains_key(*key)).collect();
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn what_is_written_in_parts_is_announced_by_what_each_part_replied() {
    let both = Both::start();
    let [a, b, c] = [0, 1, 2].map(|node| both.cluster.keys_of(both.cluster.node(node), 1).remove(0));
    let mut client = both.nearside.connect();
    // Each is said on its key's node; a message reaches those who listen on any.
    let mut listener = both.cluster.node(0).redis().listen();
    let mut direct = both.cluster.node(0).connect();
    assert_eq!(client.text(&format!("MSET {a} 1 {b} 1")), "+OK\r\n");
    assert_eq!(client.text(&format!("DEL {a} {b} {c}")), ":2\r\n");
    let bare = |key: &str| key.strip_prefix("users/").unwrap().to_owned();
    let mut heard = BTreeSet::new();
    let wanted: BTreeSet<_> = [("update", &a), ("update", &b), ("delete", &a), ("delete", &b)]
        .map(|(what, key)| format!("users/{what} {}", bare(key)))
        .into();
    in_time("all is announced", || {
        heard.extend(listener.heard(&mut direct));
        wanted.iter().all(|one| heard.contains(one))
    });
    assert!(!heard.contains(&format!("users/delete {}", bare(&c))), "it was not there: {heard:?}");
}

#[test]
fn a_pipelined_client_that_goes_away_leaves_nothing_behind() {
    let both = Both::start();
    for _ in 0..20 {
        let mut client = both.nearside.connect();
        let lines: Vec<u8> = (0..50).flat_map(|i| line(&format!("MSET a {i} b {i} c {i}"))).collect();
        client.send(&lines);
        client.abort();
    }
    // No fence of theirs is left: the keys can be cached.
    let mut client = both.nearside.connect();
    in_time("the keys are hits", || {
        let before = both.nearside.stat("hits");
        client.cmd("MGET a b c");
        both.nearside.stat("hits") > before
    });
}

#[test]
fn one_who_waits_for_ever_and_goes_away_leaves_no_connections() {
    let both = Both::start();
    let links =
        || both.cluster.nodes().iter().map(|node| node.ask("CLIENT LIST").lines().count()).sum::<usize>();
    let mut client = both.nearside.connect();
    assert_eq!(client.text("SET a 1"), "+OK\r\n");
    let before = links();
    client.send(&line("WAIT 1 0"));
    in_time("it waits at each node", || {
        let waits = |node: &support::cluster::Node| node.ask("CLIENT LIST").contains("cmd=wait");
        both.cluster.nodes().iter().all(waits)
    });
    drop(client);
    in_time("they are closed", || links() <= before);
}

/// Slots move all the while, there and back, each with its keys.
fn keep_moving(cluster: &Cluster, slots: &[u16], until: &std::sync::atomic::AtomicBool) -> usize {
    let mut moved = 0;
    while !until.load(std::sync::atomic::Ordering::Relaxed) {
        for slot in slots {
            let from = cluster.owner_of_slot(*slot).unwrap().place;
            cluster.migrate(*slot, from, (from + 1) % 3);
            moved += 1;
        }
    }
    moved
}

#[test]
fn requests_in_parts_see_nothing_of_slots_that_move() {
    let both = Both::start();
    let (nearside, cluster) = (&both.nearside, &both.cluster);
    let keys: Vec<_> = (0..3).flat_map(|node| cluster.keys_of(cluster.node(node), 6)).collect();
    let slots: Vec<_> = keys.iter().step_by(2).map(|key| key_slot(key.as_bytes())).collect();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| keep_moving(cluster, &slots, &over));
        let mut client = nearside.connect();
        let mut reader = nearside.connect();
        let names = keys.join(" ");
        let said = |round: usize| {
            format!("*{}\r\n{}", keys.len(), format!("$4\r\n{round:04}\r\n").repeat(keys.len()))
        };
        for round in 0..300 {
            let mset: Vec<_> = keys.iter().map(|key| format!("{key} {round:04}")).collect();
            let lines = [
                format!("MSET {}", mset.join(" ")),
                format!("MGET {names}"),
                format!("EXISTS {names}"),
                format!("DEL {names}"),
                format!("MGET {names}"),
                format!("MSET {}", mset.join(" ")),
            ];
            let replies = client.pipeline(&lines);
            let gone = format!("*{}\r\n{}", keys.len(), "$-1\r\n".repeat(keys.len()));
            let number = format!(":{}\r\n", keys.len());
            let expected = ["+OK\r\n", &said(round), &number, &number, &gone, "+OK\r\n"];
            assert_eq!(replies, expected, "round {round}");
            // Another session, from the cache or not.
            assert_eq!(reader.text(&format!("MGET {names}")), said(round), "round {round}");
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(mover.join().unwrap() > 20);
    });
    let metrics = nearside.get("/metrics").1;
    let resent = metrics.lines().find_map(|line| line.strip_prefix("nearside_resent_requests_total "));
    assert!(resent.is_some_and(|number| number.parse::<f64>().unwrap() > 0.0), "{metrics}");
}

#[test]
fn replies_that_are_too_large_together_are_an_error_and_no_more() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster_with(&cluster, |config| config.client_output_limit = 64 << 10);
    let mut client = nearside.connect();
    fill(&mut client, 3000);
    assert_eq!(client.text("KEYS *").lines().next(), Some("*3000"), "in front of the limit");
    for i in 0..30 {
        let keys: Vec<_> = (0..100).map(|n| format!("{}{i}.{n} v", "long".repeat(40))).collect();
        assert_eq!(client.text(&format!("MSET {}", keys.join(" "))), "+OK\r\n");
    }
    let said = client.pipeline(&["KEYS *", "DBSIZE", "KEYS key:1"]);
    assert!(
        said[0].starts_with("-ERR nearside: the replies of the cluster's nodes are too large"),
        "{}",
        said[0]
    );
    assert_eq!(said[1..], [":6000\r\n", "*1\r\n$5\r\nkey:1\r\n"]);
}

/// What the server says of its commands: names, how many arguments, and where the first key is.
fn commands_with_keys(conn: &mut Conn) -> Vec<(Vec<String>, i64, usize)> {
    let reply = decode(&conn.cmd("COMMAND"), 16).expect("a reply");
    let mut found = Vec::new();
    let mut left: Vec<Value> = reply.as_array().expect("a list").to_vec();
    while let Some(entry) = left.pop() {
        let entry = entry.as_array().expect("an entry");
        let text = |value: &Value| String::from_utf8_lossy(value.as_bytes().unwrap_or_default()).into_owned();
        let flags: Vec<_> = entry[2].as_array().unwrap().iter().map(text).collect();
        left.extend(entry.get(9).and_then(Value::as_array).unwrap_or_default().iter().cloned());
        let first = usize::try_from(entry[3].as_int().unwrap()).unwrap_or(0);
        // Where the first key is depends on the request, or it waits, or it changes what the connection is.
        let odd = ["movablekeys", "blocking", "pubsub"];
        let (name, is) = (text(&entry[0]), |flag: &String| odd.contains(&&**flag));
        let is_odd = flags.iter().any(is) && name != "spublish" || name == "watch";
        if first > 0 && !is_odd {
            found.push((
                text(&entry[0]).split('|').map(str::to_owned).collect(),
                entry[1].as_int().unwrap(),
                first,
            ));
        }
    }
    found
}

/// Whatever the server says of it else: no client is sent elsewhere with a key.
#[test]
fn every_command_with_a_key_goes_to_the_key_s_node() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster(&cluster);
    let (mut client, mut asked) = (nearside.connect(), 0);
    let commands = commands_with_keys(&mut cluster.node(0).connect());
    let movable = [
        "EVAL s 1 KEY",
        "EVALSHA s 1 KEY",
        "EVAL_RO s 1 KEY",
        "FCALL f 1 KEY",
        "ZUNION 1 KEY",
        "ZINTER 1 KEY",
        "ZDIFF 1 KEY",
        "SINTERCARD 1 KEY",
        "ZINTERCARD 1 KEY",
        "LMPOP 1 KEY LEFT",
        "ZMPOP 1 KEY MIN",
        "ZUNIONSTORE KEY 1 KEY",
        "SORT KEY",
        "SORT_RO KEY",
        "XREAD STREAMS KEY 0",
        "GEORADIUS KEY 1 1 1 m STORE KEY",
    ];
    for key in cluster.masters().iter().map(|node| cluster.keys_of(node, 1).remove(0)) {
        let mut lines: Vec<String> = movable.iter().map(|line| line.replace("KEY", &key)).collect();
        for (name, arity, first) in &commands {
            let length = usize::try_from(arity.abs()).unwrap().max(first + 1);
            let word = |i: usize| if i >= *first { &*key } else { name.get(i).map_or("1", |word| word) };
            lines.push((0..length).map(word).collect::<Vec<_>>().join(" "));
        }
        for line in &lines {
            let said = client.text(line);
            let is_routed =
                !["-MOVED", "-ASK", "-CROSSSLOT", "-ERR nearside"].iter().any(|word| said.starts_with(word));
            assert!(is_routed, "{line}: {said}");
            asked += 1;
        }
    }
    assert!(asked > 400, "{asked}");
}
