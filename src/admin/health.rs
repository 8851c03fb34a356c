//! Whether nearside can serve.

use std::time::Duration;

use hyper::{Response, StatusCode};

use super::answer::{Body, text};
use super::asked::Asked;
use crate::process::Process;

/// `/readyz`.
pub(super) fn readyz(asked: &Asked) -> Response<Body> {
    match readiness(asked.process(), asked.is_draining()) {
        Ok(()) => text(StatusCode::OK, "ok\n"),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

/// Ready is who can serve: without an upstream, or while it loads its data, every request would fail.
fn readiness(process: &Process, draining: bool) -> Result<(), String> {
    /// The feed asks more often than this, while anybody reads.
    const LATELY: Duration = Duration::from_secs(2);
    /// It tries to connect more often than this, however long an attempt may take.
    const UNREACHED: Duration = Duration::from_secs(60);
    let metrics = &process.metrics;
    if draining {
        return Err("draining\n".to_owned());
    }
    if let Some(why) = process.settings.upstream.own.missing() {
        return Err(format!("there is no password for the upstream: {why}\n"));
    }
    if metrics.upstream_links.get() == 0 && process.feeds_up() == 0 {
        let why = metrics.unreachable.within(UNREACHED).map_or(String::new(), |why| format!(": {why}"));
        return Err(format!("the upstream is not reachable{why}\n"));
    }
    match metrics.loading.within(LATELY) {
        Some(words) => Err(format!("the upstream answers {words}\n")),
        None => Ok(()),
    }
}
