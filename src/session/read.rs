//! Cached reads of one key: lookup, and on a miss the read with its time to live, and the fill.

use bytes::BytesMut;
use smallvec::smallvec;
use tracing::warn;

use super::core::{Core, Raw, send_on};
use super::expect::{Bypass, CacheLease, Pending};
use super::fields;
use super::peer::LinkHandler;
use super::queue::ReplySlot;
use super::shared::Shared;
use super::worker::Ticket;
use crate::cache::{By, EntryKey, EntryKeyBuf, Expiry, Lookup, Micros, Reason};
use crate::command::{Fields, Row, Table};
use crate::resp::encode;
use crate::resp::framer::{Frame, RequestFramer};
use crate::resp::request::Request;
use crate::resp::scanner::Kind;
use crate::upstream::{At, Chunk, Link, Outgoing, Said};

/// Answers a read from the cache, or lets it fill the cache. Says whether it was a hit.
pub(super) fn read(core: &mut Core, row: Option<&Row>, request: &Request<'_>, raw: Raw<'_>) -> bool {
    let Some(row) = row else {
        core.forward(raw, Pending::Relay);
        return false;
    };
    match lookup(core, row.id, request, None) {
        Lookup::Hit => {
            core.count_hit();
            return true;
        }
        Lookup::Joined => {
            core.queue.open_joined(request.raw(), request.arg(1));
        }
        Lookup::Miss(lease) => {
            let to = core.to(core.queue.open());
            fetch(core, row, request, raw, to, lease);
        }
        Lookup::Bypass(_) => {
            let past = past(core, row.id, request);
            core.forward(raw, |to| Pending::Bypass(to, past));
        }
    }
    false
}

/// Looks up anew for a slot whose flight came to nothing.
pub(super) fn read_again(core: &mut Core, table: &Table, slot: u64, request: &[u8]) {
    let mut framer = RequestFramer::new(core.shared.settings.limits);
    let Ok(Frame::Request(_)) = framer.next(request) else { return };
    let parsed = framer.request(request);
    let Some(row) = table.lookup(&parsed) else { return };
    match lookup(core, row.id, &parsed, Some(slot)) {
        Lookup::Hit => core.count_hit(),
        Lookup::Joined => core.queue.join(slot, request.into(), parsed.arg(1)),
        Lookup::Miss(lease) => {
            fetch(core, row, &parsed, Raw::Copy(request), core.to(slot), lease);
        }
        Lookup::Bypass(_) => {
            let pending = Pending::Bypass(core.to(slot), past(core, row.id, &parsed));
            core.send(|out| out.copy(request), pending);
        }
    }
}

/// Answers into `slot`, or into the next one.
#[inline]
fn lookup(core: &Core, command: u16, request: &Request<'_>, slot: Option<u64>) -> Lookup<Ticket> {
    let key = request.arg(1);
    let name =
        EntryKey { key, ident: core.number, command, args: request.raw_after(1), by: by(core, command) };
    let namespace = core.shared.namespaces.find(key);
    core.shared.cache.lookup(
        &name,
        core.now,
        core.bounds(namespace),
        || core.link.client().cover(namespace),
        |behind_write| {
            // In a pipeline it would hold up what comes behind it, where the upstream would not. Nor does what was
            // released join another refill: of a key that is written all the time, readers would wait for ever.
            if behind_write && core.queue.waiting() > 0 {
                return None;
            }
            let slot = slot.unwrap_or_else(|| core.queue.next());
            Some(Ticket { inbox: core.worker.inbox.clone(), session: core.id, slot })
        },
        |reply| match slot {
            Some(slot) => core.to(slot).whole(reply),
            None => core.queue.reply(reply),
        },
    )
}

/// By what a reply of this command is asked for: elements of `MGET` are kept as replies to `GET`.
#[inline(always)]
fn by(core: &Core, command: u16) -> By {
    if command == core.shared.get { By::GET } else { By::ITSELF }
}

