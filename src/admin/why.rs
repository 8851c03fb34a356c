//! `/why?key=…`: what `NEARSIDE WHY` tells of a key.

use hyper::{Response, StatusCode};

use super::answer::{Body, text};
use super::asked::Asked;
use super::query::parameter;
use super::shown::escaped;
use crate::process::why;

/// In lines for a person; a line may hold arguments of a request, so what cannot be printed is escaped.
pub(super) fn page(asked: &Asked) -> Response<Body> {
    if !asked.process().settings.admin_keys {
        return text(StatusCode::FORBIDDEN, "keys are not shown: admin-keys = off\n");
    }
    let Some(key) = asked.request.uri().query().and_then(|query| parameter(query, "key")) else {
        return text(StatusCode::BAD_REQUEST, "there is no key: ask for /why?key=KEY\n");
    };
    let lines = why(asked.process(), &key, None);
    text(StatusCode::OK, lines.iter().map(|line| escaped(line.as_bytes()) + "\n").collect::<String>())
}
