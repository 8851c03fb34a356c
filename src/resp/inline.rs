//! Inline commands: a line of words, as typed into a terminal.

/// The words of an inline command as Redis splits them (`sdssplitargs` in sds.c): blanks separate,
/// `"…"` knows the escapes `\n \r \t \b \a \xHH`, `'…'` knows only `\'`. `None`: a quote is not closed, or
/// something other than a blank follows the closing one.
///
/// `line` comes without its line end and holds no NUL.
pub(super) fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        while let [blank, tail @ ..] = rest
            && is_space(*blank)
        {
            rest = tail;
        }
        if rest.is_empty() {
            return Some(words);
        }
        let (word, tail) = word(rest)?;
        words.push(word);
        rest = tail;
    }
}

enum Quote {
    None,
    Double,
    Single,
}

/// The word at the start of `rest`, and what follows it.
fn word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    let mut quote = Quote::None;
    loop {
        rest = match (&quote, rest) {
            (Quote::None, [] | [b' ' | b'\n' | b'\r' | b'\t', ..]) => return Some((word, rest)),
            (Quote::None, [b'"', tail @ ..]) => {
                quote = Quote::Double;
                tail
            }
            (Quote::None, [b'\'', tail @ ..]) => {
                quote = Quote::Single;
                tail
            }
            (Quote::Double, [b'\\', b'x', high, low, tail @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex(*high) * 16 + hex(*low));
                tail
            }
            (Quote::Double, [b'\\', escaped, tail @ ..]) => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                tail
            }
            (Quote::Single, [b'\\', b'\'', tail @ ..]) => {
                word.push(b'\'');
                tail
            }
            (Quote::Double, [b'"', tail @ ..]) | (Quote::Single, [b'\'', tail @ ..]) => {
                let closed = tail.first().is_none_or(|next| is_space(*next));
                return closed.then_some((word, tail));
            }
            (Quote::Double | Quote::Single, []) => return None,
            (_, [byte, tail @ ..]) => {
                word.push(*byte);
                tail
            }
        };
    }
}

/// C's `isspace`. It separates words and may follow a closing quote, but VT and FF do not end a bare word.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_as_sdssplitargs() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            (" \t\x0b\x0c ", &[]),
            ("PING", &["PING"]),
            ("  SET  k   v ", &["SET", "k", "v"]),
            ("SET k \"a b\"", &["SET", "k", "a b"]),
            ("SET k 'a b'", &["SET", "k", "a b"]),
            (r#"SET k "a\"b\\\n\r\t\b\a\q""#, &["SET", "k", "a\"b\\\n\r\t\u{8}\u{7}q"]),
            (r#"GET "\x41\x6a\x6J""#, &["GET", "Ajx6J"]),
            (r"GET 'it\'s \n'", &["GET", r"it's \n"]),
            (r#"GET """#, &["GET", ""]),
            ("GET ''", &["GET", ""]),
            (r#"GET a"b c" d"#, &["GET", "ab c", "d"]),
            (r"GET a\n", &["GET", r"a\n"]),
            ("GET a\x0bb", &["GET", "a\x0bb"]),
            ("GET \"a\"\x0bb", &["GET", "a", "b"]),
            ("GET a\rb", &["GET", "a", "b"]),
        ];
        for (line, words) in cases {
            let expected: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
            assert_eq!(split(line.as_bytes()), Some(expected), "{line:?}");
        }
    }

    #[test]
    fn unbalanced_quotes() {
        let lines = ["\"", "'", "GET \"a", "GET 'a", "GET \"a\"b", "GET 'a'b", "GET a\"b c\"d"];
        for line in lines.into_iter().chain(["GET \"a\\", "GET \"\\\"", "GET 'a\\'"]) {
            assert_eq!(split(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn any_byte_by_hex() {
        for byte in 0..=255u8 {
            let line = format!("ECHO \"\\x{byte:02x}\\x{byte:02X}\"");
            assert_eq!(split(line.as_bytes()), Some(vec![b"ECHO".to_vec(), vec![byte, byte]]));
        }
    }
}
