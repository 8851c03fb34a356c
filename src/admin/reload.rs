//! `POST /reload`: has the configuration read anew, and tells what came of it.

use hyper::{Response, StatusCode};
use tokio::sync::{mpsc, oneshot};

use super::answer::{Body, text};
use crate::config::Change;

/// What came of it.
#[derive(Debug)]
pub enum Reloaded {
    /// These settings have other values than before: some were applied, some need a restart.
    Done(Vec<Change>),
    /// Nothing has changed, for all this is wrong.
    Refused(Vec<String>),
}

/// Who may be asked for it.
#[derive(Clone, Debug)]
pub struct Reload(pub mpsc::Sender<oneshot::Sender<Reloaded>>);

/// Answers when all is done.
pub(super) async fn reload(reload: &Reload) -> Response<Body> {
    let (told, outcome) = oneshot::channel();
    // One more than may wait is told so; it would read the same as those.
    if reload.0.try_send(told).is_err() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "others wait for a reload, or nearside is stopping\n");
    }
    match outcome.await {
        Ok(Reloaded::Done(changes)) => {
            let lines: String = changes.iter().map(|change| format!("{change}\n")).collect();
            let none = if changes.is_empty() { "no setting has changed\n" } else { "" };
            text(
                StatusCode::OK,
                format!("{lines}{none}certificates and passwords are read again from their files\n"),
            )
        }
        Ok(Reloaded::Refused(problems)) => text(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("refused, and nothing has changed:\n{}\n", problems.join("\n")),
        ),
        Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "nearside is stopping\n"),
    }
}
