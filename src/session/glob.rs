//! Glob-style patterns, as Redis' `KEYS` matches them.

/// Glob-style matching as in Redis' `KEYS`: `*`, `?`, `[a-z]`, `[^…]` and `\` for the next one itself.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and how much it has swallowed.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(b'?') => Some(p + 1),
            Some(b'[') => class(pattern, p, text[t]),
            Some(b'\\') if p + 1 < pattern.len() => (pattern[p + 1] == text[t]).then_some(p + 2),
            Some(byte) => (*byte == text[t]).then_some(p + 1),
            None => None,
        };
        match (step, &mut star) {
            (Some(next), _) => (p, t) = (next, t + 1),
            (None, Some((after, swallowed))) => {
                *swallowed += 1;
                (p, t) = (*after, *swallowed);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Where the pattern goes on behind the class at `p`, if `byte` is in it.
fn class(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    let mut i = p + 1;
    let not = pattern.get(i) == Some(&b'^');
    i += usize::from(not);
    let mut found = false;
    while let Some(&first) = pattern.get(i).filter(|byte| **byte != b']') {
        let escaped = first == b'\\' && i + 1 < pattern.len();
        let low = if escaped { pattern[i + 1] } else { first };
        i += 1 + usize::from(escaped);
        let high = match (pattern.get(i), pattern.get(i + 1)) {
            (Some(b'-'), Some(high)) if !escaped => {
                i += 2;
                *high
            }
            _ => low,
        };
        found |= (low.min(high)..=low.max(high)).contains(&byte);
    }
    (found != not).then_some(i + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("users/*", "users/1", true),
            ("users/*", "user/1", false),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxbxx", false),
            ("h?llo", "hello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("", "", true),
            ("", "a", false),
            ("[", "a", false),
            ("a**", "a", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
