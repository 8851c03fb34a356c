//! Where nearside has the password from that it gives upstream, if that may change: a file, or a program.
//!
//! Invariants:
//! - What cannot be had (a file that is empty for a moment, a program that fails) changes nothing: the password before is
//!   kept, it is counted, told now and then, and tried again. Without one before, nearside runs, is not ready, and says why.
//! - A new one is taken within a second of a file's change, whatever way it was changed: its content is compared, for a
//!   symbolic link that leads elsewhere, or another file of that name, tells no watcher of the old one.
//! - When the upstream refuses the newest, it is read anew at once: there may be a newer one. So it is on SIGHUP.
//! - A program is never run twice at a time, and nobody waits for it but those that have no password at all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::program;
use crate::config::{Config, PASSWORD_READ, Secret, password_of, read_password};
use crate::process::Process;
use crate::upstream::backoff;

/// How often a file is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How long a program may take.
const RUN: Duration = Duration::from_secs(30);

/// After how long it is run again when it has failed, or is run though it is not time for it yet.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// See the [module](self).
pub(super) enum Source {
    File(PathBuf),
    Program { words: Vec<String>, every: Duration },
}

impl Source {
    /// What the configuration names, if anything.
    pub(super) fn of(config: &Config) -> Option<Self> {
        let every = config.upstream_password_refresh;
        let program = || Some(Self::Program { words: config.upstream_password_command.clone()?, every });
        config.upstream_password_file.clone().map(Self::File).or_else(program)
    }

    pub(super) async fn read(&self) -> Result<Secret, String> {
        match self {
            Self::File(path) => {
                let (path, shown) = (path.clone(), path.display());
                // A file system that does not answer must keep nobody else waiting.
                let read = tokio::task::spawn_blocking(move || read_password(&path)).await;
                let read = read.unwrap_or_else(|_| Err("it cannot be read".to_owned()));
                read.map_err(|why| format!("upstream-password-file: {shown}: {why}"))
            }
            Self::Program { words, every } => {
                let said = program::run(words, PASSWORD_READ, RUN.min(*every)).await;
                let read = said.and_then(|said| {
                    password_of(said).map_err(|why| format!("what it printed is of no use: {why}"))
                });
                let program = words.first().map(String::as_str).unwrap_or_default();
                read.map_err(|why| format!("upstream-password-command: {program}: {why}"))
            }
        }
    }

    /// When it is read again as a rule, after so many failures in a row.
    fn pause(&self, failures: u32) -> Duration {
        match self {
            Self::File(_) => LOOK,
            Self::Program { every, .. } => match failures {
                0 => *every,
                failures => backoff(AGAIN, failures - 1).min(*every),
            },
        }
    }

    /// How long it rests at least before it is read again on somebody's wish, after so many wishes in a row.
    fn rest(&self, wishes: u32) -> Duration {
        match self {
            Self::File(_) => LOOK / 10,
            Self::Program { .. } if wishes == 0 => Duration::ZERO,
            Self::Program { .. } => backoff(AGAIN, wishes - 1),
        }
    }
}

/// Keeps nearside's own password up to date. Runs until it is dropped.
pub(super) async fn keep(source: Source, process: Arc<Process>, mut reread: watch::Receiver<()>) {
    let own = &process.settings.upstream.own;
    let (mut failures, mut wishes) = (0, 0u32);
    loop {
        match source.read().await {
            Ok(password) => {
                failures = 0;
                process.metrics.passwords_failed_told.over();
                if own.take(password.expose().as_bytes().to_vec()) {
                    wishes = 0;
                    process.metrics.passwords.inc();
                    info!("nearside has a new password for the upstream");
                }
            }
            Err(why) => {
                failures += 1;
                fail(&process, &why);
            }
        }
        let (read, due) = (Instant::now(), Instant::now() + source.pause(failures));
        let wish = async {
            tokio::select! {
                () = own.doubted() => sleep_until(read + source.rest(wishes)).await,
                Ok(()) = reread.changed() => {}
            }
        };
        tokio::select! {
            () = sleep(due.saturating_duration_since(read)) => {}
            () = wish => wishes = wishes.saturating_add(1),
        }
    }
}

fn fail(process: &Process, why: &str) {
    let own = &process.settings.upstream.own;
    own.miss(why);
    process.metrics.passwords_failed.inc();
    if let Some(untold) = process.metrics.passwords_failed_told.of(why) {
        let (kept, lacks) = ("the password before is kept", "nothing can be asked upstream without it");
        let what = if own.missing().is_some() { lacks } else { kept };
        warn!(
            why,
            untold,
            "there is no new password for the upstream, and it is tried again: {what}; see upstream-password-file and \
             upstream-password-command"
        );
    }
}
