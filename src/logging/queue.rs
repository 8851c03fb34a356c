//! Lines on their way to standard error.
//!
//! Invariants: whoever logs neither waits nor fails. A thread of its own writes; when its reader takes nothing, or
//! is gone, lines beyond a bound are dropped and counted, so that a log that nobody reads stops nothing.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::metrics::LOST_LINES;

/// Lines that may wait.
const MOST: usize = 4096;

#[derive(Clone, Default)]
pub(super) struct Queue(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// A line is being written.
    writing: bool,
}

impl Queue {
    /// Writes what comes to `sink`, in a thread of its own. Errors: there can be no thread.
    pub(super) fn write_to(&self, mut sink: impl Write + Send + 'static) -> io::Result<()> {
        let inner = self.0.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            loop {
                let mut state = inner.state.lock();
                state.writing = false;
                inner.changed.notify_all();
                let line = loop {
                    match state.lines.pop_front() {
                        Some(line) => break line,
                        None => inner.changed.wait(&mut state),
                    }
                };
                state.writing = true;
                drop(state);
                if sink.write_all(&line).is_err() {
                    LOST_LINES.inc();
                }
            }
        })?;
        Ok(())
    }

    /// Waits until all is written, or the time is over.
    pub(super) fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut state = self.0.state.lock();
        while state.writing || !state.lines.is_empty() {
            if self.0.changed.wait_until(&mut state, until).timed_out() {
                return;
            }
        }
    }
}

/// Each call is a whole line, or several.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state.lock();
        if state.lines.len() < MOST {
            state.lines.push_back(line.to_vec());
            self.0.changed.notify_all();
        } else {
            LOST_LINES.inc();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a line only when it is told to, or fails.
    struct Sink(std::sync::mpsc::Receiver<bool>, Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            match self.0.recv() {
                Ok(true) => {
                    self.1.lock().extend_from_slice(line);
                    Ok(line.len())
                }
                _ => Err(io::ErrorKind::BrokenPipe.into()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_never_waits_and_what_is_lost_is_counted() {
        let (let_go, waits) = std::sync::mpsc::channel();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let mut queue = Queue::default();
        queue.write_to(Sink(waits, taken.clone())).unwrap();
        let before = LOST_LINES.get();
        for i in 0..MOST + 100 {
            // However many, and nobody takes them.
            queue.write_all(format!("{i}\n").as_bytes()).unwrap();
        }
        let lost = LOST_LINES.get() - before;
        assert!((99..=100).contains(&lost), "{lost}");
        queue.flush(Duration::from_millis(1));
        (0..MOST).for_each(|_| let_go.send(true).unwrap());
        drop(let_go);
        queue.flush(Duration::from_secs(10));
        let text = String::from_utf8(taken.lock().clone()).unwrap();
        assert!(text.starts_with("0\n1\n2\n"), "in order");
        assert_eq!(text.lines().count(), MOST);
        // The reader is gone: still nobody waits or fails, and all of it is counted.
        queue.write_all(b"x\n").unwrap();
        queue.flush(Duration::from_secs(10));
        assert!(LOST_LINES.get() - before >= 101);
    }
}
