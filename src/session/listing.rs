//! The lines of `CLIENT LIST` and `INFO`: the upstream's own, with sessions in the place of the connections that are
//! nearside's.
//!
//! Invariants: a session's line has the fields that the upstream's lines have, in their order. If the
//! session has a connection of its own, what that one's line says of subscriptions, transactions and the like is
//! said of the session.

use std::sync::Arc;

use crate::process::{Client, NodeId, Process};
use crate::resp::Protocol;
use crate::resp::request::Request;

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Line(Vec<(Vec<u8>, Vec<u8>)>);

/// What an upstream's line is, to the session that is told in its place.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    /// The connection that is the session's own.
    Own,
    /// The shared link on which the session asks.
    Asking,
    /// Somebody else's: only its fields count.
    Other,
}

impl Line {
    fn parse(text: &[u8]) -> Option<Self> {
        let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for piece in text.split(|byte| *byte == b' ') {
            match (memchr::memchr(b'=', piece), fields.last_mut()) {
                (Some(at), _) => fields.push((piece[..at].to_vec(), piece[at + 1..].to_vec())),
                // A path with a blank in it.
                (None, Some((_, value))) => {
                    value.push(b' ');
                    value.extend_from_slice(piece);
                }
                (None, None) => return None,
            }
        }
        Some(Self(fields))
    }

    fn get(&self, name: &str) -> &[u8] {
        let found = self.0.iter().find(|(field, _)| field == name.as_bytes());
        found.map_or(b"", |(_, value)| value)
    }

    fn number(&self, name: &str) -> Option<i64> {
        std::str::from_utf8(self.get(name)).ok()?.parse().ok()
    }

    pub fn id(&self) -> Option<i64> {
        self.number("id")
    }

    fn write(&self, out: &mut Vec<u8>) {
        for (i, (name, value)) in self.0.iter().enumerate() {
            if i > 0 {
                out.push(b' ');
            }
            out.extend_from_slice(name);
            out.push(b'=');
            out.extend_from_slice(value);
        }
        out.push(b'\n');
    }

    /// As Redis' `getClientType` would have it.
    fn kind(&self) -> &'static [u8] {
        let flags = self.get("flags");
        let has = |flag| flags.contains(&flag);
        match () {
            () if has(b'M') => b"master",
            () if has(b'S') => b"replica",
            () if has(b'P') => b"pubsub",
            () => b"normal",
        }
    }

    /// The line of `session`.
    fn of(session: &Client, process: &Process, model: &Line, of: Of) -> Self {
        let (who, now, table) = (session.who(), process.now(), process.table());
        let command = session.command().and_then(|number| table.row(number)).map(|row| row.name.clone());
        let number = |number: i64| number.to_string().into_bytes();
        let value = |name: &[u8], held: &[u8]| -> Vec<u8> {
            match name {
                b"id" => number(session.id as i64),
                b"addr" => session.ends.peer.clone().into_bytes(),
                b"laddr" => session.ends.local.clone().into_bytes(),
                b"fd" => number(session.ends.fd.into()),
                b"name" => who.name.clone(),
                b"lib-name" => who.library.clone(),
                b"lib-ver" => who.version.clone(),
                b"age" => number(session.since.elapsed().as_secs() as i64),
                b"idle" => number(session.idle(now).as_secs() as i64),
                b"flags" => flags(if of == Of::Own { held } else { b"" }, session.ends.unix),
                b"cmd" if of != Of::Asking => command.as_deref().unwrap_or("NULL").as_bytes().to_vec(),
                b"redir" if of == Of::Own => match std::str::from_utf8(held).unwrap_or_default().parse() {
                    Ok(id) => number(who.redirected(id)),
                    Err(_) => held.to_vec(),
                },
                _ if of == Of::Own => held.to_vec(),
                b"db" => number(who.db.into()),
                b"user" => who.user.clone(),
                b"resp" => number(if who.protocol == Protocol::Resp3 { 3 } else { 2 }),
                b"multi" | b"redir" => number(-1),
                b"events" => b"r".to_vec(),
                b"sub" | b"psub" | b"ssub" | b"watch" => number(0),
                _ if of == Of::Asking => held.to_vec(),
                _ => number(0),
            }
        };
        let fields = model.0.iter().map(|(name, held)| (name.clone(), value(name, held)));
        Self(fields.collect())
    }
}

