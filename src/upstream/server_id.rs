//! Which server a connection leads to: a name, or a proxy, may lead one connection to another than the next.

/// Asks for it.
pub const ASK: &[u8] = b"*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n";

/// One run of one server, told by its `run_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerId([u8; 20]);

impl ServerId {
    /// From the reply to [`ASK`]; `None` if it does not say, or is an error.
    pub fn of(reply: &[u8]) -> Option<Self> {
        const FIELD: &[u8] = b"run_id:";
        let at = memchr::memmem::find(reply, FIELD)? + FIELD.len();
        let id = reply.get(at..at + 20)?;
        Some(Self(id.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_read_from_the_reply() {
        let reply = |id: &str| format!("$99\r\n# Server\r\nrun_id:{id}\r\ntcp_port:1\r\n\r\n").into_bytes();
        let one = "0123456789012345678901234567890123456789";
        assert_eq!(ServerId::of(&reply(one)), ServerId::of(&reply(one)));
        assert_ne!(ServerId::of(&reply(one)), ServerId::of(&reply(&one.replace('0', "f"))));
        assert_eq!(ServerId::of(b"-NOPERM\r\n"), None);
        assert_eq!(ServerId::of(b"$7\r\nrun_id:\r\n"), None);
    }
}
