//! How nearside comes to know a cluster, and what it makes of one that changes or is odd.

use crate::support;

use std::time::{Duration, Instant};

use nearside::config::{Config, Mapped, Upstream};

use support::cluster::{Cluster, in_time};
use support::program::Program;
use support::{Conn, Nearside, Redis, eventually, free_port, line};

/// What `/metrics` says of this name.
fn metric(nearside: &Nearside, name: &str) -> i64 {
    let (_, page) = nearside.get("/metrics");
    let line =
        page.lines().find_map(|line| line.strip_prefix(&format!("nearside_{name} ")).map(str::to_owned));
    line.expect(name).parse::<f64>().expect("a number") as i64
}

/// Keys of all masters are written and read, and each comes again from the cache.
fn serves(cluster: &Cluster, nearside: &Nearside) {
    let mut client = nearside.connect();
    for node in cluster.masters() {
        let slots: usize = node.itself().expect("it answers").slots.iter().map(ExactSizeIterator::len).sum();
        for key in cluster.keys_of(node, slots.min(5)) {
            assert_eq!(client.text(&format!("SET {key} {key}")), "+OK\r\n", "{key}");
            assert_eq!(node.connect().value(&key).as_deref(), Some(&*key), "it is where it belongs");
            in_time("it is a hit", || {
                let before = nearside.stat("hits");
                assert_eq!(client.value(&key).as_deref(), Some(&*key));
                nearside.stat("hits") > before
            });
        }
    }
}

fn at(url: &str, change: impl FnOnce(&mut Config)) -> Nearside {
    let upstream = Upstream::parse(url).expect(url);
    let nearside = Nearside::unready(([127, 0, 0, 1], 1).into(), |config| {
        config.upstream = upstream;
        change(config);
    });
    in_time("it is ready", || nearside.get("/readyz").0 == 200);
    nearside
}

#[test]
fn keys_are_written_and_read_and_cached_where_they_belong() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster(&cluster);
    serves(&cluster, &nearside);
    assert_eq!(metric(&nearside, "nodes"), 3);
}

#[test]
fn one_node_that_answers_is_enough_to_know_the_others() {
    let cluster = Cluster::start(3, 0);
    let port = cluster.node(1).port;
    let nearside = at(&format!("redis+cluster://127.0.0.1:1,127.0.0.1:{port},127.0.0.1:2"), |_| ());
    serves(&cluster, &nearside);
}

/// The very first request of a client that was there from the start is routed.
#[test]
fn a_node_that_is_named_as_one_server_is_noticed() {
    let cluster = Cluster::start(3, 0);
    let port = cluster.node(2).port;
    let mut program = Program::start(port, &[]);
    let mut client = program.connect();
    for node in cluster.masters() {
        for key in cluster.keys_of(node, 3) {
            assert_eq!(client.text(&format!("SET {key} v")), "+OK\r\n", "{key}");
        }
    }
    program.wait_for("is a node of a cluster, and is served as one");
    program.terminate();
    assert!(program.ended().success());
    assert_eq!(program.seen.matches("is a node of a cluster").count(), 1, "{}", program.seen);
    assert_eq!(program.seen.matches(" WARN ").count(), 0, "{}", program.seen);
}

#[test]
fn nodes_that_come_and_go_are_followed() {
    let mut cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster(&cluster);
    let new = cluster.add_node();
    let slot = nearside::resp::key_slot(b"users/1");
    let from = cluster.place_of("users/1").unwrap();
    cluster.migrate(slot, from, new);
    let mut client = nearside.connect();
    in_time("it is written to the new node", || {
        client.text("SET users/1 new") == "+OK\r\n" && cluster.node(new).connect().value("users/1").is_some()
    });
    in_time("it is known", || metric(&nearside, "nodes") == 4);
    serves(&cluster, &nearside);
    cluster.migrate(slot, new, from);
    cluster.remove_node(new);
    in_time("it is read where it was", || client.value("users/1").as_deref() == Some("users/1"));
    serves(&cluster, &nearside);
}

