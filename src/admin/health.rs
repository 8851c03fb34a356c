//! `/readyz`: whether nearside can serve, and what it has acknowledged that is not upstream yet.
//!
//! Invariants: a journal that cannot be written, or writes that wait for long, make nobody unready: writes go through, and who is
//! sent away would find them nowhere else.

use std::fmt::Write as _;

use hyper::{Response, StatusCode};

use super::answer::{Body, text};
use super::asked::Asked;
use super::ready::state;
use crate::process::write_back;

pub(super) fn readyz(asked: &Asked) -> Response<Body> {
    let (status, mut said) = match state(asked.process(), asked.is_draining()).1 {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    };
    for (name, words) in write_back(asked.process()) {
        let _ = writeln!(said, "{name}:{words}");
    }
    text(status, said)
}
