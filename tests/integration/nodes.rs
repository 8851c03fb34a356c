//! Two upstream servers that have divided the keys among them: what becomes of one of them concerns its own keys alone.

use crate::support;

use nearside::resp::key_slot;

use support::{Nearside, Redis, eventually};

/// The lower half of the slots is the first one's.
fn owner(slot: u16) -> u16 {
    u16::from(slot >= 8192)
}

/// Some keys of the node at this place.
fn keys(place: u16) -> Vec<String> {
    let all = (0..).map(|i| format!("users/{i}"));
    all.filter(|key| owner(key_slot(key.as_bytes())) == place).take(20).collect()
}

/// Reads all of them until each read of a round was a hit.
fn warm(nearside: &Nearside, keys: &[String]) {
    let mut client = nearside.connect();
    eventually("all keys are cached", || {
        let before = nearside.stat("hits");
        keys.iter().for_each(|key| drop(client.text(&format!("GET {key}"))));
        nearside.stat("hits") - before >= keys.len() as i64
    });
}

/// How many of these reads are hits, and what they answer.
fn read(nearside: &Nearside, keys: &[String]) -> (i64, Vec<Option<String>>) {
    let (mut client, before) = (nearside.connect(), nearside.stat("hits"));
    let values = keys.iter().map(|key| client.value(key)).collect();
    (nearside.stat("hits") - before, values)
}

struct Both {
    nodes: [Redis; 2],
    nearside: Nearside,
    keys: [Vec<String>; 2],
}

/// All keys of both are written through nearside, and cached.
fn both() -> Both {
    let nodes = [Redis::start(), Redis::start()];
    let nearside = Nearside::sharded(&[&nodes[0], &nodes[1]], owner);
    let keys = [keys(0), keys(1)];
    let mut client = nearside.connect();
    for key in keys.iter().flatten() {
        assert_eq!(client.text(&format!("SET {key} old")), "+OK\r\n");
    }
    keys.iter().for_each(|keys| warm(&nearside, keys));
    Both { nodes, nearside, keys }
}

#[test]
fn each_key_is_written_and_read_where_it_belongs() {
    let Both { nodes, nearside, keys } = both();
    for (node, keys) in nodes.iter().zip(&keys) {
        assert_eq!(node.connect().text("DBSIZE"), format!(":{}\r\n", keys.len()));
        assert_eq!(node.connect().value(&keys[0]).as_deref(), Some("old"));
    }
    // Each node's own tracking tells of its keys: who writes past nearside is seen.
    for (node, keys) in nodes.iter().zip(&keys) {
        node.connect().cmd(&format!("SET {} new", keys[0]));
        let mut client = nearside.connect();
        eventually("a foreign write is seen", || client.value(&keys[0]).as_deref() == Some("new"));
    }
    let (a, b) = (&keys[0][0], &keys[1][0]);
    assert_eq!(nearside.connect().text(&format!("MSET {a} 1 {b} 2")), "+OK\r\n");
    assert_eq!(nearside.connect().text(&format!("MGET {a} {b}")), "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
    for wrong in [format!("MSETNX {a} 1 {b} 2"), format!("RENAME {a} {b}")] {
        let said = nearside.connect().text(&wrong);
        assert!(said.starts_with("-CROSSSLOT "), "{wrong}: {said}");
    }
}

#[test]
fn a_flush_of_one_voids_its_entries_alone() {
    let Both { nodes, nearside, keys } = both();
    nodes[0].connect().cmd("FLUSHALL");
    let mut client = nearside.connect();
    eventually("the flush is seen", || client.value(&keys[0][0]).is_none());
    let (hits, values) = read(&nearside, &keys[1]);
    assert_eq!(hits, keys[1].len() as i64, "the other's entries go on hitting");
    assert!(values.iter().all(|value| value.as_deref() == Some("old")));
    let (_, values) = read(&nearside, &keys[0]);
    assert!(values.iter().all(Option::is_none), "nothing of what was flushed is served");
}

#[test]
fn the_loss_of_one_voids_its_entries_alone() {
    let Both { mut nodes, nearside, keys } = both();
    nodes[0].kill();
    let mut client = nearside.connect();
    eventually("what was read from the lost one is void", || {
        client.text(&format!("GET {}", keys[0][0])).starts_with("-ERR nearside: upstream")
    });
    for _ in 0..3 {
        let (hits, values) = read(&nearside, &keys[1]);
        assert_eq!(hits, keys[1].len() as i64, "the other's entries go on hitting");
        assert!(values.iter().all(|value| value.as_deref() == Some("old")));
    }
    // It comes back with nothing, and is used and cached as before.
    nodes[0].restart();
    eventually("it is written to again", || client.text(&format!("SET {} again", keys[0][0])) == "+OK\r\n");
    warm(&nearside, &keys[0][..1]);
    assert_eq!(client.value(&keys[0][0]).as_deref(), Some("again"));
}
