//! Sampled misses, told to a collector as spans of OpenTelemetry: OTLP over HTTP, as JSON.
//!
//! Invariants:
//! - Nothing waits for the collector: what is traced waits in a bounded queue (`process/traces.rs`), and one batch
//!   outside of it. What is given up is counted.
//! - A request ends within [`PATIENCE`], a batch after [`TRIES`] of them, and between two that fail lies a pause that grows.
//! - Where tracing is off no connection is made, and one that was made is closed.
//! - At the end what waits is sent within [`LAST`], or counted as lost.
//!
//! OpenTelemetry's own crates do the same, and more, for 1.9 MB of the program and 28 crates more. What is said here is fixed by
//! a stable specification: <https://opentelemetry.io/docs/specs/otlp/>.

mod body;
mod connection;
mod resource;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use crate::config::Collector;
use crate::process::{Process, Trace};
use crate::upstream::backoff;
use connection::{Answer, Connection, Failure};
use resource::Resource;

/// So many traces are sent at a time, or as many as have come since the first of them waits so long.
const BATCH: usize = 128;
const PAUSE: Duration = Duration::from_secs(1);

/// How long a request may take, a connection included.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long all that is sent after the end may take.
const LAST: Duration = Duration::from_secs(2);

/// How often a batch is sent at most, and after how long again.
const TRIES: u32 = 8;
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Tells of sampled misses until `stop` says so. `collector` is who is told, if anybody is.
pub async fn export(
    process: Arc<Process>,
    collector: watch::Receiver<Option<Collector>>,
    stop: watch::Receiver<bool>,
) {
    let (mut stopped, mut cut) = (stop.clone(), stop);
    let stopped = async move { drop(stopped.wait_for(|stop| *stop).await) };
    let cut = async move {
        let _ = cut.wait_for(|stop| *stop).await;
        sleep(LAST).await;
    };
    tokio::pin!(stopped, cut);
    let mut exporter = Exporter::new(process, collector);
    tokio::select! {
        () = &mut stopped => {}
        () = exporter.run() => {}
    }
    // What was under way is sent again: a collector knows a span by its number.
    tokio::select! {
        () = &mut cut => {}
        () = exporter.finish() => {}
    }
    exporter.end();
}

struct Exporter {
    process: Arc<Process>,
    collector: watch::Receiver<Option<Collector>>,
    resource: Resource,
    connection: Option<Connection>,
    /// What is being sent, or is to be sent again.
    batch: Vec<Trace>,
    failures: u32,
    /// Not before then.
    again: Instant,
}

impl Exporter {
    fn new(process: Arc<Process>, collector: watch::Receiver<Option<Collector>>) -> Self {
        let resource = Resource::of_environment(|name| std::env::var(name).ok());
        let (batch, again) = (Vec::new(), Instant::now());
        Self { process, collector, resource, connection: None, batch, failures: 0, again }
    }

    async fn run(&mut self) {
        loop {
            self.gather().await;
            self.round().await;
        }
    }

    /// Waits until there is something to send, and it is time for it.
    async fn gather(&mut self) {
        let traces = &self.process.traces;
        if self.batch.is_empty() {
            while traces.waiting() == 0 {
                tokio::select! {
                    () = traces.added() => {}
                    // It may have been switched off.
                    Ok(()) = self.collector.changed() => self.connection = None,
                }
            }
            let due = sleep(PAUSE);
            tokio::pin!(due);
            while traces.waiting() < BATCH {
                tokio::select! {
                    () = &mut due => break,
                    () = traces.added() => {}
                }
            }
        }
        sleep_until(self.again).await;
    }

    /// Sends a batch, and says whether it is dealt with: it was taken, or is given up.
    async fn round(&mut self) -> bool {
        if self.batch.is_empty() {
            self.batch = self.process.traces.take(BATCH);
        }
        let Some(collector) = self.collector.borrow_and_update().clone() else {
            self.connection = None;
            self.give_up();
            return true;
        };
        let sent = timeout(PATIENCE, self.send(&collector)).await;
        match sent.unwrap_or_else(|_| Err(Failure::passing(format!("no answer within {PATIENCE:?}")))) {
            Ok(answer) => self.taken(&collector, &answer),
            Err(failure) => {
                self.connection = None;
                self.failed(&collector, &failure);
            }
        }
        self.batch.is_empty()
    }