fn past(core: &Core, command: u16, request: &Request<'_>) -> Box<Bypass> {
    core.shared.cache.touch(core.now);
    let key = request.arg(1);
    let name =
        EntryKey { key, ident: core.number, command, args: request.raw_after(1), by: by(core, command) };
    let instead = core.shared.settings.stale_if_error.then(|| EntryKeyBuf::new(&name));
    Box::new(Bypass { keys: smallvec![key.into()], instead })
}

fn fetch(core: &Core, row: &Row, request: &Request<'_>, raw: Raw<'_>, to: ReplySlot, lease: CacheLease) {
    core.shared.cache.touch(core.now);
    let fill = Fill::new(&core.shared, Some(to), lease, row.fields);
    let write = |out: &mut Outgoing| {
        raw.write(out);
        out.with(|tail| ask_times(tail, row.fields, request.arg(1), request.raw_after(1)));
    };
    core.send(write, Pending::Fill(Box::new(fill)));
}

/// Writes what is asked behind a read, so that it is known until when its reply is good.
fn ask_times(out: &mut BytesMut, fields: Fields, key: &[u8], rest: &[u8]) {
    fields::ask(out, fields, key, rest);
    encode::command(out, &[b"PTTL", key]);
}

/// Reads what is leased into the cache, though no client has asked for it. False if its command is not known any
/// more: then nothing is sent.
pub(super) fn fetch_unasked(
    shared: &Shared,
    link: &Link<LinkHandler>,
    lease: CacheLease,
    now: Micros,
) -> bool {
    let (table, name) = (shared.table(), lease.name());
    let mut request = BytesMut::new();
    let fields = table.row(name.command).map_or(Fields::None, |row| row.fields);
    if !write_request(&mut request, &table, &name) {
        return false;
    }
    ask_times(&mut request, fields, name.key, name.args);
    let pending = Pending::Fill(Box::new(Fill::new(shared, None, lease, fields)));
    let _ = send_on(link, now, |out: &mut Outgoing| out.append(request.freeze()), pending);
    true
}

/// Writes the request that a cached reply answers; false if its command is not known any more.
pub(super) fn write_request(out: &mut BytesMut, table: &Table, name: &EntryKey<'_>) -> bool {
    let Some(row) = table.row(name.command) else { return false };
    out.extend_from_slice(format!("*{}\r\n", 2 + arguments(name.args)).as_bytes());
    encode::bulk(out, row.name.as_bytes());
    encode::bulk(out, name.key);
    out.extend_from_slice(name.args);
    true
}

/// How many bulk strings stand in `raw`, the rest of a well-formed request.
pub(super) fn arguments(mut raw: &[u8]) -> usize {
    let mut count = 0;
    while let Some(end) = memchr::memchr(b'\n', raw) {
        let digits = raw[1..end].strip_suffix(b"\r").unwrap_or_default();
        let len = digits.iter().fold(0, |len, digit| len * 10 + usize::from(digit - b'0'));
        count += 1;
        raw = raw.get(end + 1 + len + 2..).unwrap_or_default();
    }
    count
}

/// A read and the questions for its end in flight.
pub(super) struct Fill {
    /// `None` if nobody asked: a refresh.
    to: Option<ReplySlot>,
    /// Gone once the reply is known not to be kept; then it is passed on as it comes.
    lease: Option<CacheLease>,
    /// The reply, while it may be kept.
    held: BytesMut,
    /// The read's reply is complete.
    read: bool,
    /// Of which fields the reply tells; none once their times are known.
    fields: Fields,
    /// For how long no field of the reply ends; `None` if that was not proven.
    fields_last: Option<Micros>,
    max_age: Micros,
    max_staleness: Micros,
}

