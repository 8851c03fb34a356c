//! The end of a part without which the process would go on half-dead: a worker, the feed, a listener.

use tokio::sync::watch;

/// Rings when a part has panicked. Clones ring the same bell.
#[derive(Clone)]
pub(super) struct Alarm(watch::Sender<Option<String>>);

impl Alarm {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// To be held by the part as long as it runs.
    pub(super) fn guard(&self, part: impl ToString) -> Guard {
        Guard { alarm: self.clone(), part: part.to_string() }
    }

    /// Spawns a task of this thread that is guarded.
    pub(super) fn spawn<F: Future + 'static>(
        &self,
        part: &str,
        task: F,
    ) -> tokio::task::JoinHandle<F::Output> {
        let guard = self.guard(part);
        tokio::task::spawn_local(async move {
            let _guard = guard;
            task.await
        })
    }

    /// Waits until it rings; says which part it was.
    pub(super) async fn rung(&self) -> String {
        let mut alarm = self.0.subscribe();
        let rung = alarm.wait_for(Option::is_some).await;
        rung.ok().and_then(|part| part.clone()).unwrap_or_default()
    }
}

/// See [`Alarm::guard`].
pub(super) struct Guard {
    alarm: Alarm,
    part: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.alarm.0.send_replace(Some(std::mem::take(&mut self.part)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rings_for_a_panic_and_for_nothing_else() {
        let runtime = super::super::runtime::runtime().unwrap();
        runtime.block_on(async {
            let alarm = Alarm::new();
            assert_eq!(alarm.spawn("one that ends", async { 7 }).await.unwrap(), 7);
            alarm.spawn("one that is ended", std::future::pending::<()>()).abort();
            tokio::task::yield_now().await;
            assert!(alarm.0.borrow().is_none());
            let ended = alarm.spawn("one that panics", async { panic!("as the test wants it") });
            assert_eq!(alarm.rung().await, "one that panics");
            assert!(ended.await.is_err_and(|error| error.is_panic()));
        });
        let alarm = Alarm::new();
        let guard = alarm.guard("worker-0");
        let thread = std::thread::spawn(move || {
            let _guard = guard;
            panic!("as the test wants it");
        });
        assert!(thread.join().is_err());
        assert_eq!(alarm.0.borrow().as_deref(), Some("worker-0"));
    }
}
