//! Sessions with connections of their own in front of a cluster: transactions, what waits, and what is heard go to the nodes
//! whose the keys and channels are, and follow them when these go elsewhere.

use crate::support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nearside::resp::key_slot;
use support::cluster::{Cluster, in_time};
use support::{Conn, Nearside, eventually, line};

/// A key of this node, and another in the same slot.
fn pair(cluster: &Cluster, node: usize) -> (String, String) {
    let key = cluster.keys_of(cluster.node(node), 1).remove(0);
    (format!("{{{key}}}a"), format!("{{{key}}}b"))
}

fn slot(key: &str) -> u16 {
    key_slot(key.as_bytes())
}

/// As somebody else does it, whose the key is now.
fn foreign(cluster: &Cluster, key: &str, command: &str) -> String {
    cluster.owner_of(key).ask(command)
}

/// Waits until somebody is blocked at the node.
#[track_caller]
fn blocked(cluster: &Cluster, node: usize) {
    let is = || cluster.node(node).ask("INFO clients").contains("blocked_clients:1");
    in_time("somebody waits there", is);
}

#[test]
fn transactions() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster(&cluster);
    let keys: Vec<_> = (0..3).map(|node| pair(&cluster, node)).collect();
    let mut client = nearside.connect();

    // On each node, also twice in a row and in one packet.
    for _ in 0..2 {
        for (a, b) in &keys {
            let lines =
                ["MULTI", "PING", &format!("SET {a} 1"), &format!("INCR {b}"), &format!("GET {a}"), "EXEC"];
            let said = client.pipeline(&lines);
            assert_eq!(said[..5], ["+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "+QUEUED\r\n"]);
            assert!(said[5].starts_with("*4\r\n+PONG\r\n+OK\r\n:"), "{said:?}");
            for (sent, said) in lines.iter().zip(&said) {
                assert_eq!(client.text(sent)[..4], said[..4], "{sent} by itself");
            }
            assert_eq!(client.value(a).as_deref(), Some("1"));
        }
    }
    // Nothing, and nothing with keys.
    assert_eq!(client.pipeline(&["MULTI", "EXEC"]), ["+OK\r\n", "*0\r\n"]);
    assert_eq!(client.pipeline(&["MULTI", "DISCARD"]), ["+OK\r\n", "+OK\r\n"]);
    assert_eq!(client.pipeline(&["MULTI", "PING", "EXEC"])[2], "*1\r\n+PONG\r\n");
    let ((a, _), (b, _)) = (&keys[0], &keys[1]);
    let said = client.pipeline(&["MULTI", &format!("SET {a} 2"), "DISCARD", &format!("GET {a}")]);
    assert_eq!(said[2..], ["+OK\r\n", "$1\r\n1\r\n"]);

    // Errors in the queue, and in what is executed.
    let abort = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    let said = client.pipeline(&["MULTI", &format!("SET {a}"), &format!("SET {a} 3"), "EXEC"]);
    assert!(said[1].starts_with("-ERR wrong number"), "{said:?}");
    assert_eq!(said[2..], ["+QUEUED\r\n", abort]);
    let said = client.pipeline(&["MULTI", "NOSUCH", "EXEC"]);
    assert!(said[1].starts_with("-ERR unknown command"), "{said:?}");
    assert_eq!(said[2], abort);
    let said = client.pipeline(&["MULTI", "MULTI", &format!("GET {a}"), "EXEC"]);
    assert!(said[1].starts_with("-ERR MULTI calls can not be nested"), "{said:?}");
    let said = client.pipeline(&["MULTI", &format!("WATCH {a}"), &format!("GET {a}"), "EXEC"]);
    assert!(said[1].starts_with("-ERR WATCH inside MULTI is not allowed"), "{said:?}");

    // Another node's slot, and another slot of the same node: nothing of it is done.
    let crossed = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
    let said = client.pipeline(&["MULTI", &format!("SET {a} 4"), &format!("SET {b} 4"), "EXEC"]);
    assert_eq!(said[1..], ["+QUEUED\r\n", crossed, abort]);
    let near = cluster.keys_of(cluster.node(0), 3).pop().unwrap();
    let said = client.pipeline(&["MULTI", &format!("SET {a} 4"), &format!("SET {near} 4"), "EXEC"]);
    assert_eq!(said[1..], ["+QUEUED\r\n", "+QUEUED\r\n", crossed]);
    let said = client.pipeline(&["MULTI", &format!("MSET {a} 4 {b} 4"), "EXEC"]);
    assert_eq!(said[1..], [crossed, abort]);
    assert_eq!(client.value(a).as_deref(), Some("1"));

    // RESET in the middle, and RESP3.
    assert_eq!(client.pipeline(&["MULTI", &format!("SET {a} 5"), "RESET"])[2], "+RESET\r\n");
    assert!(client.text("EXEC").starts_with("-ERR EXEC without MULTI"));
    let mut client = nearside.connect_resp3();
    let said = client.pipeline(&["MULTI", &format!("HSET {a}h f v"), &format!("HGETALL {a}h"), "EXEC"]);
    assert_eq!(said[3], "*2\r\n:1\r\n%1\r\n$1\r\nf\r\n$1\r\nv\r\n");
    assert_eq!(client.pipeline(&["MULTI", "EXEC"])[1], "*0\r\n");
}

#[test]
fn watches() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster(&cluster);
    let (mut client, mut other) = (nearside.connect(), nearside.connect());
    for node in 0..3 {
        let (a, b) = pair(&cluster, node);
        // Not touched, and touched by another.
        assert_eq!(client.text(&format!("WATCH {a}")), "+OK\r\n");
        assert_eq!(client.text(&format!("GET {a}")), "$-1\r\n");
        let said = client.pipeline(&["MULTI", &format!("SET {a} 1"), "EXEC"]);
        assert_eq!(said[2], "*1\r\n+OK\r\n", "{said:?}");
        assert_eq!(client.text(&format!("WATCH {a} {b}")), "+OK\r\n");
        assert_eq!(other.text(&format!("SET {b} 2")), "+OK\r\n");
        assert_eq!(client.pipeline(&["MULTI", &format!("SET {a} 3"), "EXEC"])[2], "*-1\r\n");
        assert_eq!(client.value(&a).as_deref(), Some("1"));
        // What it writes itself counts.
        assert_eq!(client.text(&format!("WATCH {a}")), "+OK\r\n");
        assert_eq!(client.text(&format!("SET {a} 4")), "+OK\r\n");
        assert_eq!(client.pipeline(&["MULTI", "PING", "EXEC"])[2], "*-1\r\n");
        assert_eq!(client.text(&format!("WATCH {a}")), "+OK\r\n");
        assert_eq!(other.text(&format!("SET {a} 5")), "+OK\r\n");
        assert_eq!(client.text("UNWATCH"), "+OK\r\n");
        assert_eq!(client.pipeline(&["MULTI", "PING", "EXEC"])[2], "*1\r\n+PONG\r\n");
    }
    // Others' keys are read and written meanwhile, and not watched.
    let ((a, _), (b, _)) = (pair(&cluster, 0), pair(&cluster, 1));
    let crossed = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
    assert_eq!(client.text(&format!("WATCH {a}")), "+OK\r\n");
    assert_eq!(client.text(&format!("WATCH {b}")), crossed);
    assert_eq!(client.text(&format!("GET {b}")), other.text(&format!("GET {b}")));
    assert_eq!(client.text(&format!("SET {b} x")), "+OK\r\n");
    let said = client.pipeline(&["MULTI", &format!("SET {a} 6"), &format!("SET {b} 6"), "EXEC"]);
    assert_eq!(said[2], crossed);
    assert!(said[3].starts_with("-EXECABORT"));
    assert_eq!(client.value(&b).as_deref(), Some("x"));
}

