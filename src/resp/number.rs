//! Decimal numbers: of RESP's count and length lines, and of arguments that Redis reads as strictly.

/// A number as Redis reads it (`string2ll` in util.c): an optional `-`, no `+`, no leading zero, no
/// blanks, at most 20 characters, within `i64`.
pub fn string2ll(text: &[u8]) -> Option<i64> {
    if text == b"0" {
        return Some(0);
    }
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let well_formed = matches!(digits.first(), Some(b'1'..=b'9')) && digits.iter().all(u8::is_ascii_digit);
    if !well_formed || text.len() > 20 {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The usual case, in one pass: at `at`, the marker, up to nine digits and CRLF. Gives the number and where the
/// line ends. `None` says nothing: the line may be longer, incomplete or wrong.
#[inline(always)]
pub(super) fn short_line(buf: &[u8], at: usize, marker: u8) -> Option<(usize, usize)> {
    // One and two digits, as in nearly every line, without a loop.
    if let [first, tens, ones, cr, lf, ..] = *buf.get(at..)?
        && first == marker
        && tens.is_ascii_digit()
    {
        if [ones, cr] == *b"\r\n" {
            return Some((usize::from(tens - b'0'), at + 4));
        }
        if [cr, lf] == *b"\r\n" && ones.is_ascii_digit() && tens != b'0' {
            return Some((usize::from(tens - b'0') * 10 + usize::from(ones - b'0'), at + 5));
        }
    }
    longer_line(buf, at, marker)
}

#[inline(never)]
fn longer_line(buf: &[u8], at: usize, marker: u8) -> Option<(usize, usize)> {
    let digits = buf.get(at..)?.strip_prefix(&[marker])?;
    let first = digits.first()?.wrapping_sub(b'0');
    if first > 9 {
        return None;
    }
    let most = if first == 0 { 1 } else { 9 };
    let (mut number, mut used) = (usize::from(first), 1);
    while used < most {
        let digit = digits.get(used)?.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        number = number * 10 + usize::from(digit);
        used += 1;
    }
    (digits.get(used..used + 2)? == b"\r\n").then_some((number, at + 1 + used + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_redis_reads_them() {
        for (text, number) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999", None),
            ("123456789012345678901", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("00", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("1a", None),
            ("?", None),
        ] {
            assert_eq!(string2ll(text.as_bytes()), number, "{text:?}");
        }
    }

    #[test]
    fn short_line_agrees_with_string2ll() {
        for text in [
            "0",
            "7",
            "10",
            "99",
            "900",
            "123456789",
            "",
            "-1",
            "01",
            "00",
            "+1",
            "1234567890",
            "1a",
            "a1",
            "?",
        ] {
            for (before, after) in [("", ""), ("", "r"), ("before", "rest")] {
                let line = format!("{before}${text}\r\n{after}");
                let number = string2ll(text.as_bytes()).filter(|n| (0..=999_999_999).contains(n));
                let short = number.map(|n| (n as usize, before.len() + 1 + text.len() + 2));
                assert_eq!(short_line(line.as_bytes(), before.len(), b'$'), short, "{line:?}");
                assert_eq!(short_line(line.as_bytes(), before.len(), b'*'), None, "{line:?}");
            }
        }
        for cut in ["", "$", "$1", "$12", "$12\r", "$12\rx", "$12\n", "$1\r", "$1\rxx", "$1\n\r\n"] {
            assert_eq!(short_line(cut.as_bytes(), 0, b'$'), None, "{cut:?}");
            assert_eq!(short_line(cut.as_bytes(), 9, b'$'), None, "{cut:?}");
        }
    }
}
