//! `/readyz`: whether nearside can serve.

use hyper::{Response, StatusCode};

use super::answer::{Body, text};
use super::asked::Asked;
use super::ready::state;

pub(super) fn readyz(asked: &Asked) -> Response<Body> {
    match state(asked.process(), asked.is_draining()).1 {
        None => text(StatusCode::OK, "ok\n"),
        Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}
