//! What is known of one key, in lines for a person: `NEARSIDE WHY`, and the history of a stale entry.

use std::fmt::Write as _;
use std::time::Duration;

use super::idents::Ident;
use super::shared::Process;
use crate::cache::{Description, IdentId, Micros};
use crate::resp::{Protocol, key_slot};

/// What is known of one key, in lines for a person; for another user than nearside's own, what concerns that one.
pub fn why(process: &Process, key: &[u8], user: Option<&[u8]>) -> Vec<String> {
    let now = process.now();
    let mut described = process.cache.describe(key, now);
    if user.is_some() {
        let same = |ident| process.idents.get(ident).is_some_and(|ident| ident.user.as_deref() == user);
        described.replies.retain(|reply| same(reply.ident));
        if described.replies.is_empty() {
            // As of a key of which nothing is known.
            described =
                Description { replies: Vec::new(), last_change: None, last_bypass: None, fenced: false };
        }
    }
    let namespace = process.namespaces.find(key);
    let served: Vec<_> = described.replies.iter().filter(|reply| reply.stands).collect();
    let mut lines = vec![format!("cached: {}", if served.is_empty() { "no" } else { "yes" })];
    lines.push(match namespace {
        Some(namespace) => format!("namespace: {}", namespace.name),
        None => "namespace: none".into(),
    });
    if user.is_none() {
        lines.extend(process.back(namespace).and_then(|back| back.describe(key, now)));
    }
    if process.cluster.is() {
        lines.push(whose(process, key));
    }
    let table = process.table();
    for reply in served {
        let row = table.row(reply.command).map_or("?", |row| &row.name).to_ascii_uppercase();
        let rest = String::from_utf8_lossy(&reply.args).replace("\r\n", " ");
        let coverage = if reply.tracked { "tracking" } else { "channels" };
        let mut line = format!(
            "reply: {row}{}{rest}, {} bytes, {}, filled {} ago, coverage {coverage}, proven fresh {} ago",
            if rest.is_empty() { "" } else { " " },
            reply.bytes,
            identity(process, reply.ident),
            ago(reply.age),
            ago(reply.proven),
        );
        if let Some(left) = reply.left {
            let _ = write!(line, ", ends in {}", ago(left));
        }
        lines.push(line);
    }
    if described.fenced {
        lines.push("fenced: a write to it is under way".into());
    }
    for (what, last) in [("change", described.last_change), ("bypass", described.last_bypass)] {
        lines.push(match last {
            Some((reason, at)) => {
                format!("last {what}: {}, {} ago: {}", reason.name(), ago(at), reason.explain())
            }
            None => format!("last {what}: none that is remembered"),
        });
    }
    lines
}

/// The node that has the key, in front of a cluster.
fn whose(process: &Process, key: &[u8]) -> String {
    let (topology, slot) = (process.topology(), key_slot(key));
    let Some(node) = topology.owner_of(slot) else { return format!("node: none, hash slot {slot}") };
    let address = node.address().map_or("?".to_owned(), |address| address.to_string());
    let name = node.name.as_deref().unwrap_or("?");
    let proven = match (node.is_up(), node.owned.has(slot)) {
        (false, _) => ", its feed is down",
        (true, false) => ", which does not say that the slot is its own and stays so",
        (true, true) => "",
    };
    format!("node: {name} at {address}, hash slot {slot}{proven}")
}

fn identity(process: &Process, number: IdentId) -> String {
    match process.idents.get(number) {
        Some(Ident { db, protocol, user }) => {
            let user = user.map_or("nearside's own user".into(), |user| {
                format!("user {}", String::from_utf8_lossy(&user))
            });
            format!("db {db}, {}, {user}", if protocol == Protocol::Resp3 { "RESP3" } else { "RESP2" })
        }
        None => "identity unknown".into(),
    }
}

fn ago(micros: Micros) -> String {
    // To the millisecond, or to the microsecond if it is less than one.
    let rounded = if micros < 1000 { micros } else { micros / 1000 * 1000 };
    humantime::format_duration(Duration::from_micros(rounded)).to_string()
}
