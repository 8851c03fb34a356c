//! Scripts in front of a cluster: what they say may be what a node would say, and they are executed once all the same.

use crate::support;

use nearside::resp::key_slot;
use support::cluster::{Cluster, key_in_slot};
use support::{Conn, Nearside, Redis, eventually};

#[test]
fn a_script_s_words_make_no_cluster_of_a_single_server() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut client = nearside.connect();
    let hits = |client: &mut Conn| {
        eventually("hits", || {
            let before = nearside.stat("hits");
            client.text("GET k");
            client.text("GET k");
            nearside.stat("hits") > before
        })
    };
    client.text("SET k v");
    hits(&mut client);
    let said = client.args(&[b"EVAL", b"return redis.error_reply('MOVED 12182 127.0.0.1:1')", b"0"]);
    assert!(said.starts_with(b"-MOVED 12182"));
    client.text("SET k w");
    hits(&mut client);
    assert_eq!(client.text("CLUSTER KEYSLOT k"), redis.connect().text("CLUSTER KEYSLOT k"));
}

#[test]
fn a_script_that_says_moved_is_executed_once() {
    let cluster = Cluster::start(2, 0);
    let nearside = Nearside::cluster(&cluster);
    let mut client = nearside.connect();
    for (i, to) in [(0, 0), (1, 1)] {
        let key = cluster.keys_of(cluster.node(0), 3).remove(i);
        let slot = key_slot(key.as_bytes());
        for word in ["MOVED", "ASK"] {
            let script = format!(
                "redis.call('incr',KEYS[1]) return redis.error_reply('{word} {slot} 127.0.0.1:{}')",
                cluster.node(to).port
            );
            let said = client.args(&[b"EVAL", script.as_bytes(), b"1", key.as_bytes()]);
            let count = client.text(&format!("GET {key}"));
            assert_eq!(count, "$1\r\n1\r\n", "{word} to {to}: {}", String::from_utf8_lossy(&said));
            client.text(&format!("DEL {key}"));
            // On a connection of the session's own: it is large.
            let large = vec![b'x'; 2 << 20];
            let said = client.args(&[b"EVAL", script.as_bytes(), b"1", key.as_bytes(), &large]);
            let count = client.text(&format!("GET {key}"));
            assert_eq!(count, "$1\r\n1\r\n", "{word} to {to}: {}", String::from_utf8_lossy(&said));
            client.text(&format!("DEL {key}"));
        }
    }
}

#[test]
fn a_script_is_known_where_its_key_will_be() {
    let cluster = Cluster::start(2, 0);
    let nearside = Nearside::cluster(&cluster);
    let mut client = nearside.connect();
    let slot = 5;
    let key = key_in_slot(slot);
    let script = "return redis.call('incr',KEYS[1])";
    assert_eq!(client.args(&[b"EVAL", script.as_bytes(), b"1", key.as_bytes()]), b":1\r\n");
    client.text(&format!("DEL {key}"));
    let (from, to) = (cluster.node(0), cluster.node(1));
    to.order(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", from.id()));
    from.order(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", to.id()));
    let digest = sha1(script);
    assert_eq!(client.text(&format!("EVALSHA {digest} 1 {key}")), ":1\r\n");
}

fn sha1(text: &str) -> String {
    let redis = Redis::start();
    let said = redis.connect().args(&[b"SCRIPT", b"LOAD", text.as_bytes()]);
    String::from_utf8_lossy(&said).lines().nth(1).unwrap().to_owned()
}
