//! The cost of framing: requests from a client, replies from the upstream.

use divan::{Bencher, black_box, counter::ItemsCount};
use nearside::resp::framer::{Frame, Limits, RequestFramer};
use nearside::resp::scanner::{ReplyScanner, Scan};

fn main() {
    divan::main();
}

/// Pipelined requests that all lie in the buffer.
#[divan::bench(args = [1, 64])]
fn frame_get(bencher: Bencher, depth: usize) {
    frame(bencher, b"*2\r\n$3\r\nGET\r\n$12\r\nusers/123456\r\n", depth);
}

#[divan::bench(args = [1, 64])]
fn frame_set(bencher: Bencher, depth: usize) {
    let set = b"*5\r\n$3\r\nSET\r\n$12\r\nusers/123456\r\n$10\r\n0123456789\r\n$2\r\nEX\r\n$4\r\n3600\r\n";
    frame(bencher, set, depth);
}

#[divan::bench(args = [1, 64])]
fn frame_inline(bencher: Bencher, depth: usize) {
    frame(bencher, b"GET users/123456\r\n", depth);
}

fn frame(bencher: Bencher, request: &[u8], depth: usize) {
    let buf = request.repeat(depth);
    let mut framer = RequestFramer::new(Limits::default());
    bencher.counter(ItemsCount::new(depth)).bench_local(|| {
        let mut rest = black_box(buf.as_slice());
        while let Ok(Frame::Request(used) | Frame::Inline(used)) = framer.next(rest) {
            black_box(framer.request(rest).len());
            rest = &rest[used..];
        }
    });
}

const REPLIES: &[(&str, &str)] = &[
    ("array", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
    ("bulk", "$5\r\nhello\r\n"),
    ("integer", ":1\r\n"),
    ("null of RESP2", "$-1\r\n"),
    ("null of RESP3", "_\r\n"),
    ("status", "+OK\r\n"),
];

/// 64 replies that all lie in the chunk.
#[divan::bench(args = REPLIES.iter().map(|(name, _)| *name))]
fn scan_64(bencher: Bencher, name: &str) {
    let reply = REPLIES.iter().find(|(known, _)| *known == name).map_or("", |(_, reply)| *reply);
    let bytes = reply.repeat(64).into_bytes();
    let mut scanner = ReplyScanner::new();
    bencher.counter(ItemsCount::new(64usize)).bench_local(|| {
        let mut rest = black_box(bytes.as_slice());
        while let Ok(Scan::Done { used, kind }) = scanner.scan(rest) {
            black_box(kind);
            rest = &rest[used..];
        }
    });
}