/// The flags of the session's own connection, but for how its client came.
fn flags(held: &[u8], unix: bool) -> Vec<u8> {
    let mut flags: Vec<u8> = held.iter().copied().filter(|flag| !b"NU".contains(flag)).collect();
    if unix {
        flags.push(b'U');
    }
    if flags.is_empty() {
        flags.push(b'N');
    }
    flags
}

/// Who asks, and what the upstream calls the link on which it does.
#[derive(Clone, Copy)]
pub struct Asker {
    pub session: u64,
    pub link: Option<i64>,
    /// Where.
    pub node: NodeId,
}

/// What the upstream's list says, with sessions for the connections that are ours; without `all`, only those sessions
/// are in it that have a line of their own there. `None` if it is no list.
pub fn merge(process: &Process, text: &[u8], asker: Asker, all: bool) -> Option<Vec<Line>> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let lines: Vec<_> = lines.map(Line::parse).collect::<Option<_>>()?;
    let sessions = process.clients.all();
    let mut told: Vec<Option<Line>> = vec![None; sessions.len()];
    let mut alone: Vec<(i64, usize)> =
        sessions.iter().enumerate().map(|(i, session)| (session.upstream_at(asker.node), i)).collect();
    alone.sort_unstable();
    let ours = &process.settings.upstream.ours;
    let is_ours = |line: &Line| {
        line.id().is_some_and(|id| ours.has_id(id))
            || std::str::from_utf8(line.get("addr")).is_ok_and(|address| ours.has_address(address))
    };
    let mut merged = Vec::new();
    for line in &lines {
        let id = line.id()?;
        if let Ok(i) = alone.binary_search_by_key(&id, |(upstream, _)| *upstream) {
            let (_, i) = alone[i];
            told[i] = Some(Line::of(&sessions[i], process, line, Of::Own));
        } else if asker.link == Some(id)
            && let Ok(i) = sessions.binary_search_by_key(&asker.session, |session| session.id)
        {
            told[i] = Some(Line::of(&sessions[i], process, line, Of::Asking));
        } else if !is_ours(line) {
            merged.push(line.clone());
        }
    }
    for (session, line) in sessions.iter().zip(told) {
        let other = || lines.first().map(|model| Line::of(session, process, model, Of::Other));
        merged.extend(line.or_else(|| other().filter(|_| all)));
    }
    Some(merged)
}

/// The line of the session that asks, from that of the link on which it does.
pub fn own_line(process: &Process, text: &[u8], session: &Arc<Client>) -> Option<Vec<u8>> {
    let line = Line::parse(text.strip_suffix(b"\n").unwrap_or(text))?;
    let of = if session.upstream() == 0 { Of::Asking } else { Of::Own };
    Some(written(&[Line::of(session, process, &line, of)]))
}

pub fn written(lines: &[Line]) -> Vec<u8> {
    let mut out = Vec::new();
    lines.iter().for_each(|line| line.write(&mut out));
    out
}

/// Which clients `CLIENT LIST` or `KILL` speaks of.
#[derive(Debug, Default, PartialEq)]
pub struct Filter {
    pub ids: Vec<i64>,
    kind: Option<Vec<u8>>,
    user: Option<Vec<u8>>,
    peer: Option<Vec<u8>>,
    local: Option<Vec<u8>>,
    max_age: Option<i64>,
    pub skips_me: Option<bool>,
    /// It has an option that is not known here, or one with a value that makes no sense.
    pub odd: bool,
    /// Where the values of `ADDR` stand in the request.
    pub peers: Vec<usize>,
}

impl Filter {
    /// What is said from argument 2 on. What is wrong is for the upstream to tell: here it is only [odd](Self::odd).
    pub fn parse(request: &Request<'_>) -> Self {
        let mut filter = Self::default();
        let mut i = 2;
        while let Some(word) = request.get(i) {
            let value = request.get(i + 1);
            filter.take(&word.to_ascii_lowercase(), value, i + 1);
            i += 2;
            // `LIST` takes several ids, and so does a newer `KILL`.
            while word.eq_ignore_ascii_case(b"id")
                && let Some(id) = request.get(i).and_then(number)
            {
                filter.ids.push(id);
                i += 1;
            }
        }
        filter
    }

