//! What a reply to one of nearside's own questions is: an answer, a refusal, or "not now".
//!
//! A refusal holds until rights, names or the server change; "not now" is the server's state of the moment, and as
//! good as no answer.

use crate::resp::scanner::Kind;

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Answer,
    /// The user may not, or the server cannot.
    Refused,
    /// `-BUSY`, `-LOADING`, `-MASTERDOWN` and the like: the same question may be answered in a moment.
    NotNow,
}

impl Said {
    /// Redis gives what passes a code of its own; what is wrong for good is `-ERR` or about rights. A service that says
    /// `-ERR` of what passes says that in its words.
    pub fn of(kind: Kind, reply: &[u8]) -> Self {
        const CODES: [&[u8]; 6] = [b"ERR", b"NOPERM", b"NOAUTH", b"WRONGPASS", b"NOPROTO", b"DENIED"];
        const PASSES: [&str; 5] = ["try again", "timeout", "timed out", "temporar", "unavailable"];
        if kind != Kind::Error {
            return Said::Answer;
        }
        // `-CODE text`, or RESP3's `!<length>\r\nCODE text`.
        let text = match reply {
            [b'!', rest @ ..] => rest.splitn(2, |byte| *byte == b'\n').nth(1).unwrap_or_default(),
            _ => reply.get(1..).unwrap_or_default(),
        };
        let code = text.split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
        let said = String::from_utf8_lossy(text).to_ascii_lowercase();
        match CODES.contains(&code) && !PASSES.iter().any(|words| said.contains(words)) {
            true => Said::Refused,
            false => Said::NotNow,
        }
    }

    /// Whether this reply to a `PING` proves that all that the server had sent before has come, and that it was itself
    /// then. A refusal does, and so does a server that cannot save (`-MISCONF`, which it says to `PING` too).
    pub fn proves(kind: Kind, reply: &[u8]) -> bool {
        Self::of(kind, reply) != Said::NotNow || reply.starts_with(b"-MISCONF")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_stays() {
        let of = |reply: &str| Said::of(Kind::Error, reply.as_bytes());
        for refusal in [
            "-NOPERM this user has no permissions to run the 'client|id' command\r\n",
            "-ERR unknown command 'CLIENT', with args beginning with: 'ID' \r\n",
            "-ERR Unknown subcommand or wrong number of arguments for 'TRACKING'. Try CLIENT HELP\r\n",
            "-NOAUTH Authentication required.\r\n",
            "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
            "!21\r\nERR unknown command 'X'\r\n",
        ] {
            assert_eq!(of(refusal), Said::Refused, "{refusal}");
        }
        for passing in [
            "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n",
            "-LOADING Redis is loading the dataset in memory\r\n",
            "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
            "-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
            "-ERR upstream temporarily out of reach\r\n",
            "-no upstream host\r\n",
            "-\r\n",
        ] {
            assert_eq!(of(passing), Said::NotNow, "{passing}");
            assert!(!Said::proves(Kind::Error, passing.as_bytes()), "{passing}");
        }
        assert_eq!(Said::of(Kind::Simple, b"+PONG\r\n"), Said::Answer);
        assert!(Said::proves(Kind::Error, b"-MISCONF Redis is configured to save RDB snapshots\r\n"));
    }
}
