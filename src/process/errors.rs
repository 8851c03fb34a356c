//! What a client reads when nearside itself has to refuse something: each wording stands here, once.

use crate::resp::request::Request;
use crate::resp::scanner::Kind;
use crate::upstream::{ConnectError, Location, Loss, Said};

/// An error line as it is sent.
pub fn line(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 3);
    crate::resp::encode::error(&mut out, text.as_bytes());
    out
}

/// A request has no reply because its link was lost or cannot be made.
pub fn lost(address: &Location, loss: &Loss) -> String {
    if let ConnectError::Refused(raw) = &loss.cause
        && Said::of(Kind::Error, raw) == Said::NotNow
    {
        // As it would have said to the request.
        return String::from_utf8_lossy(raw).trim_end().trim_start_matches('-').to_string();
    }
    if let ConnectError::Refused(raw) = &loss.cause
        && raw.starts_with(b"-NOAUTH")
    {
        // Likewise, in place of what it says to `HELLO`.
        return NOAUTH.into();
    }
    let fate = match loss.sent {
        true => FATE_UNKNOWN,
        false => "the command was not sent",
    };
    format!("ERR nearside: upstream {address}: {}; {fate}", loss.cause)
}

/// How an error ends whose command may have been executed.
const FATE_UNKNOWN: &str = "the reply was lost; the command may have been executed";

/// Whether the command that was answered with this error may have been executed. Upstream servers say so by no error.
pub fn may_be_done(reply: &[u8]) -> bool {
    reply.strip_suffix(b"\r\n").is_some_and(|line| line.ends_with(FATE_UNKNOWN.as_bytes()))
}

/// What nodes have answered does not fit together.
pub const MISFITS: &str = "ERR nearside: the replies of the cluster's nodes do not fit together";

/// More was answered than is held.
pub fn too_large(limit: usize) -> String {
    format!(
        "ERR nearside: the replies of the cluster's nodes are too large to be put together (four times client-output-limit, \
         {limit} bytes)"
    )
}

pub const TOO_MANY_OWN: &str = "ERR nearside: too many connections are in use by requests that have one of their own to \
     every node of the cluster (max-links); try again";

/// As Redis words it.
pub const BAD_CURSOR: &str = "ERR invalid cursor";

/// A scan has no end.
pub const SCAN_GIVEN_UP: &str =
    "ERR nearside: the scan was given up, because hash slots move faster than it comes on; begin it anew";

/// The text of an error line.
fn text_of(reply: &[u8]) -> String {
    String::from_utf8_lossy(reply).trim_end().trim_start_matches('-').to_owned()
}

/// One node answered with this error, and others did not.
pub fn failed_at(reply: &[u8], node: &str) -> String {
    let text = text_of(reply);
    match text.contains(node) {
        true => text,
        false => format!("{text} (nearside: so said {node}, and other nodes did not)"),
    }
}

/// A part of a request failed so; of the others some were carried out.
pub fn done_in_part(
    reply: &[u8],
    done: &Option<String>,
    unsure: &Option<String>,
    undone: &Option<String>,
) -> String {
    let told = |what: &str, names: &Option<String>| names.as_ref().map(|names| format!("{what}: {names}"));
    let parts = [told("done", done), told("perhaps done", unsure), told("not done", undone)];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    format!("ERR nearside: carried out in part; {}; the first error: {}", parts.join("; "), text_of(reply))
}

/// A step of changing the connection's identity failed: the upstream's own words if it has any.
pub fn refused(address: &Location, loss: &Loss) -> Vec<u8> {
    match &loss.cause {
        ConnectError::Refused(raw) => raw.to_vec(),
        ConnectError::Io(_) | ConnectError::TurnedAway(_) => line(&lost(address, loss)),
    }
}

pub const MAX_CLIENTS: &str = "ERR max number of clients reached";

/// A client has left its replies untaken.
pub fn untaken(limit: usize) -> String {
    format!(
        "ERR nearside: closed, because more than {limit} bytes of replies were left untaken (client-output-limit) while \
         nothing was read for client-stall-timeout; read replies while you send requests, or send fewer at a time"
    )
}

/// A reply was begun that has no end.
pub const LATE: &str = "ERR nearside: the upstream refused a later part of the reply";

/// As Redis words it.
pub const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

/// As Redis words it.
pub const NOPROTO: &str = "NOPROTO unsupported protocol version";

/// As Redis words it.
pub const BAD_VERSION: &str = "ERR Protocol version is not an integer or out of range";

