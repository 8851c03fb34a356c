//! Commands that do to each of their keys what they would do to it alone: cut by hash slot, for a server takes no others in
//! one command.
//!
//! Invariants: each key stands in one part, with its own arguments, in the order in which it came; what stands before and
//! behind all keys stands in every part.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::combine::How;
use super::context::Context;
use super::gathers::{Part, Plan};
use super::parts::{Way, send};
use super::raw::Raw;
use crate::command::{Gives, Row};
use crate::process::{Node, errors};
use crate::resp::request::Request;
use crate::resp::{encode, key_slot};

/// Sends a request in parts. Says in which slot its reply will be, and whether that may have written keys which nobody can
/// name.
pub fn split(cx: &Context, row: &Row, request: &Request<'_>, raw: &Raw<'_>, way: Way) -> Option<(u64, bool)> {
    let Some(cuts) = cut(row, request) else {
        cx.queue.reply(&errors::line(&errors::wrong_arity(&row.name)));
        return None;
    };
    let (parts, places): (Vec<_>, Vec<_>) = cuts
        .into_iter()
        .map(|cut| (Part { node: owner(cx, cut.slot), request: cut.request }, cut.places))
        .unzip();
    let how = match row.policy.gives {
        Gives::Default => How::Placed(places),
        _ => How::of(row.policy, &row.name).unwrap_or(How::AllSucceeded),
    };
    Some(send(cx, raw, parts, Plan::Combine { how, by_keys: true }, way))
}

fn owner(cx: &Context, slot: u16) -> Arc<Node> {
    cx.topology.owner_of(slot).unwrap_or(&cx.topology.nodes()[0]).clone()
}

/// The part of one hash slot.
struct Cut {
    slot: u16,
    request: Bytes,
    /// Which of all keys it has.
    places: Vec<u32>,
}

/// `None` if the keys do not have as many arguments each.
fn cut(row: &Row, request: &Request<'_>) -> Option<Vec<Cut>> {
    let mut keys = Vec::new();
    let _ = row.keys(request, |i, _| keys.push(i));
    let (first, step) = (*keys.first()?, keys.get(1)?.checked_sub(keys[0])?);
    let behind = keys.last()? + step;
    let is_even = keys.windows(2).all(|pair| pair[1].checked_sub(pair[0]) == Some(step));
    if !is_even || behind > request.len() {
        return None;
    }
    let (mut slots, mut order) = (HashMap::<u16, usize>::new(), Vec::<(u16, Vec<u32>)>::new());
    for (place, key) in keys.iter().enumerate() {
        let slot = key_slot(request.arg(*key));
        let at = *slots.entry(slot).or_insert_with(|| {
            order.push((slot, Vec::new()));
            order.len() - 1
        });
        order[at].1.push(place as u32);
    }
    // One buffer for all.
    let mut out = BytesMut::with_capacity(request.raw().len() + order.len() * 32);
    let one = |(slot, places): (u16, Vec<u32>)| {
        let around = first + request.len() - behind;
        encode::array(&mut out, around + places.len() * step);
        let each = places.iter().flat_map(|place| (0..step).map(|i| first + *place as usize * step + i));
        for i in (0..first).chain(each).chain(behind..request.len()) {
            encode::bulk(&mut out, request.arg(i));
        }
        Cut { slot, request: out.split().freeze(), places }
    };
    Some(order.into_iter().map(one).collect())
}

/// One request with the arguments of all of these, which are parts of one; of those that are all `alike`, one.
pub fn joined<'p>(parts: impl Iterator<Item = &'p Bytes> + Clone, alike: bool) -> Option<Bytes> {
    if alike {
        return parts.last().cloned();
    }
    let after = |line: &'p Bytes| memchr::memchr(b'\n', line).map(|end| (end + 1, line));
    let count = |(end, line): (usize, &'p Bytes)| {
        let digits = line.get(1..end - 2)?;
        Some(digits.iter().fold(0, |count, digit| count * 10 + usize::from(digit - b'0')))
    };
    let all = parts.clone().map(|part| count(after(part)?)).collect::<Option<Vec<_>>>()?;
    let mut out = BytesMut::new();
    encode::array(&mut out, all.iter().sum::<usize>() + 1 - all.len());
    for (i, part) in parts.enumerate() {
        let (start, part) = after(part)?;
        // The name is said once.
        let name = memchr::memchr(b'\n', &part[start..])?;
        let name = start + name + 1 + part[start + name + 1..].iter().position(|byte| *byte == b'\n')? + 1;
        out.extend_from_slice(&part[if i == 0 { start } else { name }..]);
    }
    Some(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Table;
    use crate::resp::framer::{Limits, RequestFramer};

    fn cuts(line: &str) -> Option<Vec<String>> {
        let (table, mut framer) = (Table::builtin(), RequestFramer::new(Limits::default()));
        let line = format!("{line}\r\n");
        framer.next(line.as_bytes()).unwrap();
        let request = framer.request(line.as_bytes());
        let cuts = cut(table.lookup(&request).unwrap(), &request)?;
        let words = |cut: Cut| {
            let text = String::from_utf8_lossy(&cut.request).into_owned();
            let words: Vec<_> = text.lines().skip(2).step_by(2).map(str::to_owned).collect();
            assert!(text.starts_with(&format!("*{}\r\n", words.len())));
            format!("{} {:?}", words.join(" "), cut.places)
        };
        Some(cuts.into_iter().map(words).collect())
    }

    #[test]
    fn a_request_is_cut_by_hash_slot_and_no_key_is_lost() {
        assert_eq!(cuts("MGET {a}1 b {a}2 b").unwrap(), ["MGET {a}1 {a}2 [0, 2]", "MGET b b [1, 3]"]);
        assert_eq!(cuts("mset a 1 {b} 2 a 3").unwrap(), ["mset a 1 a 3 [0, 2]", "mset {b} 2 [1]"]);
        let parts = ["*2\r\n$3\r\nDEL\r\n$1\r\na\r\n", "*3\r\n$3\r\nDEL\r\n$1\r\nb\r\n$1\r\nc\r\n"];
        let parts = parts.map(|part| Bytes::from_static(part.as_bytes()));
        let joined = joined(parts.iter(), false).unwrap();
        assert_eq!(&joined[..], b"*4\r\n$3\r\nDEL\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n");
        assert_eq!(cuts("MSET a 1 b"), None, "a value is missing");
        assert_eq!(cuts("JSON.MGET a b $.x").unwrap(), ["JSON.MGET a $.x [0]", "JSON.MGET b $.x [1]"]);
    }
}
