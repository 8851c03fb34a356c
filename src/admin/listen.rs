//! `/live`: the head of its reply; what follows is told by [`live`](super::live).

use http_body_util::{BodyExt, Empty};
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Response, StatusCode};

use super::answer::{Body, GoesOn, text};
use super::asked::Asked;

pub(super) fn page(asked: &Asked) -> Response<Body> {
    let updates = match asked.live.listen() {
        Ok(updates) => updates,
        Err(why) => {
            let mut response = text(StatusCode::SERVICE_UNAVAILABLE, why + "\n");
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
            return response;
        }
    };
    let taken = updates.taken();
    // Who asks for the head alone does not listen.
    let listens = asked.request.method() != Method::HEAD;
    let body = if listens { updates.boxed_unsync() } else { Empty::new().boxed_unsync() };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    if listens {
        response.extensions_mut().insert(GoesOn { taken });
    }
    response
}
