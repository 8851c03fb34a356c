//! Whether clients are let in.
//!
//! Invariants: of two nearsides with the same listening sockets at most one lets clients in; who comes while neither does
//! waits in the sockets' queue and is refused by nobody. Only this thread opens and shuts it, and from the moment that it is
//! shut on nobody is accepted: an accept that was about to be made is not made.

use std::cell::Cell;

use tokio::sync::watch;

use crate::process::Process;

/// Shut at first.
pub(super) struct Gate {
    is_open: watch::Sender<bool>,
    /// A nearside that was taken over still serves those whom it has let in.
    overlaps: Cell<bool>,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self { is_open: watch::Sender::new(false), overlaps: Cell::new(false) }
    }

    pub(super) fn open(&self) {
        self.is_open.send_replace(true);
    }

    pub(super) fn shut(&self) {
        self.is_open.send_replace(false);
    }

    /// Waits until it is open, or is not.
    pub(super) async fn is(&self, open: bool) {
        let _ = self.is_open.subscribe().wait_for(|is_open| *is_open == open).await;
    }

    /// Another one serves beside this one, from now on or no more.
    pub(super) fn overlap(&self, process: &Process, overlaps: bool) {
        self.overlaps.set(overlaps);
        self.raise_barrier(process);
    }

    /// Before a client is let in. It may come from the other nearside with a write that was acknowledged there, or having read
    /// what was newer than what is cached here. All that was executed before now is heard of before an entry from
    /// before now is served: clients read their writes, and never go back, across a takeover as well.
    pub(super) fn pass(&self, process: &Process) {
        if self.overlaps.get() {
            self.raise_barrier(process);
        }
    }

    fn raise_barrier(&self, process: &Process) {
        process.cache.raise_barrier(process.now(), false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::fixture;

    #[test]
    fn who_comes_while_two_serve_is_behind_a_barrier() {
        let (gate, process) = (Gate::new(), fixture::process(16));
        gate.pass(&process);
        assert_eq!(process.cache.barrier(), 0, "alone it costs nothing");
        gate.overlap(&process, true);
        let begun = process.cache.barrier();
        let later = |before| {
            while process.now() <= before {
                std::hint::spin_loop();
            }
        };
        later(begun);
        gate.pass(&process);
        let passed = process.cache.barrier();
        assert!(passed > begun, "{passed} {begun}");
        later(passed);
        gate.overlap(&process, false);
        let ended = process.cache.barrier();
        assert!(ended > passed, "what was acknowledged last is behind it, too");
        later(ended);
        gate.pass(&process);
        assert_eq!(process.cache.barrier(), ended);
    }
}
