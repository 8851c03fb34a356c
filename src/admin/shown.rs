//! Keys as they are shown, and as they are asked for.

use std::fmt::Write as _;

/// Bytes as `redis-cli` shows them, without the quotes around: printable ASCII as it is, but for `"` and `\`.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'"' => shown.push_str("\\\""),
            b'\\' => shown.push_str("\\\\"),
            b'\n' => shown.push_str("\\n"),
            b'\r' => shown.push_str("\\r"),
            b'\t' => shown.push_str("\\t"),
            0x07 => shown.push_str("\\a"),
            0x08 => shown.push_str("\\b"),
            b' '..=b'~' => shown.push(char::from(*byte)),
            _ => drop(write!(shown, "\\x{byte:02x}")),
        }
    }
    shown
}

/// Bytes as they stand in a query.
pub(super) fn in_query(bytes: &[u8]) -> String {
    percent_encoding::percent_encode(bytes, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_as_redis_cli_does() {
        let key = b"a \"b\" \\ \n\r\t\x07\x08\x00\x7f\xc3\xa4<i>";
        assert_eq!(escaped(key), r#"a \"b\" \\ \n\r\t\a\b\x00\x7f\xc3\xa4<i>"#);
    }

    #[test]
    fn a_query_holds_any_bytes() {
        assert_eq!(in_query(b"a+b/c \x00\xff<&"), "a%2Bb%2Fc%20%00%FF%3C%26");
    }
}
