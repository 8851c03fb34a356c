//! What the command table costs each request.

use divan::{Bencher, black_box};
use nearside::command::Table;
use nearside::resp::request::{ArgRange, Request};

fn main() {
    divan::main();
}

const REQUESTS: [&str; 7] = [
    "GET users:1",
    "SET users:1 x",
    "HSET users:1 f v",
    "mget a b c",
    "CLIENT SETNAME x",
    "GEORADIUSBYMEMBER_RO k m 1 m",
    "NOSUCHTHING k",
];

fn lay(line: &str) -> (Vec<u8>, Vec<ArgRange>) {
    let (mut raw, mut args) = (Vec::new(), Vec::new());
    for word in line.split(' ') {
        args.push(ArgRange { start: raw.len() as u32, len: word.len() as u32 });
        raw.extend_from_slice(word.as_bytes());
        raw.extend_from_slice(b"\r\n");
    }
    (raw, args)
}

#[divan::bench(args = REQUESTS)]
fn lookup(bencher: Bencher<'_, '_>, line: &str) {
    let table = Table::builtin();
    let (raw, args) = lay(line);
    bencher.bench(|| table.lookup(black_box(&Request::new(&raw, &args))).map(|row| row.id));
}

/// Look-up, kind, cache rule and keys: all that a session asks.
#[divan::bench(args = REQUESTS)]
fn classify(bencher: Bencher<'_, '_>, line: &str) {
    let table = Table::builtin();
    let (raw, args) = lay(line);
    bencher.bench(|| {
        let req = Request::new(&raw, &args);
        let row = table.lookup(black_box(&req))?;
        let mut keys = 0;
        let set = row.keys(&req, |i, _| keys += i);
        Some((row.kind(&req), row.cache(&req), set, keys))
    });
}