    fn take(&mut self, word: &[u8], value: Option<&[u8]>, at: usize) {
        let text = value.map(<[u8]>::to_vec);
        let known = match word {
            b"id" => {
                let id = value.and_then(number);
                self.ids.extend(id);
                id.is_some()
            }
            b"type" => {
                let kind = text.map(|kind| kind.to_ascii_lowercase());
                self.kind = kind.map(|kind| if kind == b"slave" { b"replica".to_vec() } else { kind });
                self.kind.is_some()
            }
            b"user" => {
                self.user = text;
                self.user.is_some()
            }
            b"addr" => {
                self.peer = text;
                self.peers.push(at);
                self.peer.is_some()
            }
            b"laddr" => {
                self.local = text;
                self.local.is_some()
            }
            b"maxage" => {
                self.max_age = value.and_then(number);
                self.max_age.is_some()
            }
            b"skipme" => {
                self.skips_me = value.and_then(|value| match &*value.to_ascii_lowercase() {
                    b"yes" => Some(true),
                    b"no" => Some(false),
                    _ => None,
                });
                self.skips_me.is_some()
            }
            _ => false,
        };
        self.odd |= !known;
    }

    /// Whether ids are all that it asks for.
    pub fn is_of_ids(&self) -> bool {
        let rest = (&self.kind, &self.user, &self.peer, &self.local, self.max_age);
        !self.ids.is_empty() && rest == (&None, &None, &None, &None, None)
    }

    pub fn matches(&self, line: &Line, asker: u64) -> bool {
        let is = |wanted: &Option<Vec<u8>>, name: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.as_slice() == line.get(name))
        };
        let id = line.id();
        (self.ids.is_empty() || id.is_some_and(|id| self.ids.contains(&id)))
            && self.kind.as_ref().is_none_or(|kind| kind.as_slice() == line.kind())
            && is(&self.user, "user")
            && is(&self.peer, "addr")
            && is(&self.local, "laddr")
            && self.max_age.is_none_or(|most| line.number("age").is_some_and(|age| age >= most))
            && !(self.skips_me == Some(true) && id == i64::try_from(asker).ok())
    }
}

fn number(arg: &[u8]) -> Option<i64> {
    std::str::from_utf8(arg).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::framer::{Limits, RequestFramer};

    const LINE: &[u8] = b"id=3 addr=/tmp/a b:0 laddr=127.0.0.1:1 name= age=9 flags=P user=ada";

    #[test]
    fn a_line_is_written_as_it_was_read() {
        let line = Line::parse(LINE).unwrap();
        assert_eq!(line.get("addr"), b"/tmp/a b:0");
        assert_eq!(line.get("nosuch"), b"");
        let mut out = Vec::new();
        line.write(&mut out);
        assert_eq!(out, [LINE, b"\n"].concat());
        assert!(Line::parse(b"nothing").is_none());
    }

    #[test]
    fn flags_say_how_the_client_came() {
        assert_eq!(flags(b"N", false), b"N");
        assert_eq!(flags(b"U", false), b"N");
        assert_eq!(flags(b"PU", true), b"PU");
        assert_eq!(flags(b"", true), b"U");
    }

    fn filter(words: &str) -> Filter {
        let request = crate::resp::encode::command;
        let mut out = Vec::new();
        request(&mut out, &words.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        let mut framer = RequestFramer::new(Limits::default());
        framer.next(&out).unwrap();
        Filter::parse(&framer.request(&out))
    }

    #[test]
    fn filters_match_as_in_redis() {
        let line = Line::parse(LINE).unwrap();
        for (words, expected) in [
            ("CLIENT LIST", true),
            ("CLIENT LIST ID 1 2 3", true),
            ("CLIENT LIST ID 1 2", false),
            ("CLIENT KILL id 3 TYPE PubSub", true),
            ("CLIENT KILL TYPE normal", false),
            ("CLIENT KILL USER ada LADDR 127.0.0.1:1", true),
            ("CLIENT KILL USER bob", false),
            ("CLIENT KILL MAXAGE 9", true),
            ("CLIENT KILL MAXAGE 10", false),
            ("CLIENT KILL SKIPME yes TYPE pubsub", false),
            ("CLIENT KILL SKIPME no", true),
        ] {
            let filter = filter(words);
            assert!(!filter.odd, "{words}");
            assert_eq!(filter.matches(&line, 3), expected, "{words}");
        }
        for odd in ["CLIENT KILL ID", "CLIENT KILL ID x", "CLIENT KILL SKIPME maybe", "CLIENT LIST NEW 1"] {
            assert!(filter(odd).odd, "{odd}");
        }
        assert!(filter("CLIENT KILL ID 1 2 SKIPME no").is_of_ids());
        assert!(!filter("CLIENT KILL ID 1 USER ada").is_of_ids());
        assert_eq!(filter("CLIENT KILL USER addr ADDR x").peers, [5]);
    }
}
