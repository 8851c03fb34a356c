//! Why the server could not run, said in words that help.

/// Why the server could not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot listen on {at}: {cause}; {}", advice(.cause, "--listen chooses another"))]
    Listen { at: String, cause: std::io::Error },
    #[error(
        "cannot listen on {at} for the admin pages: {cause}; {}",
        advice(.cause, "each nearside on a host needs its own: --admin chooses another address, or off")
    )]
    Admin { at: String, cause: std::io::Error },
    /// A file for TLS that cannot be used.
    #[error("cannot start: {0}")]
    Tls(String),
    /// A journal of write-back that cannot be used.
    #[error("cannot start: {0}")]
    JournalFolder(String),
    #[error("cannot start: {0}")]
    Journal(#[from] crate::writeback::store::StoreError),
    /// A socket that was passed and cannot be used.
    #[error("cannot start: {0}")]
    Sockets(String),
    #[error("cannot take over: {0}; whoever serves goes on")]
    Takeover(String),
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
    #[error("cannot start: the command table or the coverage table is broken")]
    Broken,
    #[error("cannot start: a limit of {have} file descriptors leaves none for clients; raise it (ulimit -n)")]
    Files { have: usize },
    #[error("ended: a fault in nearside has stopped {0}, and nothing would be served right without it")]
    Fault(String),
    #[error("ended by a second signal, before the drain was over")]
    Forced,
}

/// What to do about an address that cannot be had.
fn advice(cause: &std::io::Error, else_choose: &str) -> String {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, NotADirectory, NotFound, PermissionDenied};
    match cause.kind() {
        AddrInUse => format!("is another nearside or Redis using it? {else_choose}"),
        AddrNotAvailable => "no interface of this host has that address".to_owned(),
        NotFound | NotADirectory => "the folder of the socket is not there: make it first".to_owned(),
        PermissionDenied => {
            "this user may not: ports below 1024 and the folder of a socket may need other rights".to_owned()
        }
        _ => else_choose.to_owned(),
    }
}
