//! What a tunnel begins with: what was said on the session's own connection, and the request that makes one of it.

use bytes::Bytes;

/// What is kept of what was said on a session's own connection, in bytes.
const SAID: usize = 16 << 10;

/// What the server has to be told before the tunnel begins, as it was on the session's own connection.
#[derive(Clone, Default)]
pub struct Said {
    pub commands: Vec<u8>,
    pub number: usize,
}

impl Said {
    pub fn add(&mut self, command: &[u8]) {
        if self.commands.len() + command.len() <= SAID {
            self.commands.extend_from_slice(command);
            self.number += 1;
        }
    }
}

/// The session is to become a tunnel.
pub struct Wanted {
    pub said: Said,
    pub request: Bytes,
    /// A script's, which may write.
    pub writes: bool,
}
