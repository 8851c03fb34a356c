//! What a session in front of a cluster says on connections of their own, and what comes behind it.

mod support;

use support::cluster::Cluster;
use support::{Nearside, line, request};

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