    async fn send(&mut self, collector: &Collector) -> Result<Answer, Failure> {
        let kept = self.connection.take().filter(|connection| connection.leads_to(collector));
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(collector, PATIENCE).await?,
        };
        let answer = connection.post(body::of(&self.resource, &self.batch)).await?;
        self.connection = Some(connection);
        Ok(answer)
    }

    fn taken(&mut self, collector: &Collector, answer: &Answer) {
        let metrics = &self.process.metrics;
        let sent = self.batch.len() as u64 * Trace::SPANS;
        let refused = answer.refused.min(sent);
        metrics.spans_exported.add(sent - refused);
        metrics.spans_refused.add(refused);
        self.batch.clear();
        self.failures = 0;
        if refused > 0 {
            let why = answer.why.as_str();
            if let Some(untold) = metrics.collector_told.of(why) {
                warn!(%collector, why, refused, untold, "the collector refuses spans: see its log (otlp-endpoint)");
            }
        } else if metrics.collector_told.over() {
            info!(%collector, "the collector takes spans again");
        }
    }

    fn failed(&mut self, collector: &Collector, failure: &Failure) {
        self.failures += 1;
        let pause = backoff(AGAIN, self.failures - 1);
        // It knows best when it can take more, within reason.
        self.again = Instant::now() + failure.after.map_or(pause, |after| after.clamp(pause, AGAIN.1));
        let metrics = &self.process.metrics;
        if failure.is_final {
            metrics.spans_refused.add(self.batch.len() as u64 * Trace::SPANS);
            self.batch.clear();
        } else if self.failures.is_multiple_of(TRIES) {
            self.give_up();
        }
        if let Some(untold) = self.process.metrics.collector_told.of(&failure.why) {
            warn!(
                %collector,
                why = failure.why,
                untold,
                "spans of sampled misses cannot be exported, and the newest are kept: see whether the collector runs and speaks \
                 OTLP over HTTP there (otlp-endpoint)"
            );
        }
    }

    fn give_up(&mut self) {
        self.process.metrics.spans_lost.add(self.batch.len() as u64 * Trace::SPANS);
        self.batch.clear();
    }

    /// Sends all that waits, as long as that is taken.
    async fn finish(&mut self) {
        while (!self.batch.is_empty() || self.process.traces.waiting() > 0) && self.round().await {}
    }

    /// Nothing is sent any more.
    fn end(&mut self) {
        self.batch.extend(self.process.traces.take(usize::MAX));
        let left = self.batch.len();
        self.give_up();
        if left > 0 {
            warn!(left, "stopped before the collector took the last sampled misses (otlp-endpoint)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::fixture;

    /// With so many traces on their way.
    fn exporter(traces: usize) -> (Exporter, Collector) {
        let process = fixture::process(1);
        process.traces.sample(1.0);
        let mut exporter = Exporter::new(process.clone(), watch::Sender::new(None).subscribe());
        take(&mut exporter, traces);
        (exporter, Collector::parse("http://h:4318").unwrap())
    }

    fn take(exporter: &mut Exporter, traces: usize) {
        let process = exporter.process.clone();
        (0..traces).for_each(|_| drop(fixture::traced(&process)));
        exporter.batch = process.traces.take(traces);
        assert_eq!(exporter.batch.len(), traces);
    }

    /// Exported, refused and lost.
    fn counts(exporter: &Exporter) -> [u64; 3] {
        let metrics = &exporter.process.metrics;
        [&metrics.spans_exported, &metrics.spans_refused, &metrics.spans_lost].map(|count| count.get())
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_sent_so_often_and_then_given_up() {
        let (mut exporter, collector) = exporter(3);
        let mut longest = Duration::ZERO;
        for tried in 0..TRIES {
            assert_eq!(exporter.batch.len(), 3, "after {tried}");
            exporter.failed(&collector, &Failure::passing("connection refused"));
            let pause = exporter.again - Instant::now();
            assert!(pause >= AGAIN.0 / 2 && pause <= AGAIN.1, "{pause:?}");
            longest = longest.max(pause);
        }
        assert!(longest >= AGAIN.1 / 2, "it grows to {longest:?}");
        assert!(exporter.batch.is_empty() && counts(&exporter) == [0, 0, 6]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_collector_refuses_is_not_sent_again() {
        let (mut exporter, collector) = exporter(1);
        let after = Some(Duration::from_secs(3600));
        exporter.failed(&collector, &Failure { why: "400".into(), is_final: true, after });
        assert!(exporter.batch.is_empty() && counts(&exporter) == [0, 2, 0]);
        assert!(exporter.again - Instant::now() <= AGAIN.1, "within reason");
        take(&mut exporter, 2);
        exporter.taken(&collector, &Answer { refused: 3, why: "too old".into() });
        assert!(exporter.batch.is_empty() && counts(&exporter) == [1, 5, 0]);
    }
}
