//! What becomes of a configuration that is not valid: its problems are told, and nothing runs.

use std::io::Write;
use std::process::ExitCode;

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
