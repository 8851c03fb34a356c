//! What a cluster looks like to clients: one server (`present-as = standalone`), or one node that has all hash slots, for
//! clients that insist on a cluster (`cluster`).
//!
//! Invariants: no client is told of a node of the cluster. Nothing that is said here changes the cluster: who wants that says
//! so to its nodes.

use bytes::BytesMut;

use super::roam::node_of_slot;
use crate::command::Row;
use crate::pending::Pending;
use crate::process::errors;
use crate::request::{Context, Raw};
use crate::resp::number::string2ll;
use crate::resp::request::Request;
use crate::resp::{Protocol, SLOTS, encode, key_slot};
use crate::router::LinkKey;

/// Whether nearside answers such a command in front of a cluster.
pub fn is_answered(row: &Row) -> bool {
    let is_of_nodes = matches!(&*row.name, "readonly" | "readwrite" | "asking");
    is_of_nodes || row.name.starts_with("cluster|")
}

/// Answers such a command, the number of whose arguments is right.
pub fn answer(cx: &Context, row: &Row, request: &Request<'_>, raw: Raw<'_>) {
    if !cx.process.settings.cluster.is_shown {
        return cx.queue.reply(&errors::line(errors::NO_CLUSTER));
    }
    let Some(subcommand) = row.name.strip_prefix("cluster|") else { return cx.queue.reply(b"+OK\r\n") };
    let me = Me::of(cx);
    let said = |write: &dyn Fn(&mut BytesMut)| cx.queue.reply_with(|out| write(out));
    match subcommand {
        "slots" => said(&|out| me.slots(out)),
        "shards" => said(&|out| me.shards(out)),
        "nodes" => said(&|out| encode::verbatim(out, me.protocol, b"txt", me.line().as_bytes())),
        "info" => said(&|out| encode::verbatim(out, me.protocol, b"txt", INFO.as_bytes())),
        "myid" | "myshardid" => said(&|out| encode::bulk(out, me.id.as_bytes())),
        "keyslot" => said(&|out| encode::integer(out, key_slot(request.arg(2)).into())),
        "links" => said(&|out| encode::array(out, 0)),
        "replicas" | "slaves" if request.arg(2) == me.id.as_bytes() => said(&|out| encode::array(out, 0)),
        "count-failure-reports" if request.arg(2) == me.id.as_bytes() => said(&|out| encode::integer(out, 0)),
        "replicas" | "slaves" | "count-failure-reports" => {
            let id = String::from_utf8_lossy(request.arg(2));
            cx.queue.reply(&errors::line(&format!("ERR Unknown node {id}")));
        }
        "countkeysinslot" | "getkeysinslot" => of_slot(cx, request, raw),
        "help" => cx.forward(raw, Pending::Relay),
        _ => cx.queue.reply(&errors::line(errors::TO_THE_NODES)),
    }
}

/// What is asked of a hash slot is for its node to answer.
fn of_slot(cx: &Context, request: &Request<'_>, raw: Raw<'_>) {
    let slot = string2ll(request.arg(2)).and_then(|slot| u16::try_from(slot).ok());
    match slot.filter(|slot| usize::from(*slot) < SLOTS) {
        Some(slot) => {
            let key = LinkKey { node: node_of_slot(&cx.process, slot), ..cx.key.clone() };
            cx.forward_on(&cx.outbound.router.link(&key), raw, Pending::Relay);
        }
        // Which any of them says is wrong.
        None => cx.forward(raw, Pending::Relay),
    }
}

const INFO: &str = "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\ncluster_slots_pfail:0\r\n\
     cluster_slots_fail:0\r\ncluster_known_nodes:1\r\ncluster_size:1\r\ncluster_current_epoch:1\r\ncluster_my_epoch:1\r\n\
     cluster_stats_messages_sent:0\r\ncluster_stats_messages_received:0\r\n\
     total_cluster_links_buffer_limit_exceeded:0\r\n";

/// The one node, as the client reaches it.
struct Me<'c> {
    id: &'c str,
    host: &'c str,
    port: u16,
    protocol: Protocol,
}

impl<'c> Me<'c> {
    fn of(cx: &'c Context) -> Self {
        let ends = &cx.client.ends;
        let (host, port) = match ends.unix {
            false => ends.local.rsplit_once(':').unwrap_or(("", "0")),
            // The client knows best.
            true => ("", "0"),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let (id, port) = (cx.process.cluster.shown_as(), port.parse().unwrap_or(0));
        Self { id, host, port, protocol: cx.key.ident.protocol }
    }

    fn slots(&self, out: &mut BytesMut) {
        encode::array(out, 1);
        encode::array(out, 3);
        encode::integer(out, 0);
        encode::integer(out, SLOTS as i64 - 1);
        encode::array(out, 4);
        encode::bulk(out, self.host.as_bytes());
        encode::integer(out, self.port.into());
        encode::bulk(out, self.id.as_bytes());
        encode::map(out, self.protocol, 0);
    }

    fn shards(&self, out: &mut BytesMut) {
        encode::array(out, 1);
        encode::map(out, self.protocol, 2);
        encode::bulk(out, b"slots");
        encode::array(out, 2);
        encode::integer(out, 0);
        encode::integer(out, SLOTS as i64 - 1);
        encode::bulk(out, b"nodes");
        encode::array(out, 1);
        encode::map(out, self.protocol, 7);
        let words = [
            ("id", self.id),
            ("ip", self.host),
            ("endpoint", self.host),
            ("role", "master"),
            ("health", "online"),
        ];
        for (name, word) in words {
            encode::bulk(out, name.as_bytes());
            encode::bulk(out, word.as_bytes());
        }
        for (name, number) in [("port", i64::from(self.port)), ("replication-offset", 0)] {
            encode::bulk(out, name.as_bytes());
            encode::integer(out, number);
        }
    }

    /// As in `CLUSTER NODES`.
    fn line(&self) -> String {
        let Self { id, host, port, .. } = self;
        let bus = u32::from(*port) + 10_000;
        format!("{id} {host}:{port}@{bus} myself,master - 0 0 1 connected 0-{}\n", SLOTS - 1)
    }
}
