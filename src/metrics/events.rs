//! The last notable events of the process: what the log tells at INFO and above, for who looks later.
//!
//! Invariants: at most [`MOST`] are kept, each of at most [`LONGEST`] bytes; the oldest gives way. What may hold a key of the
//! upstream's data stands apart, so that it can be left out.

use std::collections::VecDeque;
use std::time::SystemTime;

use parking_lot::Mutex;

/// How many are kept.
const MOST: usize = 100;

/// Bytes of each text.
const LONGEST: usize = 600;

/// What has happened in this process.
pub static EVENTS: Events = Events::new();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Info,
    Warn,
    Error,
}

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its number; the first is 1.
    pub number: u64,
    pub at: SystemTime,
    pub level: Level,
    /// What has happened, in printable characters.
    pub text: String,
    /// The same with what may hold keys, if there is any of that.
    pub with_keys: Option<String>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Events(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How many there were so far.
    count: u64,
    last: VecDeque<Event>,
}

impl Events {
    const fn new() -> Self {
        Self(Mutex::new(State { count: 0, last: VecDeque::new() }))
    }

    pub fn add(&self, level: Level, text: &str, with_keys: Option<&str>) {
        let (at, text, with_keys) = (SystemTime::now(), printable(text), with_keys.map(printable));
        let mut state = self.0.lock();
        state.count += 1;
        let number = state.count;
        if state.last.len() >= MOST {
            state.last.pop_front();
        }
        state.last.push_back(Event { number, at, level, text, with_keys });
    }

    /// Those that came after the one of this number, the oldest first.
    pub fn since(&self, number: u64) -> Vec<Event> {
        let state = self.0.lock();
        state.last.iter().filter(|event| event.number > number).cloned().collect()
    }
}

/// As much as is kept of it, with what is no letter, digit or plain sign escaped: it may come from the upstream, and a control
/// character, or one that turns the direction of writing, would show something else.
fn printable(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        if c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric() {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
        if shown.len() > LONGEST {
            let end = (0..=LONGEST - 3).rfind(|end| shown.is_char_boundary(*end)).unwrap_or(0);
            shown.truncate(end);
            shown.push_str("...");
            break;
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_kept_in_order_and_who_asks_again_gets_what_is_new() {
        let events = Events::new();
        assert!(events.since(0).is_empty());
        for i in 1..=MOST + 7 {
            events.add(Level::Warn, &format!("event {i}"), None);
        }
        let all = events.since(0);
        assert_eq!((all.len(), &*all[0].text, all[0].number), (MOST, "event 8", 8));
        assert_eq!(all[MOST - 1].number, MOST as u64 + 7);
        let new: Vec<_> = events.since(MOST as u64 + 5).into_iter().map(|event| event.number).collect();
        assert_eq!(new, [MOST as u64 + 6, MOST as u64 + 7]);
        assert!(events.since(MOST as u64 + 7).is_empty());
    }

    #[test]
    fn a_text_is_printable_and_bounded() {
        assert_eq!(
            printable("an \u{1b}[31mupstream\r\n\u{202e}said \u{e4}"),
            "an \\u{1b}[31mupstream\\r\\n\\u{202e}said \u{e4}"
        );
        let long = printable(&"\u{e4}\0".repeat(LONGEST));
        assert!((LONGEST - 4..=LONGEST).contains(&long.len()) && long.ends_with("..."), "{}", long.len());
    }
}
