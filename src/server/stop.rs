//! How a server comes to its end, and who tells it to.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::info;

use super::reload::Wish;

/// How far the shutdown has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    Not,
    /// Another nearside has this one's place: clients are served as long as they are at work, but not for ever.
    Leave,
    Drain,
    Now,
}

/// Who tells the server to stop.
pub struct Shutdown(Source);

enum Source {
    Signals,
    Hand(watch::Receiver<Stop>),
}

/// The same, heard from now on.
pub(super) enum Orders {
    /// Which end the process no more by themselves.
    Signals {
        end: [Signal; 2],
        hangup: Signal,
    },
    Hand(watch::Receiver<Stop>),
}

impl Shutdown {
    /// SIGTERM or SIGINT.
    pub fn on_signals() -> Self {
        Self(Source::Signals)
    }

    /// Whoever holds the sender.
    pub fn by_hand() -> (watch::Sender<Stop>, Self) {
        let (sender, receiver) = watch::channel(Stop::Not);
        (sender, Self(Source::Hand(receiver)))
    }

    /// Whether this is the program, which systemd may have started, and another nearside may take over.
    pub(super) fn is_of_program(&self) -> bool {
        matches!(self.0, Source::Signals)
    }

    /// From now on no signal is missed.
    pub(super) fn hear(self) -> std::io::Result<Orders> {
        Ok(match self.0 {
            Source::Signals => Orders::Signals {
                end: [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?],
                hangup: signal(SignalKind::hangup())?,
            },
            Source::Hand(receiver) => Orders::Hand(receiver),
        })
    }
}

impl Orders {
    /// Drives `stop` until the process ends, and wishes for a reload when one is asked for.
    pub(super) async fn follow(self, stop: &watch::Sender<Stop>, reload: &mpsc::Sender<Wish>) {
        match self {
            Orders::Signals { end: [mut term, mut int], mut hangup } => {
                let mut next = Stop::Drain;
                loop {
                    tokio::select! {
                        _ = term.recv() => {}
                        _ = int.recv() => {}
                        _ = hangup.recv() => {
                            info!("SIGHUP: files are read again, and so are the settings");
                            // If so many wait already, the last of them will read what is there now.
                            let _ = reload.try_send(oneshot::channel().0);
                            continue;
                        }
                    }
                    stop.send_replace(next);
                    if std::mem::replace(&mut next, Stop::Now) == Stop::Now {
                        break;
                    }
                }
            }
            Orders::Hand(mut receiver) => {
                while receiver.changed().await.is_ok() {
                    stop.send_replace(*receiver.borrow_and_update());
                }
                // Nobody is left who could say more.
                std::future::pending::<()>().await;
            }
        }
    }
}
