//! Words in the arguments, which Redis compares without regard to ASCII case.

pub(super) fn is(word: &[u8], lower: &str) -> bool {
    word.eq_ignore_ascii_case(lower.as_bytes())
}

pub(super) fn is_any(word: &[u8], lower: &[&str]) -> bool {
    lower.iter().any(|l| is(word, l))
}
