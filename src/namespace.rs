//! Namespaces: which keys are announced on which channels, and how long their entries may live.
//!
//! Invariants: the wire format is that of redis-pubsub-dict 0.0.2. A write to `N/<key>` is announced
//! on `N/update`, a removal on `N/delete`, and the payload is the bare key, any bytes, nothing else.

mod writing;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub use writing::{Ack, OnConflict, Writing, folder_of};

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was written, and may be there.
    Update,
    /// It was removed.
    Delete,
}

/// What is done with an entry when an update of its key is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUpdate {
    /// It is dropped.
    Invalidate,
    /// It is dropped, and fetched anew if it was read since it was filled.
    Refresh,
}

/// One namespace. Its rules may be changed while all threads go by them, each by itself: to read one is a plain load.
#[derive(Debug)]
pub struct Namespace {
    pub name: String,
    prefix: Box<[u8]>,
    channels: [Box<[u8]>; 2],
    /// Which of all it is, from 1 on.
    number: usize,
    tracking: Tracking,
    /// Its writes are acknowledged here, in this way.
    writing: Option<Writing>,
    refreshes: AtomicBool,
    refills: AtomicBool,
    /// In microseconds.
    max_age: AtomicU64,
    max_staleness: AtomicU64,
}

/// What holds for the entries of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub on_update: OnUpdate,
    /// Whether a write reads back what it leaves behind, into the cache.
    pub refill_on_write: bool,
    /// How the upstream tells of changes.
    pub tracking: Tracking,
    pub max_age: Duration,
    pub max_staleness: Duration,
}

/// How the upstream itself tells of changes, beside the announcements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// Of each key that was read.
    Keys,
    /// Of every key with the prefix.
    Prefix,
    /// Not at all.
    Off,
}

impl Tracking {
    /// As the setting has it.
    pub fn name(self) -> &'static str {
        match self {
            Tracking::Keys => "keys",
            Tracking::Prefix => "prefix",
            Tracking::Off => "off",
        }
    }
}

/// In which form the upstream reports changes of keys that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackingForm {
    /// The first of the others that it allows.
    Auto,
    /// Each link is tracked, and its reports go to the feed (`CLIENT TRACKING ON REDIRECT`).
    Redirect,
    /// The feed is tracked, and asks for each key before that is read into the cache (`CLIENT TRACKING ON`, `EXISTS`).
    Register,
    /// The feed hears of every key (`CLIENT TRACKING ON BCAST`).
    Broadcast,
    /// It is not asked to.
    Off,
}

impl Namespace {
    /// The namespace of the keys that start with `prefix`, announced on `<channel>/update` and
    /// `<channel>/delete`.
    pub fn new(name: &str, prefix: &[u8], channel: &str, rules: Rules) -> Self {
        let channels = ["update", "delete"].map(|event| format!("{channel}/{event}").into_bytes().into());
        let namespace = Self {
            name: name.into(),
            prefix: prefix.into(),
            channels,
            number: 0,
            tracking: rules.tracking,
            writing: None,
            refreshes: AtomicBool::default(),
            refills: AtomicBool::default(),
            max_age: AtomicU64::default(),
            max_staleness: AtomicU64::default(),
        };
        namespace.change(rules);
        namespace
    }

    /// Likewise, and its writes are acknowledged here if `writing` says how.
    pub fn writing(self, writing: Option<Writing>) -> Self {
        Self { writing, ..self }
    }

    /// How its writes are acknowledged here; `None` if they go through.
    pub fn writes_back(&self) -> Option<&Writing> {
        self.writing.as_ref()
    }