#[test]
fn a_watch_whose_slot_goes_elsewhere_is_lost_and_exec_says_so() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster(&cluster);
    let mut client = nearside.connect();
    let (a, b) = pair(&cluster, 0);
    let set = format!("SET {a} mine");
    // Before the MULTI, before the EXEC, and between two WATCHes.
    for (i, moment) in ["multi", "exec", "watch"].into_iter().enumerate() {
        let (from, to) = (i % 3, (i + 1) % 3);
        foreign(&cluster, &a, &format!("SET {a} {i}"));
        assert_eq!(client.text(&format!("WATCH {a}")), "+OK\r\n");
        if moment == "exec" {
            assert_eq!(client.pipeline(&["MULTI", &set])[1], "+QUEUED\r\n");
        }
        cluster.migrate(slot(&a), from, to);
        if moment == "watch" {
            assert_eq!(client.text(&format!("WATCH {b}")), "+OK\r\n");
            // Even if the slot is back: what was watched there is not known any more.
            cluster.migrate(slot(&a), to, from);
            cluster.migrate(slot(&a), from, to);
        }
        let said = match moment {
            "exec" => client.pipeline(&["EXEC"]),
            _ => client.pipeline(&["MULTI", &set, "EXEC"]),
        };
        assert_eq!(said.last().unwrap(), "*-1\r\n", "{moment}: {said:?}");
        assert_eq!(foreign(&cluster, &a, &format!("GET {a}")), format!("$1\r\n{i}\r\n"), "{moment}");
        // As a client does that is told so.
        assert_eq!(client.text(&format!("WATCH {a}")), "+OK\r\n");
        assert_eq!(client.pipeline(&["MULTI", &set, "EXEC"])[2], "*1\r\n+OK\r\n", "{moment}");
        assert_eq!(foreign(&cluster, &a, &format!("GET {a}")), "$4\r\nmine\r\n", "{moment}");
    }
}

