//! What a client reads when nearside itself has to refuse something: each wording stands here, once.

use crate::upstream::{Address, ConnectError, Loss};

/// An error line as it is sent.
pub fn line(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 3);
    crate::resp::encode::error(&mut out, text.as_bytes());
    out
}

/// A request has no reply because its link was lost or cannot be made.
pub fn lost(address: &Address, loss: &Loss) -> String {
    let fate = match loss.sent {
        true => "the reply was lost; the command may have been executed",
        false => "the command was not sent",
    };
    format!("ERR nearside: upstream {address}: {}; {fate}", loss.cause)
}

/// A step of changing the connection's identity failed: the upstream's own words if it has any.
pub fn refused(address: &Address, loss: &Loss) -> Vec<u8> {
    match &loss.cause {
        ConnectError::Refused(raw) => raw.to_vec(),
        ConnectError::Io(_) => line(&lost(address, loss)),
    }
}

pub const MAX_CLIENTS: &str = "ERR max number of clients reached";

/// As Redis words it.
pub const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

/// As Redis words it.
pub const NOPROTO: &str = "NOPROTO unsupported protocol version";

/// As Redis words it.
pub const BAD_VERSION: &str = "ERR Protocol version is not an integer or out of range";

/// As Redis words it.
pub fn hello_option(option: &[u8]) -> String {
    format!("ERR Syntax error in HELLO option '{}'", String::from_utf8_lossy(option))
}