impl Fill {
    pub(super) fn new(shared: &Shared, to: Option<ReplySlot>, lease: CacheLease, fields: Fields) -> Self {
        let namespace = shared.namespaces.find(lease.name().key);
        let (max_age, max_staleness) = (shared.max_age(namespace), shared.max_staleness(namespace));
        Self {
            to,
            lease: Some(lease),
            held: BytesMut::new(),
            read: false,
            fields,
            fields_last: Some(Micros::MAX),
            max_age,
            max_staleness,
        }
    }

    pub(super) fn to(&self) -> Option<&ReplySlot> {
        self.to.as_ref()
    }

    pub(super) fn name(&self) -> Option<EntryKey<'_>> {
        self.lease.as_ref().map(CacheLease::name)
    }

    pub(super) fn into_to(self) -> Option<ReplySlot> {
        self.to
    }

    pub(super) fn reply(
        mut self: Box<Self>,
        peer: &LinkHandler,
        chunk: Chunk<'_>,
        at: At,
    ) -> Option<Box<Self>> {
        if self.read {
            if !at.last {
                // Far longer than any answer that proves something.
                self.fields_last = None;
                return Some(self);
            }
            if self.fields == Fields::None {
                self.finish(peer, &chunk);
                return None;
            }
            let proven = fields::judge(self.fields, &chunk, &self.held);
            self.fields_last = self.fields_last.and(proven);
            self.fields = Fields::None;
            return Some(self);
        }
        self.read = at.last;
        let cache = &peer.shared.cache;
        if at.kind == Kind::Error {
            if let Some(name) = self.name().filter(|name| name.by != By::ITSELF) {
                peer.shared.note_error(name.ident, &chunk);
            }
            self.give_up(peer, Reason::ErrorReply);
        } else if self.held.len() + chunk.len() > cache.max_value() {
            self.give_up(peer, Reason::TooLarge);
        }
        if self.lease.is_some() {
            self.held.extend_from_slice(&chunk);
            return Some(self);
        }
        if let Some(to) = &self.to {
            if !self.held.is_empty() {
                to.piece(self.held.split().freeze(), false);
            }
            to.piece(chunk.into_bytes(), at.last);
        }
        Some(self)
    }

    fn give_up(&mut self, peer: &LinkHandler, reason: Reason) {
        if let Some(lease) = self.lease.take() {
            lease.give_up(reason, peer.shared.now());
        }
    }

    fn finish(mut self, peer: &LinkHandler, ttl: &[u8]) {
        let Some(mut lease) = self.lease.take() else { return };
        // Nobody asked for a refresh, so nobody said it; but its reply is one to `GET` all the same.
        if lease.stands() {
            lease.share(peer.shared.shared_by(lease.name().ident, lease.name().by));
        }
        let now = peer.shared.now();
        let reply = self.held.freeze();
        let again = if self.to.is_none() { lease.end_refresh() } else { None };
        let again = again.map(|wanted| (Box::<[u8]>::from(lease.name().key), wanted));
        let expiry = expiry(ttl, &reply, lease.opened(), self.max_age);
        match (expiry, self.fields_last) {
            (Some(expiry), Some(last)) => {
                let expiry = expiry.at_most(lease.opened().saturating_add(last));
                let _ = lease.fill(&reply, expiry, now, self.max_staleness);
            }
            (None, _) => drop(lease.pass_on(&reply, not_kept(&peer.shared, ttl), now, self.max_staleness)),
            (_, None) => drop(lease.pass_on(&reply, Reason::FieldTtl, now, self.max_staleness)),
        }
        if let (Some((key, wanted)), Some(worker)) = (again, peer.worker.upgrade()) {
            super::refresh::refresh(&worker, &key, &wanted);
        }
        if let Some(to) = self.to {
            to.piece(reply, true);
        }
    }
}

