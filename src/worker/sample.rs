//! One of a batch's keys, for who looks at those that are hit most.

use crate::command::{CacheRule, Table};
use crate::process::Process;
use crate::resp::framer::{Frame, RequestFramer};

/// Requests of a batch that are looked at.
const MOST: usize = 256;

/// A batch of these requests had so many hits: one of the keys that it has read stands for them.
#[cold]
pub(super) fn sample(process: &Process, table: &Table, batch: &[u8], hits: u64) {
    let Some((weight, mut drawn)) = process.hot.draw(hits) else { return };
    let mut framer = RequestFramer::new(process.settings.limits);
    let (mut rest, mut reads, mut chosen) = (batch, 0, None);
    for _ in 0..MOST {
        let len = match framer.next(rest) {
            Ok(Frame::Request(len) | Frame::Inline(len)) => {
                let request = framer.request(rest);
                let keys = match table.lookup(&request).map(|row| row.cache(&request)) {
                    Some(CacheRule::Single) => 1,
                    Some(CacheRule::Mget) => request.len() - 1,
                    _ => 0,
                };
                if keys > 0 {
                    reads += 1;
                    // Each of those that are looked at is as likely as the others, and so is each of its keys.
                    drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let draw = drawn >> 32;
                    if draw.is_multiple_of(reads) {
                        let key = request.arg(1 + (draw / reads) as usize % keys);
                        chosen = Some((key.to_vec(), keys as u64));
                    }
                }
                len
            }
            Ok(Frame::Skip(len)) => len,
            Ok(Frame::Incomplete { .. }) | Err(_) => break,
        };
        rest = &rest[len..];
    }
    if let Some((key, keys)) = chosen {
        process.hot.note(&key, weight.saturating_mul(keys));
    }
}
