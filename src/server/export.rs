//! The export of sampled misses: begun with everything else, and ended when all clients are gone.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::alarm::Alarm;
use crate::config::{Collector, Config};
use crate::otlp;
use crate::process::Process;

/// Who is told.
pub(super) type Told = watch::Sender<Option<Collector>>;

pub(super) struct Export {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Export {
    pub(super) fn start(config: &Config, process: &Arc<Process>, alarm: &Alarm) -> (Self, Told) {
        let (told, stop) = (Told::new(config.otlp_endpoint.clone()), watch::Sender::new(false));
        process.traces.sample(config.sampled());
        let export = otlp::export(process.clone(), told.subscribe(), stop.subscribe());
        (Self { stop, task: alarm.spawn("the export of sampled misses", export) }, told)
    }

    /// Sends what waits, which takes no longer than a moment.
    pub(super) async fn finish(&mut self) {
        self.stop.send_replace(true);
        // A fault has rung the alarm.
        let _ = (&mut self.task).await;
    }
}
