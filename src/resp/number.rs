//! The decimal numbers of RESP's count and length lines.

/// A number as Redis reads it (`string2ll` in util.c): an optional `-`, no `+`, no leading zero, no
/// blanks, at most 20 characters, within `i64`.
pub(super) fn string2ll(text: &[u8]) -> Option<i64> {
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

/// The usual case, in one pass: up to nine digits and CRLF at the start of `bytes`. Gives the number and
/// how many bytes it took. `None` says nothing: the line may be longer, incomplete or wrong.
#[inline]
pub(super) fn short_line(bytes: &[u8]) -> Option<(usize, usize)> {
    let first = bytes.first()?.wrapping_sub(b'0');
    if first > 9 {
        return None;
    }
    let most = if first == 0 { 1 } else { 9 };
    let (mut number, mut used) = (usize::from(first), 1);
    while used < most {
        let digit = bytes.get(used)?.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        number = number * 10 + usize::from(digit);
        used += 1;
    }
    (bytes.get(used..used + 2)? == b"\r\n").then_some((number, used + 2))
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
        for text in ["0", "7", "10", "123456789", "", "-1", "01", "00", "+1", "1234567890", "1a", "?"] {
            let line = format!("{text}\r\nrest");
            let number = string2ll(text.as_bytes()).filter(|n| (0..=999_999_999).contains(n));
            let short = number.map(|n| (n as usize, text.len() + 2));
            assert_eq!(short_line(line.as_bytes()), short, "{text:?}");
        }
        for cut in ["", "1", "12", "12\r", "12\rx", "12\n"] {
            assert_eq!(short_line(cut.as_bytes()), None, "{cut:?}");
        }
    }
}
