//! Namespaces whose writes are acknowledged here: their journals, and who brings upstream what is dirty.
//!
//! Invariants: what a journal has from before is known before a client is let in. What is dirty at the end is flushed within the
//! drain's time; what is not is in the journal, and it is said how much.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use tracing::{error, warn};

use super::alarm::Alarm;
use super::error::ServerError;
use crate::cache::Micros;
use crate::namespace::{Namespace, Writing, folder_of};
use crate::process::{Back, Inbox, Message, Process, Ticket, errors};
use crate::writeback::{Flusher, Journal, Ways};

/// The journals of all such namespaces, before they are written.
pub(super) struct Journals(Vec<Journal<Ticket>>);

impl Journals {
    /// Opens them. Errors: one cannot be opened; one in use is waited for if `later`.
    pub(super) fn open(process: &Process, later: bool) -> Result<Self, ServerError> {
        let mut journals = Vec::new();
        for namespace in process.namespaces.iter() {
            let Some(back) = process.back(Some(namespace)) else { continue };
            let Some(folder) = namespace.writes_back().and_then(|writing| folder(namespace, writing)) else {
                continue;
            };
            journals.push(Journal::open(back.clone(), &folder, later, process.now())?);
        }
        Ok(Self(journals))
    }

    /// Starts to write them, each on a thread of its own.
    pub(super) fn start(self, process: &Arc<Process>, alarm: &Alarm) -> io::Result<Vec<JoinHandle<()>>> {
        let start = |journal: Journal<Ticket>| {
            let (process, guard) = (process.clone(), alarm.guard("a journal"));
            std::thread::Builder::new().name("journal".into()).spawn(move || {
                let _guard = guard;
                journal.run(|| process.now());
            })
        };
        self.0.into_iter().map(start).collect()
    }
}

fn folder(namespace: &Namespace, writing: &Writing) -> Option<PathBuf> {
    writing.journal.as_deref().map(|journal| folder_of(journal, &namespace.name))
}

/// Starts to bring upstream what is dirty.
pub(super) fn start_flushers(process: &Arc<Process>, workers: &[Arc<Inbox>], alarm: &Alarm) {
    for (back, worker) in process.backs().zip(workers.iter().cycle()) {
        let ways = Own { process: process.clone(), worker: worker.clone() };
        alarm.spawn("the flusher of a namespace", Flusher::new(back.clone(), ways).run());
    }
}

/// No more writes are taken, and what is dirty is flushed.
pub(super) fn close(process: &Process) {
    process.backs().for_each(|back| back.close());
}

/// Says what is not flushed.
pub(super) fn tell_left(process: &Process) {
    process.backs().filter(|back| back.dirty() > 0).for_each(tell_left_of);
}

/// Ends the journals' threads, if all is flushed.
pub(super) fn end(process: &Process, journals: Vec<JoinHandle<()>>) {
    if process.backs().all(|back| back.dirty() == 0) {
        for journal in journals {
            if journal.join().is_err() {
                error!("a journal's thread has panicked; please report it, with the lines before");
            }
        }
    }
}

fn tell_left_of(back: &Back) {
    let (namespace, keys, bytes, said) = (&back.name, back.dirty(), back.bytes(), back.refusal());
    match back.journals && !back.journal_fails() {
        true => warn!(
            namespace, keys, bytes, reply = %said,
            "stopped before all was flushed: it is in the journal, and is flushed when nearside is started again with it"
        ),
        false => error!(
            namespace, keys, bytes, reply = %said,
            "stopped before all was flushed, and no journal has it: these writes are lost; set journal, see to its disk, or raise \
             drain-timeout"
        ),
    }
}

/// How a flusher reaches the rest.
struct Own {
    process: Arc<Process>,
    worker: Arc<Inbox>,
}

impl Ways for Own {
    fn connect(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        self.worker.send_client(Message::Own(theirs));
        Ok(ours)
    }

    fn may_be_done(&self, reply: &[u8]) -> bool {
        errors::may_be_done(reply)
    }

    fn now(&self) -> Micros {
        self.process.now()
    }
}
