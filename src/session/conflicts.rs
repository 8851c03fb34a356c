//! `NEARSIDE CONFLICTS`: writes that were acknowledged here and did not become the upstream's, because another had written there.

use bytes::BytesMut;

use crate::process::{Back, Ident, errors};
use crate::request::Context;
use crate::resp::request::Request;
use crate::resp::{Protocol, encode};
use crate::writeback::{Conflict, Op};

/// Entries that are given if it is not said how many.
const COUNT: usize = 10_000;

/// Answers `NEARSIDE CONFLICTS [COUNT n]`, an array with an entry for each, the newest last; or `NEARSIDE CONFLICTS CLEAR`.
///
/// Of another user than nearside's own it is not known which of them it may see.
pub(super) fn answer(cx: &Context, who: &Ident, request: &Request<'_>) {
    if who.user.is_some() {
        return cx.queue.reply(&errors::line(errors::NOT_YOURS));
    }
    let is = |at: usize, word: &[u8]| request.get(at).is_some_and(|said| said.eq_ignore_ascii_case(word));
    let count = || std::str::from_utf8(request.get(3)?).ok()?.parse().ok();
    let most = match request.len() {
        3 if is(2, b"clear") => {
            cx.process.backs().for_each(|back| back.clear_conflicts());
            return cx.queue.reply(b"+OK\r\n");
        }
        2 => COUNT,
        4 if is(2, b"count") && count().is_some() => count().unwrap_or(COUNT),
        _ => {
            return cx
                .queue
                .reply(&errors::line(&errors::usage("NEARSIDE CONFLICTS [COUNT n] | CONFLICTS CLEAR")));
        }
    };
    let of = |back: &Back| {
        back.conflict_log(most).into_iter().map(|one| (back.name.clone(), one)).collect::<Vec<_>>()
    };
    let mut all: Vec<_> = cx.process.backs().flat_map(of).collect();
    all.sort_by_key(|(_, conflict)| (conflict.at, conflict.id));
    all.drain(..all.len().saturating_sub(most));
    cx.queue.reply_with(|out| {
        encode::array(out, all.len());
        all.iter().for_each(|(namespace, conflict)| write(out, who.protocol, namespace, conflict));
    });
}

/// An entry: names and what they stand for, as a map where the protocol has one.
fn write(out: &mut BytesMut, protocol: Protocol, namespace: &str, conflict: &Conflict) {
    let name = |out: &mut BytesMut, name: &str| encode::bulk(out, name.as_bytes());
    encode::map(out, protocol, 10);
    name(out, "id");
    encode::integer(out, conflict.id as i64);
    name(out, "at");
    encode::integer(out, conflict.at as i64);
    name(out, "namespace");
    encode::bulk(out, namespace.as_bytes());
    name(out, "key");
    encode::bulk(out, &conflict.key);
    name(out, "ours");
    match &conflict.ours {
        Op::Set { value, .. } => encode::bulk(out, value),
        Op::Delete => encode::null(out, protocol),
    }
    name(out, "ours-sha1");
    encode::bulk(out, conflict.ours_sha1().as_bytes());
    name(out, "ours-at");
    encode::integer(out, conflict.written as i64);
    name(out, "theirs");
    encode::bulk(out, conflict.theirs_in_words().as_bytes());
    name(out, "told-by");
    encode::bulk(out, &conflict.told_by);
    name(out, "told-at");
    encode::integer(out, conflict.told as i64);
}
