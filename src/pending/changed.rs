//! Replies that are changed before they are handed over, because they speak of nearside's own connections, or lack what it
//! has to add.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memmem;

use super::link_handler::LinkHandler;
use super::state::Leaves;
use crate::process::{Client, Process, Who, section};
use crate::reply::ReplySlot;
use crate::resp::number::string2ll;
use crate::resp::scanner::Kind;
use crate::upstream::At;

/// A reply that is changed, as far as it has come.
pub struct Changed {
    pub held: BytesMut,
    pub change: Change,
}

impl Changed {
    pub fn by(change: Change) -> Box<Self> {
        Box::new(Self { held: BytesMut::new(), change })
    }
}

/// What is changed in a reply, or done after it.
pub enum Change {
    /// `INFO` gains our section, if that is wanted, and speaks of no cluster, unless clients are told of one.
    Info { ours: bool },
    /// `HELLO`: the connection's id is the session's; on a connection of its own it may leave something.
    HelloId(u64, Option<Box<Leaves>>),
    /// `CLIENT SETINFO`: this attribute of the session has this value.
    Library(Arc<Client>, Vec<u8>, Vec<u8>),
    /// Where tracking redirects to: a session's connection is the session.
    Redirect(Arc<Client>),
}

impl LinkHandler {
    /// The reply is whole: hands it over as it is to be.
    pub fn change(&self, to: &ReplySlot, mut reply: BytesMut, kind: Kind, change: Change) {
        match change {
            Change::Info { ours } if kind != Kind::Error => {
                if self.hides_cluster() {
                    reply = without_cluster(reply);
                }
                if ours {
                    reply = with_section(&self.process, reply);
                }
            }
            Change::Library(client, attribute, value) if kind != Kind::Error => {
                client.is_made_with(&attribute, value);
            }
            Change::Redirect(client) if kind != Kind::Error => reply = redirected(&client.who(), reply),
            Change::Info { .. } | Change::Library(..) | Change::Redirect(_) => {}
            Change::HelloId(id, leaves) => {
                let whole = At { kind, first: true, last: true };
                leaves.into_iter().for_each(|mut leaves| leaves.reply(&reply, whole, &self.pushes, to));
                reply = with_number(reply, ID, |_| id as i64);
                if self.hides_cluster() {
                    reply = replaced(&reply, MODE, b"$4\r\nmode\r\n$10\r\nstandalone\r\n");
                }
                if kind == Kind::Aggregate {
                    self.process.note_hello(&reply);
                }
            }
        }
        to.piece(reply.freeze(), true);
    }

    /// Whether clients are told of one server, though there is a cluster.
    fn hides_cluster(&self) -> bool {
        self.process.cluster.is() && !self.process.settings.cluster.is_shown
    }
}

/// Before the number of the connection in the reply to `HELLO`.
const ID: &[u8] = b"$2\r\nid\r\n:";

/// A reply to `HELLO` for the session of this id.
pub fn with_id(reply: Bytes, id: u64) -> Bytes {
    with_number(BytesMut::from(&reply[..]), ID, |_| id as i64).freeze()
}

/// In the reply of a node of a cluster to `HELLO`.
const MODE: &[u8] = b"$4\r\nmode\r\n$7\r\ncluster\r\n";

/// A reply to `INFO` as a server would say it that is in no cluster.
fn without_cluster(reply: BytesMut) -> BytesMut {
    let Some(header) = memchr::memchr(b'\n', &reply) else { return reply };
    let Some(text) = reply[header + 1..].strip_suffix(b"\r\n") else { return reply };
    let mut text = BytesMut::from(text);
    for (cluster, standalone) in [
        (&b"\nredis_mode:cluster\r\n"[..], &b"\nredis_mode:standalone\r\n"[..]),
        (b"\nserver_mode:cluster\r\n", b"\nserver_mode:standalone\r\n"),
        (b"\ncluster_enabled:1\r\n", b"\ncluster_enabled:0\r\n"),
    ] {
        text = replaced(&text, cluster, standalone);
    }
    let mut changed = BytesMut::with_capacity(text.len() + 16);
    changed.put_u8(reply[0]);
    changed.put_slice(format!("{}\r\n", text.len()).as_bytes());
    changed.put_slice(&text);
    changed.put_slice(b"\r\n");
    changed
}

/// With other words in the place of these, if they are there.
fn replaced(text: &[u8], words: &[u8], others: &[u8]) -> BytesMut {
    match memmem::find(text, words) {
        Some(at) => [&text[..at], others, &text[at + words.len()..]].concat().as_slice().into(),
        None => text.into(),
    }
}

