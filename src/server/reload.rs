//! The configuration, read anew while nearside runs: on SIGHUP, and for `POST /reload`.
//!
//! Invariants:
//! - All or nothing: what is read is found good as a whole, the files for TLS too, before any of it is applied.
//! - One at a time, in the order in which they were asked for; so many may wait as the channel holds, and one more would only
//!   read what those will read.
//! - What is applied counts from then on, and no connection is lost by it. What is not applied is told to need a restart,
//!   each time anew.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use super::export::Told;
use super::notify::Notify;
use super::tls::Tls;
use super::{files, parts};
use crate::admin::Reloaded;
use crate::config::{Config, ConfigError};
use crate::process::Process;

/// How many may wait.
const WAITING: usize = 4;

/// From where the configuration is read anew, and who writes the log.
pub struct Source {
    read: Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>,
    set_log_level: Box<dyn Fn(&str) + Send>,
}

impl Source {
    pub fn new(
        read: impl Fn() -> Result<Config, ConfigError> + Send + Sync + 'static,
        set_log_level: impl Fn(&str) + Send + 'static,
    ) -> Self {
        Self { read: Arc::new(read), set_log_level: Box::new(set_log_level) }
    }

    /// Errors: all that is wrong.
    async fn read(&self) -> Result<Config, Vec<String>> {
        let read = self.read.clone();
        // A folder in a network may be slow to answer, and the feed is on this thread.
        let read = tokio::task::spawn_blocking(move || {
            let config = read().map_err(|error| match error {
                ConfigError::Invalid(problems) => problems,
                ConfigError::Usage(error) => vec![error.to_string()],
            })?;
            Tls::check(&config).map_err(|why| vec![why])?;
            Ok(config)
        });
        read.await.unwrap_or_else(|_| Err(vec!["the configuration cannot be read".to_owned()]))
    }
}

/// A wish, and who waits for what came of it.
pub(super) type Wish = oneshot::Sender<Reloaded>;

pub(super) fn wishes() -> (mpsc::Sender<Wish>, mpsc::Receiver<Wish>) {
    mpsc::channel(WAITING)
}

/// See the [module](self).
pub(super) struct Reloads {
    pub(super) process: Arc<Process>,
    /// What is in effect.
    pub(super) config: Config,
    pub(super) source: Option<Source>,
    /// Tells those who keep files that change.
    pub(super) reread: watch::Sender<()>,
    /// Who is told of sampled misses.
    pub(super) told: Told,
    pub(super) notify: Rc<Notify>,
}

impl Reloads {
    /// Runs until nobody can wish any more.
    pub(super) async fn run(mut self, mut wishes: mpsc::Receiver<Wish>) {
        while let Some(wish) = wishes.recv().await {
            self.notify.reloading();
            let outcome = self.reload().await;
            self.tell(&outcome);
            // Refused or not: it is as ready as before.
            self.notify.ready();
            // Of a signal nobody waits.
            let _ = wish.send(outcome);
        }
    }

    async fn reload(&mut self) -> Reloaded {
        let Some(source) = &self.source else {
            return Reloaded::Refused(vec!["there is no file and no environment to read again".to_owned()]);
        };
        let new = match source.read().await {
            Ok(new) => new,
            Err(problems) => return Reloaded::Refused(problems),
        };
        let mut adopted = self.config.adopt(&new);
        if files::fitting(new.max_clients, self.config.workers) < new.max_clients {
            adopted.max_clients = self.config.max_clients;
        }
        let changes = self.config.changes(&adopted, &new);
        if adopted.log_level != self.config.log_level {
            (source.set_log_level)(&adopted.log_level);
        }
        parts::apply(&self.process, &adopted);
        let is_another =
            |told: &mut Option<_>| std::mem::replace(told, adopted.otlp_endpoint.clone()) != *told;
        self.told.send_if_modified(is_another);
        self.config = adopted;
        self.reread.send_replace(());
        Reloaded::Done(changes)
    }

    fn tell(&self, outcome: &Reloaded) {
        let metrics = &self.process.metrics;
        match outcome {
            Reloaded::Done(changes) => {
                metrics.reloads.inc();
                for change in changes {
                    match change.applied {
                        true => info!("reload: {change}"),
                        false => warn!("reload: {change}"),
                    }
                }
                info!(changed = changes.len(), "the configuration was read again");
            }
            Reloaded::Refused(problems) => {
                metrics.reloads_refused.inc();
                let problems = problems.join("; ");
                warn!("the configuration is wrong, and nothing has changed: {problems}");
            }
        }
    }
}