#[test]
fn addresses_that_lead_nowhere_are_mapped() {
    let (announced, cluster) = (free_port(), Cluster::start(2, 0));
    // The second node says of itself, and so do all others, that it is elsewhere.
    let real = cluster.node(1).port;
    cluster.node(1).order(&format!("CONFIG SET cluster-announce-port {announced}"));
    in_time("all have heard it", || cluster.node(0).ask("CLUSTER NODES").contains(&format!(":{announced}@")));
    let url = format!("redis+cluster://127.0.0.1:{}", cluster.node(0).port);
    let nearside = at(&url, |config| {
        config.cluster_address_map =
            vec![Mapped::parse(&format!("127.0.0.1:{announced}=127.0.0.1:{real}")).unwrap()];
    });
    let mut client = nearside.connect();
    for node in cluster.nodes() {
        let key = &cluster.keys_of(node, 1)[0];
        assert_eq!(client.text(&format!("SET {key} v")), "+OK\r\n");
        assert_eq!(node.connect().value(key).as_deref(), Some("v"));
    }
}

#[test]
fn nodes_are_reached_by_their_names_where_the_cluster_prefers_these() {
    let cluster = Cluster::with(
        2,
        0,
        &["--cluster-announce-hostname", "localhost", "--cluster-preferred-endpoint-type", "hostname"],
    );
    in_time("all have heard it", || {
        cluster
            .nodes()
            .iter()
            .all(|node| node.ask("CLUSTER SLOTS").matches("$9\r\nlocalhost\r\n").count() >= 2)
    });
    let nearside = Nearside::cluster(&cluster);
    serves(&cluster, &nearside);
    let mut client = nearside.connect();
    let why = client.text(&format!("NEARSIDE WHY {}", cluster.keys_of(cluster.node(1), 1)[0]));
    assert!(why.contains("localhost:"), "{why}");
}

