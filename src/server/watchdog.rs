//! Signs of life for systemd, and how nearside is.
//!
//! Invariants: it is said that nearside lives only after every worker has answered since it was last said, so one that is
//! stuck stops it, and systemd starts the service anew. At most one question waits in each inbox. While it drains workers
//! end one by one and are not asked: the drain has its own deadline.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};
use tracing::{error, info};

use super::notify::Notify;
use super::stop::Stop;
use crate::admin;
use crate::process::{Inbox, Message, Process};

/// How often it is looked how nearside is.
const LOOK: Duration = Duration::from_secs(1);

/// Tells every half of `period` that nearside lives, as long as it does. Runs until it is dropped.
pub(super) async fn watchdog(
    notify: Rc<Notify>,
    period: Duration,
    workers: Vec<Arc<Inbox>>,
    mut stop: watch::Receiver<Stop>,
) {
    loop {
        all_answer(&workers, period / 2, &mut stop).await;
        notify.alive();
        sleep(period / 2).await;
    }
}

/// Waits until all workers have answered, or nearside stops; tells of one that has not within `patience`.
async fn all_answer(workers: &[Arc<Inbox>], patience: Duration, stop: &mut watch::Receiver<Stop>) {
    let draining = async {
        let _ = stop.wait_for(|stop| *stop > Stop::Not).await;
    };
    let answers: Vec<_> = workers.iter().map(ask).collect();
    let answered = async {
        for (worker, mut answer) in answers.into_iter().enumerate() {
            if timeout(patience, &mut answer).await.is_ok_and(|answer| answer.is_ok()) {
                continue;
            }
            error!(
                worker,
                ?patience,
                "a worker does not answer: systemd is not told any more that nearside lives"
            );
            match answer.await {
                Ok(()) => info!(worker, "the worker answers again"),
                // Whoever ends without a drain never answers.
                Err(_) => std::future::pending().await,
            }
        }
    };
    tokio::select! {
        biased;
        () = draining => {}
        () = answered => {}
    }
}

fn ask(worker: &Arc<Inbox>) -> oneshot::Receiver<()> {
    let (question, answer) = oneshot::channel();
    worker.send(Message::Answer(question));
    answer
}

/// Tells how nearside is whenever that changes. Runs until it is dropped.
pub(super) async fn tell(notify: Rc<Notify>, process: Arc<Process>) {
    loop {
        notify.status(&status(&process));
        sleep(LOOK).await;
    }
}

pub(super) fn status(process: &Process) -> String {
    match admin::readiness(process, false) {
        Ok(()) => "serving clients".to_owned(),
        Err(why) => format!("serving clients, but {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::notify::tests::{heard, said};
    use super::*;

    async fn answering(inbox: Arc<Inbox>) {
        loop {
            for message in inbox.take().await {
                let Message::Answer(question) = message else { panic!("a question") };
                let _ = question.send(());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_is_stuck_ends_the_signs_of_life_until_it_answers() {
        let period = Duration::from_secs(10);
        let (notify, socket, _folder) = heard(period);
        let (well, stuck) = (Arc::new(Inbox::default()), Arc::new(Inbox::default()));
        let (stop, stopped) = watch::channel(Stop::Not);
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                tokio::task::spawn_local(answering(well.clone()));
                let busy = tokio::task::spawn_local(answering(stuck.clone()));
                let workers = vec![well, stuck.clone()];
                tokio::task::spawn_local(watchdog(Rc::new(notify), period, workers, stopped));
                sleep(period * 7 / 4).await;
                assert_eq!(said(&socket).len(), 4, "one each half");
                busy.abort();
                sleep(period * 10).await;
                assert!(said(&socket).len() <= 1, "one may have been on its way");
                assert_eq!(stuck.take().await.len(), 1, "it is asked once");
                stop.send_replace(Stop::Drain);
                sleep(period).await;
                assert!(said(&socket).len() >= 2, "the drain has its own deadline");
            })
            .await;
    }
}
