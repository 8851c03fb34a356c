//! Requests for this room's tests, from words.

use super::{KeySet, KeyUse, Kind, Table};
use crate::resp::request::{ArgRange, Request};

pub(super) struct Sample {
    raw: Vec<u8>,
    args: Vec<ArgRange>,
}

impl Sample {
    pub fn new<A: AsRef<[u8]>>(words: impl IntoIterator<Item = A>) -> Self {
        let (mut raw, mut args) = (Vec::new(), Vec::new());
        for word in words {
            let word = word.as_ref();
            args.push(ArgRange { start: raw.len() as u32, len: word.len() as u32 });
            raw.extend_from_slice(word);
            raw.extend_from_slice(b"\r\n");
        }
        Self { raw, args }
    }

    /// Words set apart by spaces; `''` is an empty one.
    pub fn line(line: &str) -> Self {
        Self::new(line.split(' ').map(|word| if word == "''" { "" } else { word }))
    }

    pub fn req(&self) -> Request<'_> {
        Request::new(&self.raw, &self.args)
    }
}

/// What the table says of the keys: `src-` deleted, `dst+` updated, `k` read, and a last `?` for Unknown, `*` for All.
pub(super) fn keys(table: &Table, line: &str) -> String {
    let sample = Sample::line(line);
    let req = sample.req();
    let mut found = Vec::new();
    let set = table.lookup(&req).expect("a known command").keys(&req, |i, usage| {
        let mark = match usage {
            KeyUse::Read => "",
            KeyUse::Update => "+",
            KeyUse::Delete => "-",
        };
        found.push(format!("{}{mark}", String::from_utf8_lossy(req.arg(i))));
    });
    match set {
        KeySet::Known => {}
        KeySet::Unknown => found.push("?".into()),
        KeySet::All => found.push("*".into()),
    }
    found.join(" ")
}

pub(super) fn kind(table: &Table, line: &str) -> Kind {
    let sample = Sample::line(line);
    table.lookup(&sample.req()).expect("a known command").kind(&sample.req())
}
