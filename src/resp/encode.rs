//! Writes the replies that nearside gives itself, and the requests that it makes itself.
//!
//! Every function appends one whole piece of RESP to a buffer that grows (`Vec<u8>`, `BytesMut`); with a
//! `BufMut` that does not, it panics when that is full.

use bytes::BufMut;

use super::Protocol;
use super::error::ProtocolError;

/// `+text`. CR and LF become spaces, as the line must stay one.
pub fn simple(out: &mut impl BufMut, text: &[u8]) {
    line(out, b'+', text);
}

/// `-text`, where `text` starts with the error's code (`ERR …`). CR and LF at the end go, others become
/// spaces, as in `addReplyErrorFormat` of networking.c.
pub fn error(out: &mut impl BufMut, text: &[u8]) {
    let end = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    line(out, b'-', &text[..end]);
}

/// The reply to a request that breaks the protocol, byte for byte as Redis gives it.
pub fn protocol_error(out: &mut impl BufMut, wrong: &ProtocolError) {
    match wrong {
        // Redis shows the byte as it came; in a Rust string it would become two.
        ProtocolError::ExpectedBulk(byte) if !byte.is_ascii() => {
            error(out, &[b"ERR Protocol error: expected '$', got '", &[*byte][..], b"'"].concat());
        }
        _ => error(out, wrong.to_string().as_bytes()),
    }
}

pub fn integer(out: &mut impl BufMut, number: i64) {
    header(out, b':', number.unsigned_abs(), number < 0);
}

pub fn bulk(out: &mut impl BufMut, text: &[u8]) {
    count(out, b'$', text.len());
    out.put_slice(text);
    out.put_slice(b"\r\n");
}

/// A verbatim string with its three letters of format (`txt`, `mkd`); in RESP2 a bulk string without them.
pub fn verbatim(out: &mut impl BufMut, protocol: Protocol, format: &[u8; 3], text: &[u8]) {
    match protocol {
        Protocol::Resp2 => bulk(out, text),
        Protocol::Resp3 => {
            count(out, b'=', text.len() + 4);
            out.put_slice(format);
            out.put_u8(b':');
            out.put_slice(text);
            out.put_slice(b"\r\n");
        }
    }
}

/// The null of a missing value. RESP2's null array is not needed here.
pub fn null(out: &mut impl BufMut, protocol: Protocol) {
    out.put_slice(match protocol {
        Protocol::Resp2 => b"$-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// The header of an array; its `len` elements are to follow.
pub fn array(out: &mut impl BufMut, len: usize) {
    count(out, b'*', len);
}

/// The header of a map; its `pairs` times two elements are to follow. In RESP2 a flat array.
pub fn map(out: &mut impl BufMut, protocol: Protocol, pairs: usize) {
    match protocol {
        Protocol::Resp2 => count(out, b'*', pairs * 2),
        Protocol::Resp3 => count(out, b'%', pairs),
    }
}

/// A request: the command's name and its arguments.
pub fn command(out: &mut impl BufMut, args: &[&[u8]]) {
    array(out, args.len());
    for arg in args {
        bulk(out, arg);
    }
}

fn line(out: &mut impl BufMut, marker: u8, text: &[u8]) {
    out.put_u8(marker);
    for (i, piece) in text.split(|byte| matches!(byte, b'\r' | b'\n')).enumerate() {
        if i > 0 {
            out.put_u8(b' ');
        }
        out.put_slice(piece);
    }
    out.put_slice(b"\r\n");
}

fn count(out: &mut impl BufMut, marker: u8, number: usize) {
    header(out, marker, number as u64, false);
}

fn header(out: &mut impl BufMut, marker: u8, mut number: u64, negative: bool) {
    // Filled from its end: marker, sign, at most 20 digits, CRLF.
    let mut text = [0; 24];
    let mut start = text.len() - 2;
    text[start..].copy_from_slice(b"\r\n");
    loop {
        start -= 1;
        text[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    if negative {
        start -= 1;
        text[start] = b'-';
    }
    start -= 1;
    text[start] = marker;
    out.put_slice(&text[start..]);
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn the_same_in_both_protocols() {
        assert_eq!(written(|out| simple(out, b"OK")), "+OK\r\n");
        assert_eq!(written(|out| simple(out, b"")), "+\r\n");
        assert_eq!(written(|out| error(out, b"ERR a\r\nb\n")), "-ERR a  b\r\n");
        assert_eq!(written(|out| error(out, b"\r\n")), "-\r\n");
        assert_eq!(written(|out| bulk(out, b"a\r\nb")), "$4\r\na\r\nb\r\n");
        assert_eq!(written(|out| array(out, 0)), "*0\r\n");
        assert_eq!(written(|out| command(out, &[b"GET", b""])), "*2\r\n$3\r\nGET\r\n$0\r\n\r\n");
        for number in [0, 7, 10, -1, 1_000_000, 999_999_999_999_999, i64::MAX, i64::MIN] {
            assert_eq!(written(|out| integer(out, number)), format!(":{number}\r\n"));
        }
    }

    #[test]
    fn by_protocol() {
        use Protocol::{Resp2, Resp3};
        assert_eq!(written(|out| null(out, Resp2)), "$-1\r\n");
        assert_eq!(written(|out| null(out, Resp3)), "_\r\n");
        assert_eq!(written(|out| map(out, Resp2, 7)), "*14\r\n");
        assert_eq!(written(|out| map(out, Resp3, 7)), "%7\r\n");
        assert_eq!(written(|out| verbatim(out, Resp2, b"txt", b"hi")), "$2\r\nhi\r\n");
        assert_eq!(written(|out| verbatim(out, Resp3, b"txt", b"hi")), "=6\r\ntxt:hi\r\n");
    }

    #[test]
    fn protocol_errors_stay_on_one_line_and_keep_the_byte() {
        for (byte, shown) in [(b'x', b'x'), (b'\r', b' '), (b'\n', b' '), (0xe9, 0xe9)] {
            let mut out = BytesMut::new();
            protocol_error(&mut out, &ProtocolError::ExpectedBulk(byte));
            let expected = [b"-ERR Protocol error: expected '$', got '", &[shown][..], b"'\r\n"].concat();
            assert_eq!(out, expected);
        }
    }
}