#[test]
fn a_transaction_whose_slot_goes_elsewhere_begins_anew_there() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster(&cluster);
    let mut client = nearside.connect();
    let (a, b) = pair(&cluster, 0);
    let incr = format!("INCR {a}");
    client.text(&format!("SET {a} 0"));
    // Nobody has told nearside yet.
    cluster.migrate(slot(&a), 0, 1);
    let said = client.pipeline(&["MULTI", "PING", &incr, &incr, "EXEC"]);
    assert_eq!(said[2..], ["+QUEUED\r\n", "+QUEUED\r\n", "*3\r\n+PONG\r\n:1\r\n:2\r\n"]);
    // In the middle of it, also as it comes bit by bit.
    assert_eq!(client.pipeline(&["MULTI", &incr])[1], "+QUEUED\r\n");
    cluster.migrate(slot(&a), 1, 2);
    assert_eq!(client.text(&incr), "+QUEUED\r\n");
    assert_eq!(client.text("EXEC"), "*2\r\n:3\r\n:4\r\n");
    assert_eq!(client.pipeline(&["MULTI", &incr])[1], "+QUEUED\r\n");
    cluster.migrate(slot(&a), 2, 0);
    assert_eq!(client.text("EXEC"), "*1\r\n:5\r\n");
    assert_eq!(client.pipeline(&["MULTI", &incr])[1], "+QUEUED\r\n");
    cluster.migrate(slot(&a), 0, 1);
    assert_eq!(client.text("DISCARD"), "+OK\r\n");
    // While the slot is on its way: a key that has gone already, and one that was never there.
    cluster.begin_move(slot(&a), 1, 2);
    cluster.move_keys(slot(&a), 1, 2, 10);
    assert_eq!(client.pipeline(&["MULTI", &incr, "EXEC"])[2], "*1\r\n:6\r\n");
    assert_eq!(client.pipeline(&["MULTI", &format!("SET {b} x"), "EXEC"])[2], "*1\r\n+OK\r\n");
    cluster.end_move(slot(&a), 1, 2);
    let said = client.pipeline(&["MULTI", &incr, &format!("GET {b}"), "EXEC"]);
    assert_eq!(said[3], "*2\r\n:7\r\n$1\r\nx\r\n");
    assert_eq!(foreign(&cluster, &a, &format!("GET {a}")), "$1\r\n7\r\n");
}

