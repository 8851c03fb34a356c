//! Whether the request at the front of a shared link is stuck, so that others had better go another way.
//!
//! Invariants: a request that is sent, and a reply that comes, cost a store each; whoever asks compares with its
//! clock. A link that is far away is not taken for a stuck one: the time that answers take there is known by then.

use std::cell::Cell;

use crate::cache::Micros;

/// A request that has been at the front for so long is stuck, if answers do not take longer here: one that writes (a
/// script among them), and any other. What two links answer about one key costs refills, so not at each small delay.
const PATIENCE: (Micros, Micros) = (10_000, 80_000);

/// So many times what answers usually take.
const TIMES: Micros = 4;

/// What answers are taken to take before there was one.
const UNKNOWN: Micros = 100_000;

/// How long what a server has said of itself is believed.
const BELIEVED: Micros = 50_000;

/// The longest that is believed of the first answer.
const LONGEST: Micros = 1_000_000;

pub struct Front {
    /// From when on the request at the front is stuck; never, if there is none.
    stuck_at: Cell<Micros>,
    /// From when on sessions look for another link.
    look_at: Cell<Micros>,
    /// The request at the front writes, or does what is paused as writes are.
    writes: Cell<bool>,
    /// How long answers take here, lately.
    usual: Cell<Micros>,
    /// Sessions are to leave the link as soon as they can: it is a spare one, or another has taken its place.
    passing: Cell<bool>,
    /// Whether the last answer on this link was that the server is busy with a script, and when it came.
    busy: Cell<bool>,
    answered: Cell<Micros>,
    /// Something was answered since the connection was made, so that it is known whether it is tracked.
    ready: Cell<bool>,
    /// When those behind the front were last let go.
    let_go: Cell<Micros>,
}

impl Default for Front {
    fn default() -> Self {
        Self {
            stuck_at: Cell::new(Micros::MAX),
            look_at: Cell::new(Micros::MAX),
            writes: Cell::default(),
            usual: Cell::default(),
            passing: Cell::default(),
            busy: Cell::default(),
            answered: Cell::default(),
            ready: Cell::default(),
            let_go: Cell::default(),
        }
    }
}

impl Front {
    /// A request is at the front since `since`, one that `writes` or not; or there is none.
    pub fn is(&self, request: Option<bool>, since: Micros) {
        let writes = request == Some(true);
        let patience = match (self.usual.get(), writes) {
            (0, _) => UNKNOWN,
            (usual, true) => PATIENCE.0.max(TIMES * usual),
            (usual, false) => PATIENCE.1.max(TIMES * usual),
        };
        self.stuck_at.set(request.map_or(Micros::MAX, |_| since.saturating_add(patience)));
        self.writes.set(writes);
        if !self.passing.get() {
            self.look_at.set(self.stuck_at.get());
        }
    }

    /// An answer took so long. One that is far longer than the others is taken for twice as long as they.
    pub fn took(&self, micros: Micros) {
        let usual = self.usual.get();
        self.usual.set(match usual {
            0 => micros.clamp(1, LONGEST),
            _ => (usual * 7 + micros.min(2 * usual + 1_000)).div_ceil(8),
        });
    }

    /// A `PING` was answered, or the connection has gone.
    pub fn become_ready(&self, ready: bool) {
        self.ready.set(ready);
    }

    /// Whether it is known how it stands with the link: its first `PING` came back, and what was asked before it.
    pub fn is_ready(&self) -> bool {
        self.ready.get()
    }

    pub fn is_passing(&self) -> bool {
        self.passing.get()
    }

    /// An answer came.
    pub fn answered(&self, busy: bool, now: Micros) {
        self.busy.set(busy);
        self.answered.set(now);
    }

    /// Whether the server is busy with a script, if it was heard lately.
    pub fn is_busy(&self, now: Micros) -> Option<bool> {
        let lately = now.saturating_sub(self.answered.get()) <= BELIEVED;
        lately.then(|| self.busy.get())
    }

    /// Sessions are to leave the link.
    pub fn pass(&self) {
        self.passing.set(true);
        self.look_at.set(0);
    }

    /// Whether a session that has nothing on the link had better look for another.
    #[inline]
    pub fn is_unsettled(&self, now: Micros) -> bool {
        now >= self.look_at.get()
    }

    pub fn is_stuck(&self, now: Micros) -> bool {
        now >= self.stuck_at.get()
    }

    /// Whether what is at the front is paused when writes are.
    pub fn is_write(&self) -> bool {
        self.writes.get()
    }

    /// Whether it is time to let those go who wait for what is behind the front.
    pub fn lets_go(&self, now: Micros) -> bool {
        let due = now.saturating_sub(self.let_go.get()) >= PATIENCE.0;
        if due {
            self.let_go.set(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_stuck_when_answers_take_far_less() {
        let front = Front::default();
        assert!(!front.is_stuck(Micros::MAX - 1) && !front.is_unsettled(Micros::MAX - 1));
        front.took(100);
        front.is(Some(false), 1_000);
        let at = 1_000 + PATIENCE.1;
        assert!(!front.is_stuck(at - 1) && front.is_stuck(at) && front.is_unsettled(at));
        front.is(None, 12_000);
        assert!(!front.is_stuck(1 << 40));
        (0..200).for_each(|_| front.took(50_000));
        front.is(Some(false), 0);
        assert!(!front.is_stuck(190_000) && front.is_stuck(210_000));
    }

    #[test]
    fn the_first_answer_tells_how_long_they_take_and_before_it_more_is_waited_for() {
        let stuck_at = |front: &Front, writes, at: Micros| {
            front.is(Some(writes), 0);
            front.is_stuck(at) && !front.is_stuck(at - 1)
        };
        let front = Front::default();
        assert!(stuck_at(&front, true, UNKNOWN) && stuck_at(&front, false, UNKNOWN));
        front.took(50_000);
        assert!(stuck_at(&front, true, TIMES * 50_000) && stuck_at(&front, false, TIMES * 50_000));
        let quick = Front::default();
        quick.took(0);
        assert!(stuck_at(&quick, true, PATIENCE.0) && stuck_at(&quick, false, PATIENCE.1));
    }

    #[test]
    fn one_answer_that_took_long_does_not_make_it_patient() {
        let front = Front::default();
        front.took(100);
        front.took(60_000_000);
        front.is(Some(false), 0);
        assert!(front.is_stuck(PATIENCE.1));
    }

    #[test]
    fn a_link_that_is_to_be_left_is_unsettled_always() {
        let front = Front::default();
        front.pass();
        front.is(None, 5);
        assert!(front.is_unsettled(0) && !front.is_stuck(0));
    }
}