/// What tells of a redirection (`CLIENT GETREDIR`, `TRACKINGINFO`, the push that says that it is broken), with the
/// session where the upstream names its connection.
pub fn redirected(who: &Who, reply: BytesMut) -> BytesMut {
    const FIELDS: [&[u8]; 2] = [b"$8\r\nredirect\r\n:", b"tracking-redir-broken\r\n:"];
    let named = FIELDS.into_iter().find(|field| memchr::memmem::find(&reply, field).is_some());
    match named {
        None if !reply.starts_with(b":") => reply,
        named => with_number(reply, named.unwrap_or(b":"), |id| who.redirected(id)),
    }
}

/// A reply to `INFO` with our section at its end: a bulk string, or RESP3's verbatim string.
pub fn with_section(process: &Process, reply: BytesMut) -> BytesMut {
    let Some(header) = memchr::memchr(b'\n', &reply) else { return reply };
    let Some(text) = reply[header + 1..].strip_suffix(b"\r\n") else { return reply };
    let section = section(process);
    let gap = if text.ends_with(b"\r\n\r\n") || text.is_empty() || text == b"txt:" { "" } else { "\r\n" };
    let mut changed = BytesMut::with_capacity(reply.len() + section.len() + 16);
    let len = text.len() + gap.len() + section.len();
    changed.put_u8(reply[0]);
    changed.put_slice(format!("{len}\r\n").as_bytes());
    changed.put_slice(text);
    changed.put_slice(gap.as_bytes());
    changed.put_slice(section.as_bytes());
    changed.put_slice(b"\r\n");
    changed
}

/// A reply with another number in the place of the one behind `field`.
pub fn with_number(reply: BytesMut, field: &[u8], change: impl FnOnce(i64) -> i64) -> BytesMut {
    let Some(start) = memmem::find(&reply, field).map(|found| found + field.len()) else { return reply };
    let Some(len) = memchr::memchr(b'\r', &reply[start..]) else { return reply };
    let Some(number) = string2ll(&reply[start..start + len]) else { return reply };
    let mut changed = BytesMut::with_capacity(reply.len() + 20);
    changed.extend_from_slice(&reply[..start]);
    changed.extend_from_slice(change(number).to_string().as_bytes());
    changed.extend_from_slice(&reply[start + len..]);
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_id_is_changed() {
        let reply = BytesMut::from(&b"%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:77\r\n"[..]);
        let changed = with_number(reply, b"$2\r\nid\r\n:", |id| id - 72);
        assert_eq!(&changed[..], b"%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:5\r\n");
    }

    #[test]
    fn info_and_hello_speak_of_no_cluster() {
        let of = |reply: &str| String::from_utf8(without_cluster(BytesMut::from(reply)).to_vec()).unwrap();
        let text = |mode: &str, enabled| {
            format!("# Server\r\nredis_mode:{mode}\r\n# Cluster\r\ncluster_enabled:{enabled}\r\n")
        };
        let (before, after) = (text("cluster", 1), text("standalone", 0));
        for (sign, format) in [("$", ""), ("=", "txt:")] {
            let reply = |text: &str| format!("{sign}{}\r\n{format}{text}\r\n", format.len() + text.len());
            assert_eq!(of(&reply(&before)), reply(&after));
            assert_eq!(of(&reply(&after)), reply(&after));
        }
        let hello = [b"*2\r\n", MODE].concat();
        assert!(replaced(&hello, MODE, b"x").ends_with(b"*2\r\nx"));
    }

    #[test]
    fn our_section_stands_at_the_end_of_info_a_line_apart() {
        let process = crate::process::fixture::process(1);
        let with = |reply: &str| {
            let whole = with_section(&process, BytesMut::from(reply)).to_vec();
            String::from_utf8(whole).unwrap()
        };
        let section = section(&process);
        for (text, gap) in [
            ("# Server\r\na:b\r\n", "\r\n"),
            ("# Server\r\na:b\r\n\r\n", ""),
            ("", ""),
            ("txt:", ""),
            ("txt:# Server\r\n", "\r\n"),
        ] {
            let whole = format!("{text}{gap}{section}");
            let sign = if text.starts_with("txt") { '=' } else { '$' };
            let reply = with(&format!("{sign}{}\r\n{text}\r\n", text.len()));
            assert_eq!(reply, format!("{sign}{}\r\n{whole}\r\n", whole.len()));
        }
        assert_eq!(with("+OK"), "+OK", "not what it was taken for");
    }

    #[test]
    fn what_tells_of_a_redirection_names_the_session() {
        let who = Who { redirects: Some((77, 5)), ..Who::default() };
        for (reply, changed) in [
            (":77\r\n", ":5\r\n"),
            (":78\r\n", ":78\r\n"),
            ("$8\r\nredirect\r\n:77\r\n", "$8\r\nredirect\r\n:5\r\n"),
            ("tracking-redir-broken\r\n:77\r\n", "tracking-redir-broken\r\n:5\r\n"),
            ("*1\r\n:77\r\n", "*1\r\n:77\r\n"),
        ] {
            assert_eq!(&redirected(&who, BytesMut::from(reply))[..], changed.as_bytes(), "{reply}");
        }
    }
}
