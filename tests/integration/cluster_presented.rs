//! What a cluster looks like to clients: one server, or one node that has all hash slots.

use crate::support;

use nearside::resp::key_slot;
use support::cluster::Cluster;
use support::{Nearside, Redis};

const DISABLED: &str = "-ERR This instance has cluster support disabled\r\n";

#[test]
fn as_one_server() {
    let (cluster, alone) = (Cluster::start(3, 0), Redis::start());
    let nearside = Nearside::cluster(&cluster);
    let mut client = nearside.connect();
    let mut server = alone.connect();
    for said in [
        "CLUSTER SLOTS",
        "CLUSTER NODES",
        "CLUSTER INFO",
        "CLUSTER MYID",
        "CLUSTER HELP",
        "CLUSTER KEYSLOT k",
        "CLUSTER RESET",
        "CLUSTER FAILOVER FORCE",
        "CLUSTER",
        "CLUSTER NOSUCH",
        "CLUSTER KEYSLOT",
        "READONLY",
        "READWRITE",
        "ASKING",
    ] {
        assert_eq!(client.text(said), server.text(said), "{said}");
    }
    for said in ["INFO", "INFO server", "INFO cluster", "INFO everything", "INFO server cluster"] {
        let info = client.text(said);
        assert!(!info.contains("redis_mode:cluster") && !info.contains("cluster_enabled:1"), "{info}");
        assert!(info.contains("redis_mode:standalone") || info.contains("cluster_enabled:0"), "{info}");
    }
    // In their order, and where the session has a connection of its own.
    let key = cluster.keys_of(cluster.node(1), 1).remove(0);
    let said = client.pipeline(&[&format!("SET {key} v"), "CLUSTER INFO", &format!("GET {key}"), "READONLY"]);
    assert_eq!(said, ["+OK\r\n", DISABLED, "$1\r\nv\r\n", DISABLED]);
    assert_eq!(client.text(&format!("WATCH {key}")), "+OK\r\n");
    assert_eq!(client.text("CLUSTER INFO"), DISABLED);
    assert!(client.text("INFO server").contains("redis_mode:standalone"));
    for hello in ["HELLO", "HELLO 2", "HELLO 3"] {
        let said = nearside.connect().text(hello);
        assert!(said.contains("$4\r\nmode\r\n$10\r\nstandalone\r\n"), "{said}");
    }
    assert!(client.text("ROLE").starts_with("*3\r\n$6\r\nmaster\r\n"));
    // Databases are the cluster's to refuse.
    assert_eq!(client.text("UNWATCH"), "+OK\r\n");
    assert_eq!(client.text("SELECT 0"), "+OK\r\n");
    assert_eq!(client.text("SELECT 1"), cluster.node(0).ask("SELECT 1"));
    assert_eq!(client.value(&key).as_deref(), Some("v"));
    // Nobody was reset.
    assert!(cluster.agrees() && cluster.masters().len() == 3);
}

#[test]
fn as_one_node_that_has_everything() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster_with(&cluster, |config| {
        config.present_as = nearside::config::PresentAs::Cluster;
    });
    let (mut client, mut resp3) = (nearside.connect(), nearside.connect_resp3());
    let port = nearside.address.port();
    let id = client.text("CLUSTER MYID");
    let id = id.strip_prefix("$40\r\n").unwrap().trim_end();
    let node = format!("$9\r\n127.0.0.1\r\n:{port}\r\n$40\r\n{id}\r\n");
    assert_eq!(client.text("CLUSTER SLOTS"), format!("*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n{node}*0\r\n"));
    assert_eq!(resp3.text("CLUSTER SLOTS"), format!("*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n{node}%0\r\n"));
    let line = format!(
        "{id} 127.0.0.1:{port}@{} myself,master - 0 0 1 connected 0-16383\n",
        u32::from(port) + 10_000
    );
    assert_eq!(client.text("CLUSTER NODES"), format!("${}\r\n{line}\r\n", line.len()));
    assert!(resp3.text("CLUSTER NODES").starts_with(&format!("={}\r\ntxt:{id}", line.len() + 4)));
    let info = client.text("CLUSTER INFO");
    assert!(info.contains("cluster_state:ok\r\n") && info.contains("cluster_slots_ok:16384\r\n"), "{info}");
    let shards = client.text("CLUSTER SHARDS");
    assert!(
        shards.starts_with("*1\r\n*4\r\n$5\r\nslots\r\n*2\r\n:0\r\n:16383\r\n$5\r\nnodes\r\n*1\r\n*14\r\n"),
        "{shards}"
    );
    for said in ["READONLY", "READWRITE", "ASKING"] {
        assert_eq!(client.text(said), "+OK\r\n");
    }
    for node in 0..3 {
        let key = cluster.keys_of(cluster.node(node), 1).remove(0);
        let slot = key_slot(key.as_bytes());
        assert_eq!(client.text(&format!("CLUSTER KEYSLOT {key}")), format!(":{slot}\r\n"));
        assert_eq!(client.text(&format!("SET {key} v")), "+OK\r\n");
        assert_eq!(client.text(&format!("CLUSTER COUNTKEYSINSLOT {slot}")), ":1\r\n");
        let keys = client.text(&format!("CLUSTER GETKEYSINSLOT {slot} 10"));
        assert!(keys.starts_with("*1\r\n") && keys.contains(&key), "{keys}");
    }
    assert_eq!(client.text("CLUSTER COUNTKEYSINSLOT x"), cluster.node(0).ask("CLUSTER COUNTKEYSINSLOT x"));
    assert_eq!(client.text(&format!("CLUSTER REPLICAS {id}")), "*0\r\n");
    assert_eq!(client.text("CLUSTER REPLICAS x"), "-ERR Unknown node x\r\n");
    assert!(client.text("CLUSTER RESET").starts_with("-ERR nearside:"));
    assert!(client.text("INFO cluster").contains("cluster_enabled:1"));
    assert!(client.text("HELLO").contains("$4\r\nmode\r\n$7\r\ncluster\r\n"));
    assert!(cluster.agrees() && cluster.masters().len() == 3);
}
