//! How the server says that it stands with one of its connections.

use crate::resp::scanner::Kind;

/// How it stands with a connection, as the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The server keeps it waiting, or has read a part of a request.
    Kept,
    /// The server waits for what it says, or does not know it.
    Unheard,
}

impl Standing {
    /// From a reply to `CLIENT LIST ID` with one id; `None` if that was refused.
    pub fn of(kind: Kind, reply: &[u8]) -> Option<Self> {
        if kind == Kind::Error {
            return None;
        }
        let text = String::from_utf8_lossy(reply);
        let field = |name: &str| text.split_ascii_whitespace().find_map(|field| field.strip_prefix(name));
        let blocked = field("flags=").is_some_and(|flags| flags.contains('b'));
        let read = field("qbuf=").is_some_and(|bytes| bytes != "0");
        Some(if blocked || read { Standing::Kept } else { Standing::Unheard })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_kept_waiting_is_told_from_who_was_not_heard() {
        let of = |flags: &str, qbuf: u32| {
            let line =
                format!("$9\r\nid=7 addr=a flags={flags} db=0 qbuf={qbuf} qbuf-free=20474 cmd=set\n\r\n");
            Standing::of(Kind::Bulk, line.as_bytes())
        };
        assert_eq!(of("N", 0), Some(Standing::Unheard));
        assert_eq!(of("b", 0), Some(Standing::Kept));
        assert_eq!(of("xb", 0), Some(Standing::Kept));
        assert_eq!(of("N", 100), Some(Standing::Kept));
        assert_eq!(Standing::of(Kind::Bulk, b"$0\r\n\r\n"), Some(Standing::Unheard), "it is not known");
        assert_eq!(Standing::of(Kind::Error, b"-NOPERM\r\n"), None);
    }
}