    /// From now on these are its rules; but how the upstream tells of changes stays as it is.
    pub fn change(&self, rules: Rules) {
        /// Far above any use, and far below what overflows a sum.
        const LONGEST: u128 = u64::MAX as u128 / 4;
        let micros = |span: Duration| span.as_micros().min(LONGEST) as u64;
        self.refreshes.store(rules.on_update == OnUpdate::Refresh, Ordering::Relaxed);
        self.refills.store(rules.refill_on_write, Ordering::Relaxed);
        self.max_age.store(micros(rules.max_age), Ordering::Relaxed);
        self.max_staleness.store(micros(rules.max_staleness), Ordering::Relaxed);
    }

    /// How the upstream tells of changes.
    pub fn tracking(&self) -> Tracking {
        self.tracking
    }

    pub fn on_update(&self) -> OnUpdate {
        if self.refreshes.load(Ordering::Relaxed) { OnUpdate::Refresh } else { OnUpdate::Invalidate }
    }

    pub fn refill_on_write(&self) -> bool {
        self.refills.load(Ordering::Relaxed)
    }

    /// In microseconds.
    pub fn max_age(&self) -> u64 {
        self.max_age.load(Ordering::Relaxed)
    }

    /// In microseconds.
    #[inline]
    pub fn max_staleness(&self) -> u64 {
        self.max_staleness.load(Ordering::Relaxed)
    }

    /// Which of all it is, from 1 on: the group of its keys in the cache.
    pub fn number(&self) -> usize {
        self.number
    }

    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The channel on which such events are announced.
    pub fn channel(&self, event: Event) -> &[u8] {
        &self.channels[event as usize]
    }

    /// The part of `key` that is announced, if the key is in the namespace.
    pub fn bare<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        key.strip_prefix(&*self.prefix)
    }

    /// The whole key that an announcement of `bare` means.
    pub fn key(&self, bare: &[u8]) -> Vec<u8> {
        [&*self.prefix, bare].concat()
    }
}

/// All namespaces. No prefix is a prefix of another.
#[derive(Debug, Default)]
pub struct Namespaces(Vec<Namespace>);

impl Namespaces {
    pub fn new(mut namespaces: Vec<Namespace>) -> Self {
        (1..).zip(&mut namespaces).for_each(|(number, namespace)| namespace.number = number);
        Self(namespaces)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Namespace> {
        self.0.iter()
    }

    /// The namespace of `key`.
    pub fn find(&self, key: &[u8]) -> Option<&Namespace> {
        self.0.iter().find(|namespace| key.starts_with(&namespace.prefix))
    }

    /// What a message on `channel` means.
    pub fn heard(&self, channel: &[u8]) -> Option<(&Namespace, Event)> {
        let event = |namespace: &Namespace| {
            [Event::Update, Event::Delete].into_iter().find(|event| namespace.channel(*event) == channel)
        };
        self.0.iter().find_map(|namespace| event(namespace).map(|event| (namespace, event)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str, prefix: &str, channel: &str) -> Namespace {
        let rules = Rules {
            on_update: OnUpdate::Invalidate,
            refill_on_write: false,
            tracking: Tracking::Keys,
            max_age: Duration::from_secs(60),
            max_staleness: Duration::from_secs(1),
        };
        Namespace::new(name, prefix.as_bytes(), channel, rules)
    }

    #[test]
    fn keys_and_channels_are_those_of_redis_pubsub_dict() {
        let all = Namespaces::new(vec![namespace("users", "users/", "users"), namespace("x", "x:", "chan")]);
        let users = all.find(b"users/42").unwrap();
        assert_eq!(users.bare(b"users/42"), Some(&b"42"[..]));
        assert_eq!(users.channel(Event::Update), b"users/update");
        assert_eq!(users.channel(Event::Delete), b"users/delete");
        assert_eq!(users.key(b"4\r\n2"), b"users/4\r\n2");
        assert!(all.find(b"user/42").is_none());
        assert!(all.find(b"users").is_none());
        let (heard, event) = all.heard(b"chan/delete").unwrap();
        assert_eq!((heard.name.as_str(), event), ("x", Event::Delete));
        assert!(all.heard(b"chan/deleted").is_none());
    }
}
