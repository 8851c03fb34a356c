//! Whether clients can be served, and if not, why.

use std::time::Duration;

use crate::process::Process;

/// What a person sees at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing has come of the first attempts yet, neither good nor bad.
    Starting,
    Ready,
    Disconnected,
    Draining,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Ready => "ready",
            State::Disconnected => "disconnected",
            State::Draining => "draining",
        }
    }
}

/// Ready is who can serve: without an upstream, or while it loads its data, every request would fail. Otherwise it is told why.
pub(super) fn state(process: &Process, draining: bool) -> (State, Option<String>) {
    /// The feed asks more often than this, while anybody reads.
    const LATELY: Duration = Duration::from_secs(2);
    /// It tries to connect more often than this, however long an attempt may take.
    const UNREACHED: Duration = Duration::from_secs(60);
    let metrics = &process.metrics;
    if draining {
        return (State::Draining, Some("draining".to_owned()));
    }
    if let Some(why) = process.settings.upstream.own.missing() {
        return (State::Disconnected, Some(format!("there is no password for the upstream: {why}")));
    }
    if metrics.upstream_links.get() == 0 && process.feeds_up() == 0 {
        let cause = metrics.unreachable.within(UNREACHED);
        let is_first = metrics.upstream_connects.get() == 0 && metrics.feed_connects.get() == 0;
        let state = if is_first && cause.is_none() { State::Starting } else { State::Disconnected };
        let cause = cause.map_or(String::new(), |cause| format!(": {cause}"));
        return (state, Some(format!("the upstream is not reachable{cause}")));
    }
    match metrics.loading.within(LATELY) {
        Some(words) => (State::Disconnected, Some(format!("the upstream answers {words}"))),
        None => (State::Ready, None),
    }
}

/// Whether clients can be served. Errors: why not, a sentence without its end.
pub fn readiness(process: &Process, draining: bool) -> Result<(), String> {
    state(process, draining).1.map_or(Ok(()), Err)
}
