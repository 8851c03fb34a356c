//! Settings that are one word out of a few.

use super::text::{did_you_mean, quoted};
use crate::namespace::{Ack, OnConflict, OnUpdate, Tracking, TrackingForm};

/// Who asks clients for a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    Upstream,
    /// nearside itself, for [`Config::password`](super::Config::password).
    Password,
}

/// What becomes of a command in front of a cluster whose keys are of several hash slots, and that does to each of them what
/// it would do to it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrossSlot {
    /// It is divided, and the replies are put together.
    Split,
    /// It is refused, as the cluster does.
    Refuse,
}

/// What a cluster is to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresentAs {
    /// One server without a cluster.
    Standalone,
    /// A cluster of one node that has all hash slots.
    Cluster,
}

/// What needs the token of the admin pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFor {
    All,
    /// All but the health pages.
    Pages,
}

/// When the writes of a namespace are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// When the upstream has them.
    Through,
    /// Before: they are kept here, and flushed later.
    Back,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    /// One JSON object for each line.
    Json,
}

/// A value which is one word out of a few.
pub(super) trait Choice: Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

impl Choice for OnUpdate {
    const WORDS: &'static [(&'static str, Self)] =
        &[("invalidate", OnUpdate::Invalidate), ("refresh", OnUpdate::Refresh)];
}

impl Choice for Auth {
    const WORDS: &'static [(&'static str, Self)] =
        &[("upstream", Auth::Upstream), ("password", Auth::Password)];
}

impl Choice for TokenFor {
    const WORDS: &'static [(&'static str, Self)] = &[("all", TokenFor::All), ("pages", TokenFor::Pages)];
}

impl Choice for Tracking {
    const WORDS: &'static [(&'static str, Self)] =
        &[("keys", Tracking::Keys), ("prefix", Tracking::Prefix), ("off", Tracking::Off)];
}

impl Choice for TrackingForm {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", TrackingForm::Auto),
        ("redirect", TrackingForm::Redirect),
        ("register", TrackingForm::Register),
        ("broadcast", TrackingForm::Broadcast),
        ("off", TrackingForm::Off),
    ];
}

impl Choice for CrossSlot {
    const WORDS: &'static [(&'static str, Self)] =
        &[("split", CrossSlot::Split), ("refuse", CrossSlot::Refuse)];
}

impl Choice for PresentAs {
    const WORDS: &'static [(&'static str, Self)] =
        &[("standalone", PresentAs::Standalone), ("cluster", PresentAs::Cluster)];
}

impl Choice for Writes {
    const WORDS: &'static [(&'static str, Self)] = &[("through", Writes::Through), ("back", Writes::Back)];
}

impl Choice for Ack {
    const WORDS: &'static [(&'static str, Self)] = &[("disk", Ack::Disk), ("memory", Ack::Memory)];
}

impl Choice for OnConflict {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("keep-remote", OnConflict::KeepRemote),
        ("keep-local", OnConflict::KeepLocal),
        ("newest", OnConflict::Newest),
    ];
}

impl Choice for bool {
    const WORDS: &'static [(&'static str, Self)] = &[("true", true), ("false", false)];
}

impl Choice for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
}

pub(super) fn parse_choice<T: Choice>(text: &str) -> Result<T, String> {
    let words = || T::WORDS.iter().map(|(word, _)| *word);
    T::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let allowed = words().collect::<Vec<_>>().join(" or ");
        format!("{text:?} is not {allowed}{}", did_you_mean(text, words()))
    })
}

pub(super) fn show_choice<T: Choice>(value: &T) -> String {
    quoted(T::WORDS.iter().find(|(_, known)| known == value).map_or("", |(word, _)| word))
}