/// What waits, what it is let go by, and what it is answered.
const WAITING: &[(&str, &str, &str)] = &[
    ("BLPOP <a> 0", "RPUSH <a> x", "x"),
    ("BRPOP <a> <b> 0", "RPUSH <a> x", "x"),
    ("BLMOVE <a> <b> LEFT RIGHT 0", "RPUSH <a> x", "x"),
    ("BRPOPLPUSH <a> <b> 0", "RPUSH <a> x", "x"),
    ("BLMPOP 0 2 <b> <a> LEFT", "RPUSH <a> x", "x"),
    ("BZPOPMIN <a> 0", "ZADD <a> 1 x", "x"),
    ("BZPOPMAX <a> 30", "ZADD <a> 1 x", "x"),
    ("BZMPOP 30 1 <a> MIN", "ZADD <a> 1 x", "x"),
    ("XREAD BLOCK 0 STREAMS <a> 0", "XADD <a> 1-1 f x", "x"),
    ("XREAD COUNT 1 BLOCK 30000 STREAMS <a> 0", "XADD <a> 1-1 f x", "x"),
];

#[test]
fn what_waits_follows_its_slot_and_is_answered_once() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster(&cluster);
    let mut client = nearside.connect();
    let key = cluster.keys_of(cluster.node(0), 1).remove(0);
    let mut at = 0;
    for (i, (waiting, write, said)) in WAITING.iter().enumerate() {
        let (a, b) = (format!("{{{key}}}{i}"), format!("{{{key}}}{i}b"));
        let of = |line: &str| line.replace("<b>", &b).replace("<a>", &a);
        // Where it is; and where it goes while that waits.
        for moves in [0, 1, 2] {
            client.send(&line(&of(waiting)));
            blocked(&cluster, at);
            for _ in 0..moves {
                let to = (at + 1) % 3;
                cluster.migrate(slot(&key), at, to);
                blocked(&cluster, to);
                at = to;
            }
            assert!(!foreign(&cluster, &key, &of(write)).starts_with('-'), "{write}");
            let reply = String::from_utf8(client.reply()).unwrap();
            assert!(reply.starts_with(['*', '$']) && reply.contains(said), "{waiting}: {reply}");
            let left = foreign(&cluster, &key, &format!("EXISTS {a}"));
            assert_eq!(left == ":0\r\n", !waiting.starts_with('X'), "{waiting}: {left}");
            foreign(&cluster, &key, &format!("DEL {a}"));
            foreign(&cluster, &key, &format!("DEL {b}"));
        }
    }
    let crossed = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
    let others = cluster.keys_of(cluster.node((at + 1) % 3), 1).remove(0);
    assert_eq!(client.text(&format!("BLPOP {key} {others} 0")), crossed);
    // What stands behind it is answered behind it.
    client.send(&[line(&format!("BLPOP {key} 0")), line(&format!("GET {others}")), line("PING")].concat());
    blocked(&cluster, at);
    foreign(&cluster, &key, &format!("RPUSH {key} y"));
    assert!(client.reply().starts_with(b"*2"));
    assert_eq!(client.reply(), b"$-1\r\n");
    assert_eq!(client.reply(), b"+PONG\r\n");
}

#[test]
fn what_waits_does_so_for_as_long_as_it_said_in_all() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster(&cluster);
    let mut client = nearside.connect();
    let (a, _) = pair(&cluster, 0);
    let begun = Instant::now();
    client.send(&line(&format!("BLPOP {a} 2.5")));
    blocked(&cluster, 0);
    cluster.migrate(slot(&a), 0, 1);
    blocked(&cluster, 1);
    assert_eq!(client.reply(), b"*-1\r\n");
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(2300) && took < Duration::from_millis(4000), "{took:?}");
    // A client that has gone takes nothing.
    client.send(&line(&format!("BLPOP {a} 0")));
    blocked(&cluster, 1);
    cluster.migrate(slot(&a), 1, 2);
    blocked(&cluster, 2);
    drop(client);
    eventually("nobody waits", || cluster.node(2).ask("INFO clients").contains("blocked_clients:0"));
    assert_eq!(foreign(&cluster, &a, &format!("RPUSH {a} x")), ":1\r\n");
    assert_eq!(foreign(&cluster, &a, &format!("LLEN {a}")), ":1\r\n");
}

