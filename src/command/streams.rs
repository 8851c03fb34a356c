//! The options of XREAD and XREADGROUP: where the keys are, and whether the command may block.
//!
//! Invariants: an option that is not known counts as blocking, because on a shared link a mistake there
//! would stall every session.

use super::word::is;
use crate::resp::request::Request;
use std::ops::Range;

pub(super) struct StreamRead {
    pub block: bool,
    /// `None` if the arguments do not show them.
    pub keys: Option<Range<usize>>,
}

/// Each option's word and how many arguments follow it.
/// As `xreadCommand` (Redis `src/t_stream.c`), with CLAIM of 8.4 and MAXCOUNT, MAXSIZE of 8.10.
const OPTIONS: [(&str, usize); 7] =
    [("count", 1), ("block", 1), ("group", 2), ("noack", 0), ("claim", 1), ("maxcount", 1), ("maxsize", 1)];

pub(super) fn parse(req: &Request<'_>) -> StreamRead {
    // Option by option: a consumer may be called STREAMS, so that the first such word may not be the keyword.
    let mut block = false;
    let mut i = 1;
    while let Some(word) = req.get(i) {
        if is(word, "streams") {
            let rest = req.len() - i - 1;
            let keys = (rest > 0 && rest.is_multiple_of(2)).then(|| i + 1..i + 1 + rest / 2);
            return StreamRead { block, keys };
        }
        let Some((_, follow)) = OPTIONS.iter().find(|(option, _)| is(word, option)) else { break };
        block |= is(word, "block");
        i += 1 + follow;
    }
    StreamRead { block: true, keys: None }
}
