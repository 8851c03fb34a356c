//! What a session in front of a cluster has under way on other connections than its next request, and what comes behind it.

use crate::support;

use std::time::Duration;

use support::cluster::Cluster;
use support::{Nearside, eventually, line, request};

#[test]
fn what_comes_behind_parts_on_connections_of_their_own_waits_for_them() {
    let cluster = Cluster::start(2, 0);
    let nearside = Nearside::cluster(&cluster);
    let (a, b) =
        (cluster.keys_of(cluster.node(0), 1).remove(0), cluster.keys_of(cluster.node(1), 1).remove(0));
    let mut client = nearside.connect();
    for n in 0..5u8 {
        let large = vec![b'a' + n; 3 << 20];
        let mut packet = request(&[b"MSET", a.as_bytes(), &large, b.as_bytes(), &large]);
        packet.extend(line(&format!("SET {a} small")));
        packet.extend(line(&format!("STRLEN {b}")));
        packet.extend(line(&format!("GET {a}")));
        client.send(&packet);
        assert_eq!(client.reply(), b"+OK\r\n");
        assert_eq!(client.reply(), b"+OK\r\n");
        assert_eq!(String::from_utf8_lossy(&client.reply()), format!(":{}\r\n", 3 << 20));
        assert_eq!(String::from_utf8_lossy(&client.reply()).len(), 11);
        assert_eq!(client.text(&format!("GET {a}")), "$5\r\nsmall\r\n");
        assert_eq!(client.text(&format!("DEL {a} {b}")), ":2\r\n");
    }
}

#[test]
fn who_cannot_subscribe_is_told_so() {
    let cluster = Cluster::start(2, 0);
    let nearside = Nearside::cluster(&cluster);
    let mut client = nearside.connect();
    cluster.nodes().iter().for_each(|node| node.order("CONFIG SET maxclients 1"));
    let said = client.text("SUBSCRIBE ch");
    assert!(said.starts_with("-"), "{said}");
}

#[test]
fn who_subscribes_while_no_node_answers_is_heard_once_one_does() {
    let cluster = Cluster::start(2, 0);
    let nearside = Nearside::cluster_with(&cluster, |config| {
        config.connect_timeout = Duration::from_millis(300);
    });
    let [mut client, mut other] = [(); 2].map(|()| nearside.connect());
    cluster.nodes().iter().for_each(|node| node.pause());
    client.send(&line("SUBSCRIBE ch"));
    eventually("it could not be said", || {
        let page = nearside.get("/metrics").1;
        page.lines().any(|line| {
            line.starts_with("nearside_redirects_total{kind=\"unsent\"}") && !line.ends_with(" 0")
        })
    });
    cluster.nodes().iter().for_each(|node| node.resume());
    assert_eq!(String::from_utf8_lossy(&client.reply()), "*3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n");
    eventually("it is heard", || other.text("PUBLISH ch m").starts_with(':'));
    assert_eq!(String::from_utf8_lossy(&client.reply()), "*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$1\r\nm\r\n");
}

#[test]
fn what_comes_behind_a_paused_write_waits_for_it_though_another_link_takes_its_place() {
    let cluster = Cluster::start(2, 0);
    let nearside =
        Nearside::cluster_with(&cluster, |config| config.max_staleness = Duration::from_millis(300));
    for node in cluster.nodes() {
        let key = cluster.keys_of(node, 1).remove(0);
        let mut client = nearside.connect();
        assert_eq!(client.text(&format!("SET {key} 1")), "+OK\r\n");
        let before = metric(&nearside, "connect_attempts_total{of=\"links\"}");
        node.order("CLIENT PAUSE 100000 WRITE");
        client.send(&line(&format!("SET {key} 2")));
        eventually("another link is made", || {
            metric(&nearside, "connect_attempts_total{of=\"links\"}") > before
        });
        client.send(&line(&format!("GET {key}")));
        // What it was sent on is known there by now.
        std::thread::sleep(Duration::from_millis(100));
        node.order("CLIENT UNPAUSE");
        assert_eq!(client.reply(), b"+OK\r\n");
        assert_eq!(String::from_utf8_lossy(&client.reply()), "$1\r\n2\r\n");
    }
}

fn metric(nearside: &Nearside, name: &str) -> u64 {
    let page = nearside.get("/metrics").1;
    let found =
        page.lines().find_map(|line| line.strip_prefix(&format!("nearside_{name} ")).map(str::to_owned));
    found.unwrap_or_else(|| panic!("no {name}")).parse::<f64>().unwrap() as u64
}

#[test]
fn what_waits_for_a_node_that_takes_nothing_is_bounded_for_all_together() {
    const CLIENTS: u64 = 8;
    let cluster = Cluster::start(2, 0);
    let nearside = Nearside::cluster(&cluster);
    for node in cluster.nodes() {
        let key = cluster.keys_of(node, 1).remove(0);
        let request = request(&[b"SET", key.as_bytes(), &vec![b'x'; 500_000]]);
        let clients: Vec<_> = (0..CLIENTS).map(|_| nearside.connect()).collect();
        let before = metric(&nearside, "requests_total");
        node.pause();
        let threads: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                let request = request.clone();
                std::thread::spawn(move || (0..60).for_each(|_| client.send(&request)))
            })
            .collect();
        let mut taken = 0;
        eventually("no more is taken", || {
            std::thread::sleep(Duration::from_millis(300));
            let now = metric(&nearside, "requests_total") - before;
            std::mem::replace(&mut taken, now) == now && now > 0
        });
        node.resume();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        // 8 MB, what the node's socket takes, and one more of each.
        assert!(taken < 60, "{taken} requests of 500 KB were taken");
    }
}
