//! Values that may be set anew while all threads read them.
//!
//! Invariants: each is one atomic, read and set by itself, so to read it is a plain load and takes no longer than to read a
//! value that never changes. No two belong together: who reads both may see one of before and one of after.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::cache::Micros;

/// A number.
#[derive(Debug, Default)]
pub struct Count(AtomicUsize);

impl Count {
    #[inline]
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub fn set(&self, count: usize) {
        self.0.store(count, Ordering::Relaxed);
    }
}

impl From<usize> for Count {
    fn from(count: usize) -> Self {
        Self(count.into())
    }
}

/// A span of time, to the microsecond.
#[derive(Debug, Default)]
pub struct Span(AtomicU64);

impl Span {
    /// As the cache counts time.
    #[inline]
    pub fn micros(&self) -> Micros {
        self.0.load(Ordering::Relaxed)
    }

    pub fn get(&self) -> Duration {
        Duration::from_micros(self.micros())
    }

    pub fn set(&self, span: Duration) {
        self.0.store(micros(span), Ordering::Relaxed);
    }
}

impl From<Duration> for Span {
    fn from(span: Duration) -> Self {
        Self(micros(span).into())
    }
}

/// Yes or no.
#[derive(Debug, Default)]
pub struct Switch(AtomicBool);

impl Switch {
    #[inline]
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }
}

impl From<bool> for Switch {
    fn from(on: bool) -> Self {
        Self(on.into())
    }
}

/// As the cache counts time.
pub fn micros(duration: Duration) -> Micros {
    let whole = duration.as_secs().saturating_mul(1_000_000);
    whole.saturating_add(duration.subsec_micros().into()).min(Micros::MAX / 4)
}
