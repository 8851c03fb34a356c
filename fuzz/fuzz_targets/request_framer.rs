//! Any bytes, cut anywhere, give the same requests; nothing panics.
//!
//! Run with `cargo +nightly fuzz run request_framer`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nearside::resp::ProtocolError;
use nearside::resp::framer::{Frame, Limits, RequestFramer};
use nearside::resp::request::Request;

#[path = "../../src/resp/framer/splits.rs"]
mod splits;

fuzz_target!(|input: (u64, &[u8])| {
    let (seed, bytes) = input;
    splits::same_however_cut(Limits::default(), bytes, seed);
    let small = Limits { max_bulk: 12, max_args: 3, max_inline: 16, max_request: 40 };
    splits::same_however_cut(small, bytes, seed);
});
