//! The elements of an array that comes in pieces.

use crate::resp::scanner::{Kind, ReplyScanner, Scan};

/// The longest element of a transaction's reply that is looked into, in bytes.
const HELD: usize = 64 << 10;

/// Cuts an array that comes in pieces into its elements.
#[derive(Default)]
pub(super) struct Elements {
    scanner: ReplyScanner,
    /// The present one's number, and what has come of it if that is not much.
    i: usize,
    held: Vec<u8>,
}

impl Elements {
    /// A piece of the array came, the first of it or another; tells of each element that is whole.
    pub(super) fn scan(&mut self, chunk: &[u8], first: bool, mut found: impl FnMut(usize, Kind, &[u8])) {
        // The first piece holds at least the array's header.
        let header = if first { memchr::memchr(b'\n', chunk).map_or(chunk.len(), |end| end + 1) } else { 0 };
        let mut rest = &chunk[header..];
        while !rest.is_empty() {
            match self.scanner.scan(rest) {
                Ok(Scan::Done { used, kind }) => {
                    let (element, behind) = rest.split_at(used);
                    match self.held.is_empty() {
                        true => found(self.i, kind, element),
                        false => {
                            self.held.extend_from_slice(element);
                            found(self.i, kind, &self.held);
                            self.held = Vec::new();
                        }
                    }
                    self.i += 1;
                    rest = behind;
                }
                Ok(Scan::More) => {
                    if self.held.len() + rest.len() <= HELD {
                        self.held.extend_from_slice(rest);
                    }
                    return;
                }
                // The link's own scanner has seen the same bytes.
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_however_they_are_cut() {
        let reply = b"*4\r\n+OK\r\n*2\r\n$7\r\nmessage\r\n:1\r\n-ERR x\r\n$-1\r\n";
        let expected = [
            (0, Kind::Simple, &b"+OK\r\n"[..]),
            (1, Kind::Aggregate, b"*2\r\n$7\r\nmessage\r\n:1\r\n"),
            (2, Kind::Error, b"-ERR x\r\n"),
            (3, Kind::Null, b"$-1\r\n"),
        ];
        for cut in 4..reply.len() {
            let (mut elements, mut all) = (Elements::default(), Vec::new());
            let (a, b) = reply.split_at(cut);
            for (first, piece) in [(true, a), (false, b)] {
                elements.scan(piece, first, |i, kind, bytes| all.push((i, kind, bytes.to_vec())));
            }
            let all: Vec<_> = all.iter().map(|(i, kind, bytes)| (*i, *kind, &bytes[..])).collect();
            assert_eq!(all, expected, "cut at {cut}");
        }
    }

    #[test]
    fn only_so_much_is_held_of_an_element() {
        let reply =
            [format!("*2\r\n${}\r\n", HELD).into_bytes(), vec![b'x'; HELD], b"\r\n:1\r\n".to_vec()].concat();
        for cut in [20, 1000, HELD + 4, HELD + 10] {
            let (mut elements, mut found) = (Elements::default(), Vec::new());
            let (a, b) = reply.split_at(cut);
            for (first, piece) in [(true, a), (false, b)] {
                elements.scan(piece, first, |i, kind, _| found.push((i, kind)));
                assert!(elements.held.len() <= HELD, "cut at {cut}");
            }
            assert_eq!(found, [(0, Kind::Bulk), (1, Kind::Integer)], "cut at {cut}");
        }
        // Just as much is held whole.
        let (mut elements, mut whole) = (Elements::default(), Vec::new());
        let (a, b) = reply.split_at(4 + HELD);
        elements.scan(a, true, |_, _, _| ());
        elements.scan(b, false, |i, _, bytes| whole.extend((i == 0).then_some(bytes.len())));
        assert_eq!(whole, [reply.len() - 8]);
    }
}