#[test]
fn while_its_slot_is_on_the_way_a_request_waits_where_its_key_will_be() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster(&cluster);
    let mut client = nearside.connect();
    let (a, _) = pair(&cluster, 0);
    cluster.begin_move(slot(&a), 0, 1);
    client.send(&line(&format!("BLPOP {a} 0")));
    blocked(&cluster, 1);
    cluster.end_move(slot(&a), 0, 1);
    foreign(&cluster, &a, &format!("RPUSH {a} x"));
    assert!(client.reply().ends_with(b"$1\r\nx\r\n"));
    assert_eq!(foreign(&cluster, &a, &format!("LLEN {a}")), ":0\r\n");
}

/// A frame that is a message, a confirmation or an array, as its words.
fn heard(client: &mut Conn) -> String {
    let frame = String::from_utf8(client.reply()).unwrap();
    let words = frame.split("\r\n").skip(1).filter(|word| !word.starts_with(['$', '+']) && !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn channels_and_shard_channels() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster(&cluster);
    let channels: Vec<_> = (0..3).map(|node| cluster.keys_of(cluster.node(node), 2)).collect();
    for resp3 in [false, true] {
        let mut client = if resp3 { nearside.connect_resp3() } else { nearside.connect() };
        let mut other = nearside.connect();
        client.send(&line("SUBSCRIBE a b"));
        assert_eq!([heard(&mut client), heard(&mut client)], ["subscribe a :1", "subscribe b :2"]);
        client.send(&line("PSUBSCRIBE c*"));
        assert_eq!(heard(&mut client), "psubscribe c* :3");
        // Shard channels of all nodes, counted together, and apart from the others.
        for (i, theirs) in channels.iter().enumerate() {
            client.send(&line(&format!("SSUBSCRIBE {}", theirs[0])));
            assert_eq!(heard(&mut client), format!("ssubscribe {} :{}", theirs[0], i + 1));
        }
        let crossed = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
        assert_eq!(client.text(&format!("SSUBSCRIBE {} {}", channels[0][0], channels[1][0])), crossed);
        for (place, theirs) in channels.iter().enumerate() {
            // From any node, and through nearside.
            cluster.node(place).ask("PUBLISH a direct");
            assert_eq!(heard(&mut client), "message a direct");
            let channel = &theirs[0];
            cluster.node(place).ask(&format!("SPUBLISH {channel} direct"));
            assert_eq!(heard(&mut client), format!("smessage {channel} direct"));
            cluster.node(place).ask(&format!("SPUBLISH {} nobody", theirs[1]));
        }
        other.text("PUBLISH cc x");
        assert_eq!(heard(&mut client), "pmessage c* cc x");
        // What a subscriber may say.
        match resp3 {
            false => {
                assert_eq!(client.text("PING"), "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
                let refusal = "only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context";
                for theirs in &channels {
                    let said = client.text(&format!("GET {}", theirs[0]));
                    assert_eq!(said, format!("-ERR Can't execute 'get': {refusal}\r\n"));
                }
                assert_eq!(client.text("ECHO x"), format!("-ERR Can't execute 'echo': {refusal}\r\n"));
            }
            true => {
                assert_eq!(client.text("PING"), "+PONG\r\n");
                for theirs in &channels {
                    let key = &theirs[0];
                    assert_eq!(client.text(&format!("SET {key} v")), "+OK\r\n");
                    assert_eq!(client.text(&format!("GET {key}")), "$1\r\nv\r\n");
                    let said = client.pipeline(&["MULTI", &format!("GET {key}"), "EXEC"]);
                    assert_eq!(said[2], "*1\r\n$1\r\nv\r\n");
                    assert_eq!(client.text(&format!("BLPOP {key}q 0.01")), "_\r\n");
                }
            }
        }
        client.send(&line(&format!("SUNSUBSCRIBE {}", channels[1][0])));
        assert_eq!(heard(&mut client), format!("sunsubscribe {} :2", channels[1][0]));
        client.send(&line("UNSUBSCRIBE"));
        let mut left = [heard(&mut client), heard(&mut client)];
        left.sort();
        assert!(left[0].starts_with("unsubscribe a :") && left[1].starts_with("unsubscribe b :"), "{left:?}");
        client.send(&line("SUNSUBSCRIBE"));
        let left = [heard(&mut client), heard(&mut client)];
        assert!(left[0].ends_with(" :1") && left[1].ends_with(" :0"), "{left:?}");
        client.send(&line("SUNSUBSCRIBE"));
        assert!(heard(&mut client).starts_with("sunsubscribe"));
        client.send(&line("PUNSUBSCRIBE"));
        assert_eq!(heard(&mut client), "punsubscribe c* :0");
        assert_eq!(client.text("PING"), "+PONG\r\n");
        let key = &channels[2][0];
        other.text(&format!("SET {key} v"));
        assert_eq!(client.text(&format!("GET {key}")), "$1\r\nv\r\n");
    }
}

#[test]
fn shard_channels_follow_their_slot() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster(&cluster);
    let (a, b) = pair(&cluster, 0);
    let (c, _) = pair(&cluster, 1);
    for resp3 in [false, true] {
        let mut client = if resp3 { nearside.connect_resp3() } else { nearside.connect() };
        for (i, channel) in [&a, &b, &c].into_iter().enumerate() {
            client.send(&line(&format!("SSUBSCRIBE {channel}")));
            assert_eq!(heard(&mut client), format!("ssubscribe {channel} :{}", i + 1));
        }
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            cluster.migrate(slot(&a), from, to);
            for channel in [&a, &b, &c] {
                // Nothing is heard but what is published, as soon as somebody hears it.
                let publish = format!("SPUBLISH {channel} {to}");
                in_time("it is heard", || foreign(&cluster, channel, &publish) == ":1\r\n");
                assert_eq!(heard(&mut client), format!("smessage {channel} {to}"));
            }
        }
        assert!(!nearside.get("/metrics").1.contains(r#"shard_channels_total{then="moved"} 0"#));
        client.send(&line(&format!("SUNSUBSCRIBE {a}")));
        assert_eq!(heard(&mut client), format!("sunsubscribe {a} :2"));
        // Nobody has told nearside yet.
        let mut late = nearside.connect();
        cluster.migrate(slot(&c), 1, 2);
        late.send(&line(&format!("SSUBSCRIBE {c}")));
        assert_eq!(heard(&mut late), format!("ssubscribe {c} :1"));
        cluster.migrate(slot(&c), 2, 1);
    }
}

#[test]
fn a_subscriber_whose_node_dies_is_sent_away() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster(&cluster);
    let (a, _) = pair(&cluster, 1);
    let (b, _) = pair(&cluster, 2);
    let subscribed = |channel: &str| {
        let mut client = nearside.connect();
        client.send(&line(&format!("SSUBSCRIBE {channel}")));
        assert_eq!(heard(&mut client), format!("ssubscribe {channel} :1"));
        client
    };
    let (mut there, mut elsewhere) = (subscribed(&a), subscribed(&b));
    let mut both = subscribed(&b);
    both.send(&line(&format!("SSUBSCRIBE {a}")));
    assert_eq!(heard(&mut both), format!("ssubscribe {a} :2"));
    cluster.node(1).kill();
    assert!(there.is_closed() && both.is_closed());
    elsewhere.send(&line(&format!("SUNSUBSCRIBE {b}")));
    assert_eq!(heard(&mut elsewhere), format!("sunsubscribe {b} :0"));
}

#[test]
fn who_waits_is_let_go_where_it_waits() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster(&cluster);
    let mut other = nearside.connect();
    for place in 0..3 {
        let key = cluster.keys_of(cluster.node(place), 1).remove(0);
        let mut client = nearside.connect();
        let id = client.text("CLIENT ID");
        let id = id.trim_start_matches(':').trim_end();
        // Others at other nodes whose connections are called the same there are left alone.
        let mut strangers: Vec<_> = (0..3).map(|place| cluster.node(place).connect()).collect();
        strangers.iter_mut().for_each(|stranger| stranger.send(&line("BLPOP nobody{x} 0")));
        client.send(&line(&format!("BLPOP {key} 0")));
        in_time("it waits", || other.text(&format!("CLIENT UNBLOCK {id}")) == ":1\r\n");
        assert_eq!(client.reply(), b"*-1\r\n");
        client.send(&line(&format!("BLPOP {key} 0")));
        in_time("it waits", || other.text(&format!("CLIENT UNBLOCK {id} ERROR")) == ":1\r\n");
        assert_eq!(client.reply(), b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n");
        assert_eq!(other.text(&format!("CLIENT UNBLOCK {id}")), ":0\r\n");
    }
}

#[test]
fn who_may_not_begin_a_transaction_executes_nothing_of_it() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster(&cluster);
    for node in cluster.nodes() {
        node.order("ACL SETUSER bob on >pw ~* &* +@all -multi");
    }
    let (a, _) = pair(&cluster, 1);
    let mut client = nearside.connect();
    assert_eq!(client.text("AUTH bob pw"), "+OK\r\n");
    let set = format!("SET {a} v");
    let said = client.pipeline(&["MULTI", &set, &set, "EXEC", &format!("GET {a}")]);
    assert_eq!(said[0], "+OK\r\n");
    assert!(said[1].starts_with("-NOPERM") && said[2] == said[1], "{said:?}");
    assert_eq!(said[3..], ["-EXECABORT Transaction discarded because of previous errors.\r\n", "$-1\r\n"]);
    assert_eq!(client.pipeline(&["MULTI", &set, "DISCARD"])[2], "+OK\r\n");
    assert_eq!(client.text(&set), "+OK\r\n");
}

