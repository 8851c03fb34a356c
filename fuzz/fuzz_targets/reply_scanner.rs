//! Any bytes, cut anywhere, give the same replies; nothing panics, and what the scanner delimits the decoder
//! survives.
//!
//! Run with `cargo +nightly fuzz run reply_scanner`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nearside::resp::scanner::{Kind, ReplyScanner, Scan};
use nearside::resp::{ReplyError, decode};

#[path = "../../src/resp/scanner/splits.rs"]
mod splits;

fuzz_target!(|input: (u64, &[u8])| {
    let (seed, bytes) = input;
    let mut start = 0;
    for (end, _) in splits::same_however_cut(bytes, seed).replies {
        let _ = decode::decode(&bytes[start..end], 32);
        start = end;
    }
});
