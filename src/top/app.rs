//! What `top` knows: the last figures, those before as a line, and since when the sidecar is lost.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::figures::Figures;
use super::source::Seen;

/// So many figures are remembered for the lines.
const REMEMBERED: usize = 600;

/// See the [module](self).
pub struct App {
    /// Whom it watches, as it was named.
    pub address: String,
    pub figures: Option<Figures>,
    /// Requests per second, the newest last.
    pub requests: VecDeque<u64>,
    /// Why the sidecar says nothing, and since when.
    pub lost: Option<(String, Instant)>,
    last: Option<Seen>,
}

impl App {
    pub fn new(address: String) -> Self {
        Self { address, figures: None, requests: VecDeque::new(), lost: None, last: None }
    }

    /// What came of a look.
    pub fn hear(&mut self, told: Result<Seen, String>) {
        match told {
            Ok(seen) => {
                self.lost = None;
                if let Some(last) = &self.last {
                    let figures = Figures::between(last, &seen);
                    if self.requests.len() == REMEMBERED {
                        self.requests.pop_front();
                    }
                    self.requests.push_back(figures.requests.round() as u64);
                    self.figures = Some(figures);
                }
                self.last = Some(seen);
            }
            Err(why) => {
                let since = self.lost.take().map_or_else(Instant::now, |(_, since)| since);
                self.lost = Some((why, since));
                // What was counted meanwhile would look as if it had come at once.
                self.last = None;
            }
        }
    }

    /// Why, and for how long it has been lost.
    pub fn lost(&self) -> Option<(&str, Duration)> {
        self.lost.as_ref().map(|(why, since)| (&**why, since.elapsed()))
    }
}