#[test]
fn the_loss_of_a_node_is_told_to_those_who_had_something_there() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster(&cluster);
    let (a, b) = (pair(&cluster, 0).0, pair(&cluster, 1).0);
    let at = |key: &str, lines: &[&str]| {
        let mut client = nearside.connect();
        lines.iter().for_each(|line| assert!(!client.text(&line.replace("<k>", key)).starts_with('-')));
        client
    };
    let mut lost = [at(&a, &["WATCH <k>"]), at(&a, &["MULTI", "SET <k> v"])];
    let mut kept = [at(&b, &["WATCH <k>"]), at(&b, &["MULTI", "SET <k> v"])];
    // Nobody has been told of this one.
    let mut begun = at(&b, &["MULTI"]);
    let mut waiting = at(&a, &[]);
    waiting.send(&line(&format!("BLPOP {a} 0")));
    blocked(&cluster, 0);
    cluster.node(0).kill();
    lost.iter_mut().for_each(|client| assert!(client.is_closed()));
    let said = String::from_utf8(waiting.reply()).unwrap();
    assert!(said.starts_with("-ERR nearside:") && said.contains("may have been executed"), "{said}");
    in_time("the others know", || cluster.node(1).ask("CLUSTER INFO").contains("cluster_state:fail"));
    let [watching, queued] = &mut kept;
    assert!(watching.text("PING") == "+PONG\r\n" && queued.text("PING") == "+QUEUED\r\n");
    assert_eq!(begun.text("DISCARD"), "+OK\r\n");
}

