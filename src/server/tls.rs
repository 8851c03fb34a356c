//! TLS: what the configuration asks for, and the files that it rests on, read again when they change.
//!
//! Invariants: what is in use was read whole and found good; a file that has become bad, or is half replaced, changes
//! nothing, is told once for each state that it is found in, and shows in the metrics until all are good again. Files are
//! compared by what they hold, so it does not matter how they are replaced: written over, renamed, or behind a symbolic
//! link that is turned, as kubelet does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use super::error::ServerError;
use crate::config::Config;
use crate::io::{Acceptor, Connector, End, Loaded, Renew};
use crate::process::Process;

/// How often files are looked at: a change is taken within 10 seconds, however slow the machine.
const PAUSE: Duration = Duration::from_secs(1);

/// See the [module](self).
#[derive(Default)]
pub(super) struct Tls {
    pub(super) outward: Option<Arc<Connector>>,
    pub(super) inward: Option<Arc<Acceptor>>,
    watched: Vec<Watched>,
    ends: Vec<End>,
}

impl Tls {
    /// Reads the files. Errors: what is wrong with which.
    pub(super) fn of(config: &Config) -> Result<Self, ServerError> {
        let mut tls = Self::default();
        if let Some(settings) = config.outward() {
            let (connector, loaded) = Connector::new(settings).map_err(ServerError::Tls)?;
            let connector = tls.outward.insert(Arc::new(connector)).clone();
            tls.watch(connector, loaded);
        }
        if let Some(settings) = config.inward() {
            let (acceptor, loaded) = Acceptor::new(settings).map_err(ServerError::Tls)?;
            let acceptor = tls.inward.insert(Arc::new(acceptor)).clone();
            tls.watch(acceptor, loaded);
        }
        Ok(tls)
    }

    /// Whether all files can be used as they are now. Errors: what is wrong with which.
    pub(super) fn check(config: &Config) -> Result<(), String> {
        match Self::of(config) {
            Ok(_) => Ok(()),
            Err(ServerError::Tls(why)) => Err(why),
            Err(error) => Err(error.to_string()),
        }
    }

    fn watch(&mut self, side: Arc<dyn Renew>, loaded: Loaded) {
        self.ends.extend(loaded.ends);
        self.watched.push(Watched { side, last: Ok(loaded.texts), is_bad: false });
    }

    /// Takes changed files, until it is dropped; at once whenever `reread` says so. `None` without TLS.
    pub(super) fn renewal(
        self,
        process: &Arc<Process>,
        mut reread: watch::Receiver<()>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let process = process.clone();
        note(&process, &self.ends);
        let mut watched = self.watched;
        if watched.is_empty() {
            return None;
        }
        Some(async move {
            loop {
                let asked = tokio::select! {
                    () = tokio::time::sleep(PAUSE) => false,
                    changed = reread.changed() => match changed {
                        Ok(()) => true,
                        Err(_) => return,
                    },
                };
                // A folder in a network may be slow to answer, and the feed is on this thread.
                let looked = tokio::task::spawn_blocking(move || {
                    let found = watched.iter_mut().map(|side| side.look(asked)).collect();
                    (watched, found)
                });
                let found: Vec<Found>;
                (watched, found) = match looked.await {
                    Ok(looked) => looked,
                    // A fault ends the process as one of any part does.
                    Err(fault) => match fault.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => return,
                    },
                };
                tell(&process, found);
                let bad = watched.iter().any(|side| side.is_bad);
                process.metrics.tls_reload_failed.set(bad.into());
            }
        })
    }
}

/// What was found at one look.
enum Found {
    Unchanged,
    Taken(Vec<End>),
    Bad(String),
}

/// The files of one side.
struct Watched {
    side: Arc<dyn Renew>,
    /// What was found last: what each holds, or what is wrong with one.
    last: Result<Vec<Vec<u8>>, String>,
    is_bad: bool,
}

impl Watched {
    /// Takes the files if they have changed, or if that was `asked` for.
    fn look(&mut self, asked: bool) -> Found {
        let read: Result<Vec<_>, String> = self.side.files().iter().map(|file| file.read()).collect();
        if self.last == read && !asked {
            return Found::Unchanged;
        }
        let renewed = match &read {
            Ok(texts) => self.side.renew(texts),
            Err(why) => Err(why.clone()),
        };
        self.last = read;
        self.is_bad = renewed.is_err();
        match renewed {
            Ok(ends) => Found::Taken(ends),
            Err(why) => Found::Bad(why),
        }
    }
}

fn tell(process: &Process, found: Vec<Found>) {
    let metrics = &process.metrics;
    for found in found {
        match found {
            Found::Unchanged => {}
            Found::Taken(ends) => {
                metrics.tls_reloads.inc();
                note(process, &ends);
                info!("TLS: the files were read again, and are in use for new connections");
            }
            Found::Bad(why) => {
                metrics.tls_reloads_failed.inc();
                warn!(
                    "TLS: what was read before is kept: {why}; once the files are right they are taken by themselves"
                );
            }
        }
    }
}

fn note(process: &Process, ends: &[End]) {
    let mut certificates = process.metrics.certificates.lock();
    certificates.extend(ends.iter().map(|end| (end.setting, end.at)));
}
