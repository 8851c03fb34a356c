//! The requests by which replies come into the cache, with the questions that tell how long they are good.

use std::sync::Arc;

use bytes::BytesMut;

use crate::cache::{EntryKey, Micros};
use crate::command::{Fields, Table};
use crate::io::Outgoing;
use crate::pending::{CacheLease, Fill, Link, Pending, send};
use crate::process::{Inbox, Registration};
use crate::resp::encode;

/// Writes what is asked behind a read, so that it is known until when its reply is good.
pub fn ask_times(out: &mut BytesMut, fields: Fields, key: &[u8], rest: &[u8]) {
    ask_fields(out, fields, key, rest);
    encode::command(out, &[b"PTTL", key]);
}

/// Writes the request that is to prove the fields' times, if one is needed.
/// `rest` is what stands behind the key in the read, raw.
fn ask_fields(out: &mut BytesMut, fields: Fields, key: &[u8], rest: &[u8]) {
    match fields {
        Fields::None => {}
        Fields::Named => {
            let count = arguments(rest);
            out.extend_from_slice(format!("*{}\r\n", 4 + count).as_bytes());
            encode::bulk(out, b"HPTTL");
            encode::bulk(out, key);
            encode::bulk(out, b"FIELDS");
            encode::bulk(out, count.to_string().as_bytes());
            out.extend_from_slice(rest);
        }
        Fields::All => encode::command(out, &[b"OBJECT", b"ENCODING", key]),
    }
}

/// Has the keys of these leases registered with the feed of the link's node; `inbox` is told. Then they are read.
pub fn register(inbox: &Arc<Inbox>, link: &Link, leases: Vec<CacheLease>) {
    let handler = link.client();
    let registration = Registration { leases, link: handler.id, inbox: inbox.clone() };
    let (coverages, node) = (handler.process.cache.coverages(), &handler.node);
    if node.registrar.ask(registration, || coverages.current(&node.feed).is_some()).is_err() {
        handler.process.metrics.registrations_crowded.inc();
    }
}

/// Reads what is leased into the cache, though no client waits for it. False if its command is not known any
/// more: then nothing is sent.
pub fn fetch_unasked(inbox: &Arc<Inbox>, link: &Link, lease: CacheLease, now: Micros) -> bool {
    if !lease.is_registered() {
        register(inbox, link, vec![lease]);
        return true;
    }
    let process = &link.client().process;
    let (table, name) = (process.table(), lease.name());
    let mut request = BytesMut::new();
    let fields = table.row(name.command).map_or(Fields::None, |row| row.fields);
    if !write_request(&mut request, &table, &name) {
        return false;
    }
    ask_times(&mut request, fields, name.key, name.args);
    let pending = Pending::Fill(Box::new(Fill::new(None, lease, fields)));
    let _ = send(link, now, |out: &mut Outgoing| out.append(request.freeze()), pending);
    true
}

/// Writes the request that a cached reply answers; false if its command is not known any more.
pub fn write_request(out: &mut BytesMut, table: &Table, name: &EntryKey<'_>) -> bool {
    let Some(row) = table.row(name.command) else { return false };
    out.extend_from_slice(format!("*{}\r\n", 2 + arguments(name.args)).as_bytes());
    encode::bulk(out, row.name.as_bytes());
    encode::bulk(out, name.key);
    out.extend_from_slice(name.args);
    true
}

/// How many bulk strings stand in `raw`, the rest of a well-formed request.
fn arguments(mut raw: &[u8]) -> usize {
    let mut count = 0;
    while let Some(end) = memchr::memchr(b'\n', raw) {
        let digits = raw[1..end].strip_suffix(b"\r").unwrap_or_default();
        let len = digits.iter().fold(0, |len, digit| len * 10 + usize::from(digit - b'0'));
        count += 1;
        raw = raw.get(end + 1 + len + 2..).unwrap_or_default();
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_counted_by_their_lengths() {
        assert_eq!(arguments(b""), 0);
        assert_eq!(arguments(b"$1\r\n1\r\n$4\r\n\r\n$1\r\n"), 2);
    }

    #[test]
    fn the_same_fields_are_asked_for() {
        let rest = b"$1\r\na\r\n$4\r\n\r\n$1\r\n";
        let mut out = BytesMut::new();
        ask_fields(&mut out, Fields::Named, b"h", rest);
        let head = b"*6\r\n$5\r\nHPTTL\r\n$1\r\nh\r\n$6\r\nFIELDS\r\n$1\r\n2\r\n";
        assert_eq!(&out[..], [&head[..], rest].concat());
    }
}