/// As Redis words it.
pub const NOAUTH: &str = "NOAUTH Authentication required.";

/// As Redis words it.
pub const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";

/// As Redis words it.
pub const NOAUTH_HELLO: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
     HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
     the same time";

/// As Redis words it.
pub const SYNTAX: &str = "ERR syntax error";

pub const UNKNOWN_FILTER: &str =
    "ERR nearside: CLIENT KILL has an option that nearside does not know; nobody was closed";

pub const AUTH_IN_MULTI: &str =
    "ERR nearside: a login in a transaction is not possible when nearside asks for the password";

/// Redis would leave the reply to `EXEC` without its end.
pub const REPLY_IN_MULTI: &str =
    "ERR nearside: CLIENT REPLY OFF and SKIP cannot be part of a transaction; it goes on without them";

/// As Redis' `commandCheckExistence` words it, up to 128 bytes of the arguments; an error stays on one line.
pub fn unknown_command(request: &Request<'_>) -> String {
    const SHOWN: usize = 128;
    let mut args = String::new();
    for arg in request.args().skip(1) {
        let left = SHOWN.saturating_sub(args.len());
        if left == 0 {
            break;
        }
        args += &format!("'{}' ", shown(arg, left));
    }
    let name = shown(request.arg(0), SHOWN);
    format!("ERR unknown command '{name}', with args beginning with: {args}")
}

/// As Redis' `commandCheckExistence` words it, of a container's request with more than its name.
pub fn unknown_subcommand(request: &Request<'_>) -> String {
    let container = String::from_utf8_lossy(request.arg(0)).to_uppercase();
    format!("ERR unknown subcommand '{}'. Try {container} HELP.", shown(request.arg(1), 128))
}

/// As Redis words it.
pub fn wrong_arity(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

/// The first bytes of an argument; as a C string, it ends at a NUL.
fn shown(arg: &[u8], most: usize) -> String {
    let arg = &arg[..arg.len().min(most)];
    let end = memchr::memchr(0, arg).unwrap_or(arg.len());
    String::from_utf8_lossy(&arg[..end]).into_owned()
}

/// As Redis words it.
pub fn hello_option(option: &[u8]) -> String {
    format!("ERR Syntax error in HELLO option '{}'", String::from_utf8_lossy(option))
}

/// As Redis words it.
pub const CROSS_SLOT: &str = "CROSSSLOT Keys in request don't hash to the same slot";

/// As Redis words it, of what a subscriber says in RESP2.
pub fn subscribed(name: &str) -> String {
    format!(
        "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
    )
}

/// As Redis words it, behind a command that was refused.
pub const EXECABORT: &[u8] = b"-EXECABORT Transaction discarded because of previous errors.\r\n";

/// No node has taken a transaction.
pub const NOT_BEGUN: &str =
    "ERR nearside: no connection to the node of the transaction's keys; nothing was executed";

/// Changes of keys come from many nodes, and a connection of the client's tracks what it reads on one.
pub const TRACKING_MANY: &str = "ERR nearside: CLIENT TRACKING is not possible in front of a cluster; nearside itself caches what is \
     read, coherently";

/// Its subscriptions are on connections of their own.
pub const HELLO_HEARING: &str = "ERR nearside: in front of a cluster a subscriber stays who it is; unsubscribe first, or use another connection";

/// As Redis words it.
pub const NO_CLUSTER: &str = "ERR This instance has cluster support disabled";

/// Nearside stands for the cluster, and changes nothing about it.
pub const TO_THE_NODES: &str = "ERR nearside: this is for the cluster's own nodes; say it to them";

/// Said in another form than this.
pub fn usage(form: &str) -> String {
    format!("ERR syntax error: {form}")
}

pub const NOT_YOURS: &str = "NOPERM nearside: only nearside's own user may see what was written here and did not become the \
     upstream's";

/// A write that was acknowledged here stands in the way of a request, and could not be flushed.
pub fn unflushed(namespace: &str, said: &str) -> String {
    let said = if said.is_empty() { "it did not answer in time" } else { said };
    format!(
        "ERR nearside: writes of namespace {namespace} that were acknowledged here could not be flushed to the upstream \
         ({said}); this command waits for them and was not executed; try again"
    )
}

/// A write that could be acknowledged here has no room.
pub fn no_room(namespace: &str) -> String {
    format!(
        "ERR nearside: the write was not taken: the journal of namespace {namespace} is full (journal-max), and the upstream \
         cannot be reached to flush it; raise journal-max, or try again"
    )
}
