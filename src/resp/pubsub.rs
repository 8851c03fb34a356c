//! What a frame of pub/sub is, told by its first word: in RESP2 messages and confirmations are arrays like any
//! reply, in RESP3 they are pushes.

/// The first word of an aggregate of bulk or simple strings; empty if there is none.
pub fn message_word(frame: &[u8]) -> &[u8] {
    let mut lines =
        frame.splitn(4, |byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let _header = lines.next();
    match lines.next() {
        Some([b'$', ..]) => lines.next().unwrap_or_default(),
        Some([b'+', word @ ..]) => word,
        _ => b"",
    }
}

/// The integer at the end of a confirmation: how many channels the connection is subscribed to now.
pub fn count(frame: &[u8]) -> Option<i64> {
    let line = frame.strip_suffix(b"\r\n")?;
    let start = memchr::memrchr(b':', line)?;
    std::str::from_utf8(&line[start + 1..]).ok()?.parse().ok()
}

/// The word, if it begins the confirmation of a (un)subscription.
pub fn confirmation(word: &[u8]) -> Option<&'static [u8]> {
    [&b"subscribe"[..], b"unsubscribe", b"psubscribe", b"punsubscribe", b"ssubscribe", b"sunsubscribe"]
        .into_iter()
        .find(|known| *known == word)
}

/// Whether the word begins the confirmation of a (un)subscription.
pub fn is_confirmation(word: &[u8]) -> bool {
    confirmation(word).is_some()
}

/// Whether the word begins a message.
pub fn is_message(word: &[u8]) -> bool {
    [&b"message"[..], b"pmessage", b"smessage"].contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_told_by_their_first_word() {
        assert_eq!(message_word(b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"), b"message");
        assert_eq!(message_word(b">2\r\n+invalidate\r\n_\r\n"), b"invalidate");
        assert_eq!(message_word(b"*2\r\n:1\r\n:2\r\n"), b"");
        assert_eq!(message_word(b"*0\r\n"), b"");
        assert_eq!(count(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:12\r\n"), Some(12));
        assert!(is_confirmation(b"sunsubscribe") && !is_confirmation(b"message"));
        assert!(is_message(b"smessage") && !is_message(b"subscribe"));
    }
}
