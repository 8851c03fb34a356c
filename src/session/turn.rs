//! How far a session has come in its turn, and what it has to report.

/// After so many requests the clock is read again.
const CLOCK: u64 = 64;

/// After so many requests in a row a session gives way to the others of its worker. With hits that is half a millisecond.
const TURN: u64 = 2048;

/// See the [module](self).
pub struct Turn {
    /// Requests handled so far.
    pub handled: u64,
    /// At how many it gives way, and whether it is to do so now.
    ends: u64,
    gives_way: bool,
    /// Something was done since it was last looked whether anything holds the session up; a hit is nothing.
    pub looks: bool,
    /// What `handled` was when the clock was last read.
    timed: u64,
    hits: u64,
    reported: u64,
}

impl Default for Turn {
    fn default() -> Self {
        Self { handled: 0, ends: TURN, gives_way: false, looks: true, timed: 0, hits: 0, reported: 0 }
    }
}

impl Turn {
    /// The clock was read.
    pub fn is_timed(&mut self) {
        self.timed = self.handled;
        self.looks = true;
    }

    /// Whether the clock is to be read again.
    #[inline]
    pub fn is_due(&mut self) -> bool {
        let due = self.handled - self.timed >= CLOCK;
        if due {
            self.is_timed();
            self.gives_way = self.handled >= self.ends;
        }
        due
    }

    pub fn is_giving_way(&self) -> bool {
        self.gives_way
    }

    pub fn give_way(&mut self) {
        self.gives_way = true;
    }

    /// Others are to have their turn before the session goes on. It may go on when it is asked again.
    pub fn gives_way(&mut self) -> bool {
        if self.gives_way {
            self.ends = self.handled + TURN;
        }
        std::mem::take(&mut self.gives_way)
    }

    pub fn count_hit(&mut self) {
        self.hits += 1;
    }

    /// Hits since the last [report](Turn::report).
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// Requests and hits since this was last asked.
    pub fn report(&mut self) -> (u64, u64) {
        let requests = self.handled - std::mem::replace(&mut self.reported, self.handled);
        (requests, if requests > 0 { std::mem::take(&mut self.hits) } else { 0 })
    }
}
