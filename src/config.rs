//! Settings: from flags, environment and file, as typed, to one validated [`Config`].
//!
//! Whoever holds a `Config` need not check anything again: every value is in range, and the values go
//! together. No port is opened and nothing is connected to here; what is wrong is told all at once, with
//! the place where it was written. A password is never shown.
//!
//! `main` asks for an [`Invocation`]; every other room gets the `Config`, or a part of it.

mod address;
mod cli;
mod commands;
mod draft;
mod file;
mod namespace;
mod password;
mod settings;
mod value;

use std::io::Write;
use std::process::ExitCode;

pub use address::{Address, HostPort, Listen, Secret, Upstream};
pub use cli::{Invocation, Task};
pub use commands::CACHEABLE;
pub use namespace::Namespace;
pub use settings::Config;

/// Who asks clients for a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    Upstream,
    /// nearside itself, for [`Config::password`].
    Password,
}

/// What an announced update does to a cached key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUpdate {
    /// It is dropped.
    Invalidate,
    /// It is fetched anew if it was read since its last fill, and dropped otherwise.
    Refresh,
}

/// What is asked of the upstream by CLIENT TRACKING.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracking {
    /// Changes of the keys that were read.
    Keys,
    /// Changes of every key with a prefix, read or not.
    Prefix,
    /// Nothing: only the keys of namespaces can be cached.
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    /// One JSON object for each line.
    Json,
}

impl Config {
    /// What is valid and yet may not be meant, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let open = self.listen.iter().filter(|listen| self.auth != Auth::Password && listen.is_open());
        let warning = |listen: &Listen| {
            format!(
                "listen: {listen} can be reached from other hosts, and whoever connects acts with the rights of the \
                 upstream URL's user: listen on 127.0.0.1 or a Unix socket, or set auth = \"password\""
            )
        };
        open.map(warning).collect()
    }

    /// What is in effect, as names and values of the file, passwords hidden: the answer of
    /// `NEARSIDE CONFIG`.
    pub fn describe(&self) -> Vec<(String, String)> {
        settings::settings().iter().flat_map(|setting| (setting.show)(self)).collect()
    }
}

/// Why there is no configuration to run with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line could not be read, or asked for help or the version.
    #[error("{0}")]
    Usage(clap::Error),
    /// Each problem in one line, with the place where it was written.
    #[error("nearside: {}", .0.join("\nnearside: "))]
    Invalid(Vec<String>),
}

impl ConfigError {
    /// Tells the user, and gives the exit code: 2, or 0 for help and version.
    pub fn tell(&self) -> ExitCode {
        match self {
            ConfigError::Usage(error) => {
                // A closed standard output leaves nobody to tell.
                let _ = error.print();
                if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
            }
            ConfigError::Invalid(_) => {
                let _ = writeln!(std::io::stderr(), "{self}");
                ExitCode::from(2)
            }
        }
    }
}