/// Why a reply is not kept whose time to live was answered so. That the upstream refuses to tell it is logged, for then
/// nothing is kept for as long.
pub(super) fn not_kept(shared: &Shared, ttl: &[u8]) -> Reason {
    let is_error = ttl.starts_with(b"-") || ttl.starts_with(b"!");
    if !is_error || Said::of(Kind::Error, ttl) != Said::Refused {
        return Reason::TtlUnknown;
    }
    if let Some(untold) = shared.metrics.ttl_refused_told.now() {
        let reply = String::from_utf8_lossy(ttl);
        warn!(
            reply = reply.trim_end(),
            untold, "the upstream does not allow PTTL: without a time to live nothing is cached"
        );
    }
    Reason::TtlRefused
}

/// How long `reply` may be served, as the reply to `PTTL` tells, which was executed right after the read.
///
/// `None` if that is not known: an error, or the key is gone though the reply does not look like it.
/// The server's clock is not ours: it answered after `opened`, so its end is not before `opened` + PTTL.
pub(super) fn expiry(ttl: &[u8], reply: &[u8], opened: Micros, max_age: Micros) -> Option<Expiry> {
    let digits = ttl.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
    let millis: i64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let expires = match millis {
        -2 if is_absent(reply) => Micros::MAX,
        -1 => Micros::MAX,
        1.. => opened.saturating_add((millis as Micros).saturating_mul(1000)),
        _ => return None,
    };
    let aged = opened.saturating_add(max_age);
    Some(Expiry { expires: expires.min(aged), aged: aged < expires })
}

/// Whether a read of a key that does not exist may be answered so.
pub(super) fn is_absent(reply: &[u8]) -> bool {
    const ABSENT: [&[u8]; 9] = [
        b"$-1\r\n",
        b"_\r\n",
        b":0\r\n",
        b"*0\r\n",
        b"%0\r\n",
        b"~0\r\n",
        b"*-1\r\n",
        b"$0\r\n\r\n",
        b"+none\r\n",
    ];
    // Also an array of nothing else: each field, member or place that was asked for is missing.
    const MISSING: [&[u8]; 4] = [b"$-1\r\n", b"_\r\n", b":0\r\n", b"*-1\r\n"];
    let mut elements = match (reply, memchr::memchr(b'\n', reply)) {
        ([b'*', b'1'..=b'9', ..], Some(header)) => &reply[header + 1..],
        _ => return ABSENT.contains(&reply),
    };
    while let Some(rest) = MISSING.iter().find_map(|missing| elements.strip_prefix(*missing)) {
        elements = rest;
    }
    elements.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_counted_from_before_the_read() {
        let some =
            |ttl: &[u8], reply: &[u8]| expiry(ttl, reply, 1_000, 60_000_000).map(|l| (l.expires, l.aged));
        assert_eq!(some(b":5\r\n", b"$1\r\nv\r\n"), Some((6_000, false)));
        assert_eq!(some(b":-1\r\n", b"$1\r\nv\r\n"), Some((60_001_000, true)));
        assert_eq!(some(b":100000\r\n", b"$1\r\nv\r\n"), Some((60_001_000, true)));
        assert_eq!(some(b":-2\r\n", b"$-1\r\n"), Some((60_001_000, true)));
        assert_eq!(some(b":-2\r\n", b"$1\r\nv\r\n"), None, "it expired between read and PTTL");
        assert_eq!(some(b":-2\r\n", b"*2\r\n$-1\r\n_\r\n"), Some((60_001_000, true)));
        assert_eq!(some(b":-2\r\n", b"*2\r\n$-1\r\n$1\r\nv\r\n"), None);
        assert_eq!(some(b":0\r\n", b"$1\r\nv\r\n"), None);
        assert_eq!(some(b"-NOPERM no\r\n", b"$1\r\nv\r\n"), None);
    }

    #[test]
    fn arguments_are_counted_by_their_lengths() {
        assert_eq!(arguments(b""), 0);
        assert_eq!(arguments(b"$1\r\n1\r\n$4\r\n\r\n$1\r\n"), 2);
    }
}