#[test]
fn a_server_that_is_none_of_a_cluster_is_told_of_and_not_served() {
    let redis = Redis::start();
    let upstream = Upstream::parse(&format!("redis+cluster://127.0.0.1:{}", redis.port)).unwrap();
    let nearside = Nearside::unready(redis.address(), |config| config.upstream = upstream);
    eventually("it says why it is not ready", || {
        let (status, why) = nearside.get("/readyz");
        status == 503 && why.contains("is no node of a cluster") && why.contains("redis://")
    });
    let began = Instant::now();
    let said = Conn::to(nearside.address).text("GET k");
    assert!(said.starts_with("-ERR nearside: ") && said.contains("is no node of a cluster"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_seed_that_is_none_of_the_cluster_is_passed_over() {
    let (redis, cluster) = (Redis::start(), Cluster::start(2, 0));
    let nearside =
        at(&format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", redis.port, cluster.node(0).port), |_| ());
    serves(&cluster, &nearside);
    assert_eq!(redis.connect().text("DBSIZE"), ":0\r\n");
}

/// Seeds of two clusters: the first that answers is the one, and stays it.
#[test]
fn a_node_of_another_cluster_changes_nothing() {
    let (one, other) = (Cluster::start(2, 0), Cluster::start(2, 0));
    let url = format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", one.node(0).port, other.node(0).port);
    let nearside = at(&url, |_| ());
    serves(&one, &nearside);
    for _ in 0..3 {
        let looks = metric(&nearside, "topology_looks_total");
        // A lost feed is a reason to look.
        one.node(1).ask("CLIENT KILL TYPE pubsub");
        one.node(1).ask("CLIENT KILL TYPE normal SKIPME yes");
        in_time("it has looked again", || metric(&nearside, "topology_looks_total") > looks);
    }
    serves(&one, &nearside);
    assert_eq!(other.node(0).connect().text("DBSIZE"), ":0\r\n");
    drop(other);
    serves(&one, &nearside);
}

#[test]
fn slots_that_nobody_has_are_told_of_once_and_the_others_served() {
    let cluster = Cluster::with(2, 0, &["--cluster-require-full-coverage", "no"]);
    let key = &cluster.keys_of(cluster.node(0), 1)[0];
    let slot = nearside::resp::key_slot(key.as_bytes());
    cluster.node(0).order(&format!("CLUSTER DELSLOTS {slot}"));
    cluster.node(1).order(&format!("CLUSTER DELSLOTS {slot}"));
    let nearside = at(&cluster.url(), |_| ());
    let mut client = nearside.connect();
    let other = cluster.keys_of(cluster.node(1), 1).remove(0);
    for _ in 0..3 {
        assert_eq!(client.text(&format!("GET {key}")), "-CLUSTERDOWN Hash slot not served\r\n");
        assert_eq!(client.text(&format!("SET {other} v")), "+OK\r\n");
    }
}

#[test]
fn a_cluster_by_tls_is_served() {
    let cluster = Cluster::secure(3, 0);
    let nearside = Nearside::cluster(&cluster);
    serves(&cluster, &nearside);
}

#[test]
fn check_connect_tells_of_the_nodes_and_what_is_not_allowed() {
    let cluster = Cluster::start(3, 0);
    let url = |user: &str| cluster.url().replace("://", &format!("://{user}"));
    let check = |url: &str, more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nearside"));
        let output = command.args(["check", "--connect", "--upstream", url]).args(more).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = check(&url(""), &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("of 3 masters") && said.matches("hash slots").count() == 3, "{said}");
    assert!(said.contains("changes become known by: redirect"), "{said}");
    let one = format!("redis://127.0.0.1:{}", cluster.node(0).port);
    assert!(check(&one, &[]).1.contains("of 3 masters"), "a node that is named as one server");
    let user = "ACL SETUSER low on >pw ~* &* +@all -cluster|nodes";
    cluster.nodes().iter().for_each(|node| node.order(user));
    let (code, said) = check(&url("low:pw@"), &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("ACL SETUSER low") && said.contains("+cluster|nodes"), "{said}");
    let map = format!("127.0.0.1:{}=127.0.0.1:1", cluster.node(1).port);
    let (_, said) = check(&url(""), &["--cluster-address-map", &map]);
    assert!(said.contains("node 127.0.0.1:1 ") && said.contains("cluster-address-map"), "{said}");
}

/// One node names all by address, the others by name; who is asked changes each time.
#[test]
fn a_node_under_two_names_is_one_node() {
    let names = ["--cluster-announce-hostname", "localhost", "--cluster-preferred-endpoint-type", "hostname"];
    let cluster = Cluster::with(3, 0, &names);
    in_time("all have heard it", || {
        cluster
            .nodes()
            .iter()
            .all(|node| node.ask("CLUSTER SLOTS").matches("$9\r\nlocalhost\r\n").count() >= 3)
    });
    let nearside = Nearside::cluster(&cluster);
    serves(&cluster, &nearside);
    cluster.node(0).order("CONFIG SET cluster-preferred-endpoint-type ip");
    let connections = || -> Vec<String> {
        let of = |place: usize| cluster.node(place).ask("CLIENT LIST");
        let named = [of(0), of(1)].concat();
        let ids = named.lines().filter(|line| line.contains("name=nearside") || line.contains("resp=3"));
        ids.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
    };
    let before = connections();
    assert!(before.len() >= 2, "{before:?}");
    for _ in 0..6 {
        let looks = metric(&nearside, "topology_looks_total");
        // A lost feed, of a node that is named in one way by all but one, is a reason to look.
        cluster.node(2).ask("CLIENT KILL TYPE normal SKIPME yes");
        cluster.node(2).ask("CLIENT KILL TYPE pubsub");
        in_time("it has looked again", || metric(&nearside, "topology_looks_total") > looks);
    }
    let after = connections();
    assert!(before.iter().all(|id| after.contains(id)), "{before:?}, and then {after:?}");
    in_time("there are three", || metric(&nearside, "nodes") == 3);
    serves(&cluster, &nearside);
}

/// A master that is stopped takes what it was sent, and answers nothing. Once another has its place nobody waits for it.
#[test]
fn what_hangs_at_a_node_that_has_lost_its_place_ends() {
    let cluster = Cluster::start(3, 3);
    let nearside = Nearside::cluster(&cluster);
    let key = cluster.keys_of(cluster.node(0), 1).remove(0);
    let [mut writes, mut waits] = [(); 2].map(|()| nearside.connect());
    waits.send(&line(&format!("BLPOP {{{key}}}list 0")));
    in_time("it waits", || cluster.node(0).ask("INFO clients").contains("blocked_clients:1"));
    cluster.node(0).pause();
    writes.send(&line(&format!("SET {key} v")));
    let heir = cluster.wait_promoted(cluster.node(0));
    let began = Instant::now();
    for client in [&mut writes, &mut waits] {
        let said = String::from_utf8(client.try_reply().expect("an answer")).unwrap();
        assert!(said.starts_with("-ERR nearside: ") && said.contains("may have been executed"), "{said}");
    }
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    in_time("its heir is written to", || writes.text(&format!("SET {key} w")) == "+OK\r\n");
    assert_eq!(cluster.node(heir).connect().value(&key).as_deref(), Some("w"));
    cluster.node(0).resume();
}
