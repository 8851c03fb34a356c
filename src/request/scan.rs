//! `SCAN` over all nodes of a cluster, page by page: see [`Scanning`].
//!
//! Invariants: a page and the looks around it go to the node in one packet, so nothing that the session says comes between.

use bytes::{BufMut, Bytes, BytesMut};

use super::combine::is_error;
use super::context::Context;
use super::gathers::{Part, Plan};
use super::parts::{Way, send};
use super::raw::Raw;
use crate::process::{Behind, Look, Scanning, errors};
use crate::reply::ReplySlot;
use crate::resp::encode;
use crate::resp::request::Request;
use crate::resp::scanner::elements;

/// Asks for the page that the request's cursor stands for.
pub fn scan(cx: &Context, request: &Request<'_>, way: Way) {
    let cursor = std::str::from_utf8(request.arg(1)).ok().and_then(|text| text.parse().ok());
    let scanning = cursor.and_then(|cursor: u64| cx.process.scans.page(cursor, &cx.process.topology()));
    let Some(scanning) = scanning else { return cx.queue.reply(&errors::line(errors::BAD_CURSOR)) };
    if scanning.is_anew {
        cx.process.metrics.scans_begun_anew.inc();
    }
    let node = scanning.leg.lock().node.clone();
    let mut look = BytesMut::new();
    encode::command(&mut look, &[b"CLUSTER", b"NODES"]);
    let look = look.freeze();
    let mut page = BytesMut::with_capacity(request.raw().len() + 24);
    encode::array(&mut page, request.len());
    encode::bulk(&mut page, request.arg(0));
    encode::bulk(&mut page, scanning.cursor.to_string().as_bytes());
    page.put_slice(request.raw_after(1));
    let before = (scanning.cursor == 0).then(|| look.clone());
    let requests = before.into_iter().chain([page.freeze(), look]);
    let parts = requests.map(|request| Part { node: node.clone(), request }).collect();
    send(cx, &Raw::Copy(request.raw()), parts, Plan::Scan(Box::new(scanning)), way);
}

/// The page and the looks are there.
pub fn page(cx: &Context, to: &ReplySlot, scanning: Scanning, replies: &[Bytes]) {
    let [before @ .., page, after] = replies else { return to.error(errors::MISFITS) };
    if is_error(page) {
        return to.piece(page.clone(), true);
    }
    let Some((own, keys)) = parsed(page) else { return to.error(errors::MISFITS) };
    let topology = cx.process.present_topology();
    let after = {
        let mut leg = scanning.leg.lock();
        let look = |reply: &Bytes| Look::of(reply, &topology, &leg.node);
        let (before, after) = (before.first().map(look), look(after));
        before.iter().for_each(|look| leg.begin(look));
        leg.go_on(&after);
        after
    };
    if own == 0 && after.differs(&topology, &scanning.leg.lock().node) {
        cx.process.cluster.refresh_soon();
    }
    let cursor = match cx.process.scans.behind(&scanning, own, &after, &topology) {
        Behind::Cursor(cursor) => cursor,
        Behind::GivenUp => return to.error(errors::SCAN_GIVEN_UP),
    };
    let mut out = BytesMut::with_capacity(keys.len() + 40);
    encode::array(&mut out, 2);
    encode::bulk(&mut out, cursor.to_string().as_bytes());
    out.put_slice(&keys);
    to.piece(out.freeze(), true);
}

/// The node's own cursor, and the keys.
fn parsed(page: &Bytes) -> Option<(u64, Bytes)> {
    let [cursor, keys] = &elements(page)?[..] else { return None };
    let cursor = &page[cursor.clone()];
    let digits = cursor.get(memchr::memchr(b'\n', cursor)? + 1..)?.strip_suffix(b"\r\n")?;
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, page.slice(keys.clone())))
}