#[test]
fn what_several_connections_would_have_to_share_is_refused() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster(&cluster);
    let mut client = nearside.connect_resp3();
    assert!(client.text("CLIENT TRACKING ON").starts_with("-ERR nearside: CLIENT TRACKING"));
    assert_eq!(client.text("CLIENT TRACKING OFF"), "+OK\r\n");
    let said = client.pipeline(&["MULTI", "CLIENT TRACKING ON BCAST", "EXEC"]);
    assert!(said[1].starts_with("-ERR nearside: CLIENT TRACKING") && said[2].starts_with("-EXECABORT"));
    client.send(&line("SUBSCRIBE a"));
    assert_eq!(heard(&mut client), "subscribe a :1");
    assert!(client.text("HELLO 2").starts_with("-ERR nearside:"));
    assert!(client.text("HELLO").starts_with('%'));
}

/// Consumers, transactions and optimistic locking, while their slot goes round: each element comes once, each transaction is
/// executed as often as it was answered, and no update is lost.
#[test]
fn nothing_is_lost_nor_done_twice_while_a_slot_goes_round() {
    const EACH: usize = 300;
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster_with(&cluster, |config| config.workers = 2);
    let key = cluster.keys_of(cluster.node(0), 1).remove(0);
    let (queue, count, sum) = (format!("{{{key}}}q"), format!("{{{key}}}c"), format!("{{{key}}}s"));
    let slot = slot(&queue);
    let mut at = cluster.place_of(&queue).unwrap();
    let stop = AtomicBool::new(false);
    let connect = || nearside.connect();
    std::thread::scope(|scope| {
        let consumers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let (mut client, mut popped) = (connect(), Vec::new());
                    loop {
                        let said = client.text(&format!("BLPOP {queue} 5"));
                        assert!(said.starts_with("*2\r\n"), "{said}");
                        let item = said.trim_end().rsplit("\r\n").next().unwrap().to_owned();
                        if item == "end" {
                            return popped;
                        }
                        popped.push(item);
                    }
                })
            })
            .collect();
        let transactions: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = connect();
                    for _ in 0..EACH {
                        let said = client.pipeline(&["MULTI", &format!("INCR {count}"), "PING", "EXEC"]);
                        assert!(said[3].starts_with("*2\r\n:"), "{said:?}");
                    }
                })
            })
            .collect();
        let lockers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let (mut client, mut done) = (connect(), 0);
                    while done < EACH {
                        assert_eq!(client.text(&format!("WATCH {sum}")), "+OK\r\n");
                        let before: u64 = client.value(&sum).map_or(0, |value| value.parse().unwrap());
                        let set = format!("SET {sum} {}", before + 1);
                        let said = client.pipeline(&["MULTI", &set, "EXEC"]);
                        match &*said[2] {
                            "*1\r\n+OK\r\n" => done += 1,
                            other => assert_eq!(other, "*-1\r\n", "{said:?}"),
                        }
                    }
                })
            })
            .collect();
        let mover = scope.spawn(|| {
            let mut moves = 0;
            let deadline = Instant::now() + Duration::from_secs(60);
            while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
                // As long as a request that was refused may have to go on.
                std::thread::sleep(Duration::from_millis(150));
                let to = (at + 1) % 3;
                cluster.migrate(slot, at, to);
                at = to;
                moves += 1;
            }
            moves
        });
        let mut producer = connect();
        for i in 0..EACH {
            let said = producer.text(&format!("RPUSH {queue} {i}"));
            assert!(said.starts_with(':'), "{said}");
            std::thread::sleep(Duration::from_millis(2));
        }
        consumers.iter().for_each(|_| drop(producer.text(&format!("RPUSH {queue} end"))));
        let popped = consumers.into_iter().flat_map(|consumer| consumer.join().unwrap());
        let mut popped: Vec<usize> = popped.map(|item| item.parse().unwrap()).collect();
        transactions.into_iter().chain(lockers).for_each(|thread| thread.join().unwrap());
        stop.store(true, Ordering::Relaxed);
        let moves = mover.join().unwrap();
        popped.sort_unstable();
        assert_eq!(popped, (0..EACH).collect::<Vec<_>>());
        let total = format!("${}\r\n{}\r\n", (2 * EACH).to_string().len(), 2 * EACH);
        assert_eq!(foreign(&cluster, &count, &format!("GET {count}")), total);
        assert_eq!(foreign(&cluster, &sum, &format!("GET {sum}")), total);
        assert!(moves > 5, "{moves}");
    });
}
