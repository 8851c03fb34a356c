//! The last thing that was said of something, and when.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Words(Mutex<Option<(Instant, String)>>);

impl Words {
    pub fn say(&self, words: impl Into<String>) {
        *self.0.lock() = Some((Instant::now(), words.into()));
    }

    /// It holds no longer.
    pub fn unsay(&self) {
        *self.0.lock() = None;
    }

    /// What was said within this time.
    pub fn within(&self, time: Duration) -> Option<String> {
        self.0.lock().as_ref().filter(|(said, _)| said.elapsed() <= time).map(|(_, words)| words.clone())
    }
}
