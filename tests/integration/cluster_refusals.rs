//! What becomes of requests that a node of a cluster refuses, refusal by refusal: the node says what the test tells it to.

use crate::support;

use std::time::Duration;

use nearside::config::{Tracking, Upstream};
use nearside::resp::key_slot;
use support::scripted::{Asked, Scripted};
use support::{Conn, Nearside, eventually};

const TRYAGAIN: &str = "-TRYAGAIN Multiple keys request during rehashing of slot\r\n";
const DOWN: &str = "-CLUSTERDOWN The cluster is down\r\n";
const OK: &str = "+OK\r\n";

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// A cluster of one node that has all slots, and nearside in front of it, which caches nothing.
fn node() -> (Scripted, Nearside) {
    let node = Scripted::start();
    let port = node.address.port();
    let id = "1".repeat(40);
    let slots = format!("*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:{port}\r\n{}", bulk(&id));
    let nodes = bulk(&format!("{id} 127.0.0.1:{port}@1 myself,master - 0 0 1 connected 0-16383\n"));
    for (asked, reply) in [
        ("CLUSTER SLOTS", slots),
        ("CLUSTER NODES", nodes),
        ("CLUSTER INFO", bulk("cluster_state:ok\r\ncluster_current_epoch:1\r\n")),
        ("INFO", bulk("")),
        ("CLUSTER", bulk("")),
    ] {
        node.answers(asked, &reply, usize::MAX);
    }
    let nearside = Nearside::unready(node.address, |config| {
        config.upstream = Upstream::parse(&format!("redis+cluster://{}", node.address)).unwrap();
        config.tracking = Tracking::Off;
        config.namespaces = [].into();
        // What waits behind a refused request is not too old for long.
        config.max_staleness = Duration::from_secs(120);
    });
    eventually("it is ready", || nearside.get("/readyz").0 == 200);
    (node, nearside)
}

/// Sends all lines in one packet, and gives what comes of it at the node.
fn ask(node: &Scripted, client: &mut Conn, lines: &[&str]) -> Vec<Asked> {
    let packet: Vec<u8> = lines.iter().flat_map(|line| support::line(line)).collect();
    client.send(&packet);
    lines.iter().map(|line| node.expect(line)).collect()
}

#[track_caller]
fn replies(client: &mut Conn, replies: &[&str]) {
    for reply in replies {
        assert_eq!(String::from_utf8_lossy(&client.reply()), *reply);
    }
}

/// How often any request for a key came.
fn times(node: &Scripted, line: &str) -> usize {
    node.log().iter().filter(|words| words.join(" ") == line).count()
}

#[test]
fn whatever_says_that_nothing_was_done_is_followed_by_the_same_request() {
    let (node, nearside) = node();
    let (mut client, slot) = (nearside.connect(), key_slot(b"k"));
    for refusal in [
        TRYAGAIN,
        DOWN,
        "-LOADING Redis is loading the dataset in memory\r\n",
        "-READONLY You can't write against a read only replica.\r\n",
        "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
        // To itself: it has only just taken the slot.
        &format!("-MOVED {slot} 127.0.0.1:{}\r\n", node.address.port()),
        &format!("-MOVED {slot} :{}\r\n", node.address.port()),
    ] {
        ask(&node, &mut client, &["SET k v"]).remove(0).reply(refusal);
        node.expect("SET k v").reply(OK);
        replies(&mut client, &[OK]);
    }
    for line in ["ECHO k", "HSET k f v", "EVAL x 1 k", "STRLEN k", "set k v"] {
        let asked = ask(&node, &mut client, &[line]);
        asked[0].reply(DOWN);
        node.expect(line).reply(":1\r\n");
        replies(&mut client, &[":1\r\n"]);
    }
}

#[test]
fn ask_is_followed_to_the_node_that_it_names_and_nothing_new_goes_meanwhile() {
    let (node, nearside) = node();
    let mut client = nearside.connect();
    let asking = format!("-ASK {} 127.0.0.1:{}\r\n", key_slot(b"k"), node.address.port());
    ask(&node, &mut client, &["SET k 1"]).remove(0).reply(&asking);
    let (ahead, set) = (node.expect("ASKING"), node.expect("SET k 1"));
    client.send(&support::line("GET k"));
    // Another's request is no matter.
    let mut other = nearside.connect();
    ask(&node, &mut other, &["GET other"]).remove(0).reply("$-1\r\n");
    assert_eq!(node.waiting(), 0);
    ahead.reply(OK);
    set.reply(OK);
    replies(&mut client, &[OK]);
    node.expect("GET k").reply(&asking);
    node.expect("ASKING").reply(OK);
    node.expect("GET k").reply(&bulk("1"));
    replies(&mut client, &[&bulk("1")]);
}

#[test]
fn a_write_behind_it_that_was_done_forbids_that_it_is_sent_again() {
    let (node, nearside) = node();
    let mut client = nearside.connect();
    let asked = ask(&node, &mut client, &["SET k 1", "SET k 2", "GET k"]);
    asked[0].reply(TRYAGAIN);
    asked[1].reply(OK);
    asked[2].reply(&bulk("2"));
    replies(&mut client, &[TRYAGAIN, OK, &bulk("2")]);
    // Of a read, too: it would see what came later.
    let asked = ask(&node, &mut client, &["GET k", "DEL {k}j k"]);
    asked[0].reply(DOWN);
    asked[1].reply(":1\r\n");
    replies(&mut client, &[DOWN, ":1\r\n"]);
    assert_eq!((times(&node, "SET k 1"), times(&node, "GET k")), (1, 2));
}

