//! Of which changes the upstream tells a node's feed, and how that is said to a person.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::namespace::Tracking;

/// Of which changes the upstream tells the feed for the feed's own sake. What it tells for links that are tracked
/// ([`TrackingForm::Redirect`](crate::namespace::TrackingForm)) comes beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reports {
    Nothing,
    /// Of keys that the feed has asked for since they were last reported.
    Registered,
    /// Of all keys with the prefixes that the configuration names.
    Prefixes,
    /// Of all keys.
    All,
}

impl Reports {
    /// Whether changes of keys that are to be tracked so are among them.
    pub fn tell_of(self, how: Tracking) -> bool {
        match (self, how) {
            (Reports::Nothing, _) | (_, Tracking::Off) | (Reports::Prefixes, Tracking::Keys) => false,
            (Reports::Registered | Reports::All, _) | (Reports::Prefixes, Tracking::Prefix) => true,
        }
    }
}

/// The present [`Reports`] of a feed.
///
/// They are set before the feed's coverage is armed. Whoever reads the coverage first, and then these, does not take
/// reports of an earlier connection for those of a later.
#[derive(Debug)]
pub struct ReportsCell(AtomicU8);

impl Default for ReportsCell {
    fn default() -> Self {
        Self(AtomicU8::new(Reports::Nothing as u8))
    }
}

impl ReportsCell {
    pub fn get(&self) -> Reports {
        let all = [Reports::Nothing, Reports::Registered, Reports::Prefixes, Reports::All];
        all.into_iter()
            .find(|reports| *reports as u8 == self.0.load(Ordering::SeqCst))
            .unwrap_or(Reports::Nothing)
    }

    pub fn set(&self, reports: Reports) {
        self.0.store(reports as u8, Ordering::SeqCst);
    }
}

/// How changes of keys become known, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    Redirect,
    Register,
    Broadcast,
    /// By announcements, in namespaces alone.
    Channels,
    /// Not at all: nothing is cached.
    Nothing,
}

impl Form {
    pub const ALL: [Form; 5] =
        [Form::Redirect, Form::Register, Form::Broadcast, Form::Channels, Form::Nothing];

    /// As `INFO`, metrics and the log have it.
    pub fn name(self) -> &'static str {
        match self {
            Form::Redirect => "redirect",
            Form::Register => "register",
            Form::Broadcast => "broadcast",
            Form::Channels => "channels",
            Form::Nothing => "none",
        }
    }
}