#[test]
fn a_read_behind_it_is_read_anew() {
    let (node, nearside) = node();
    let mut client = nearside.connect();
    let asked = ask(&node, &mut client, &["SET k 1", "GET k", "GET other"]);
    asked[0].reply(TRYAGAIN);
    asked[1].reply("$-1\r\n");
    asked[2].reply(&bulk("as it was"));
    node.expect("SET k 1").reply(OK);
    node.expect("GET k").reply(&bulk("1"));
    replies(&mut client, &[OK, &bulk("1"), &bulk("as it was")]);
    assert_eq!(times(&node, "GET other"), 1);
    // But not if something was written behind it: then neither of them.
    let asked = ask(&node, &mut client, &["SET k 1", "MGET k {k}l", "SET {k}l 2"]);
    asked[0].reply(TRYAGAIN);
    asked[1].reply("*2\r\n$-1\r\n$-1\r\n");
    asked[2].reply(OK);
    replies(&mut client, &[TRYAGAIN, "*2\r\n$-1\r\n$-1\r\n", OK]);
    assert_eq!(times(&node, "SET k 1"), 3);
}

#[test]
fn the_first_of_a_slot_goes_alone_and_those_of_other_slots_beside_it() {
    let (node, nearside) = node();
    let mut client = nearside.connect();
    let lines = ["INCR k", "INCR k", "GET k", "INCR other"];
    ask(&node, &mut client, &lines).iter().for_each(|asked| asked.reply(DOWN));
    node.expect("INCR k").reply(DOWN);
    node.expect("INCR other").reply(":9\r\n");
    let first = node.expect("INCR k");
    assert_eq!(node.waiting(), 0);
    first.reply(":1\r\n");
    node.expect("INCR k").reply(":2\r\n");
    node.expect("GET k").reply(&bulk("2"));
    replies(&mut client, &[":1\r\n", ":2\r\n", &bulk("2"), ":9\r\n"]);
    assert_eq!(times(&node, "INCR k"), 2 + 1 + 1 + 1);
}

#[test]
fn it_is_sent_again_five_times_and_then_the_client_is_told() {
    let (node, nearside) = node();
    let mut client = nearside.connect();
    let asked = ask(&node, &mut client, &["SET k v", "GET other"]);
    asked[0].reply(TRYAGAIN);
    asked[1].reply("$-1\r\n");
    for _ in 0..4 {
        node.expect("SET k v").reply(TRYAGAIN);
    }
    let last = "-TRYAGAIN in its last words\r\n";
    node.expect("SET k v").reply(last);
    replies(&mut client, &[last, "$-1\r\n"]);
    assert_eq!(times(&node, "SET k v"), 6);
}

#[test]
fn what_a_script_says_is_its_own_affair() {
    let (node, nearside) = node();
    let mut client = nearside.connect();
    for (line, reply) in [
        ("EVAL x 1 k", "-TRYAGAIN says the script\r\n"),
        ("EVAL x 1 k", "-MOVED 1 127.0.0.1:1\r\n"),
        ("LRANGE k 0 1", "*1\r\n-MOVED 12706 127.0.0.1:1\r\n"),
        ("GET k", "-ERR MOVED 12706 127.0.0.1:1\r\n"),
    ] {
        ask(&node, &mut client, &[line]).remove(0).reply(reply);
        replies(&mut client, &[reply]);
    }
    assert_eq!(times(&node, "EVAL x 1 k"), 2);
}

#[test]
fn who_wants_no_reply_gets_none_and_who_has_left_is_not_served() {
    let (node, nearside) = node();
    let mut client = nearside.connect();
    client.send(&["CLIENT REPLY SKIP", "SET k 1", "GET k"].map(support::line).concat());
    let [switch, set, get] = ["CLIENT REPLY ON", "SET k 1", "GET k"].map(|line| node.expect(line));
    switch.reply(OK);
    set.reply(DOWN);
    get.reply(DOWN);
    node.expect("SET k 1").reply(OK);
    node.expect("GET k").reply(&bulk("1"));
    replies(&mut client, &[&bulk("1")]);
    ask(&node, &mut client, &["SET k 2"]).remove(0).reply(DOWN);
    client.abort();
    eventually("it is gone", || nearside.stats().contains("nearside_clients:1\r\n"));
    let mut other = nearside.connect();
    ask(&node, &mut other, &["GET k"]).remove(0).reply(&bulk("1"));
    replies(&mut other, &[&bulk("1")]);
    assert!(times(&node, "SET k 2") <= 2);
}

#[test]
fn what_a_client_has_sent_before_it_left_is_still_done() {
    let (node, nearside) = node();
    let mut client = nearside.connect();
    let asked = ask(&node, &mut client, &["SET k 1", "INCR other"]);
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    asked[1].reply(":1\r\n");
    asked[0].reply(DOWN);
    node.expect("SET k 1").reply(OK);
    replies(&mut client, &[OK, ":1\r\n"]);
    assert!(client.is_closed());
}
