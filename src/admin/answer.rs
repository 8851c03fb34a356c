//! What is answered: a status, a kind, a text.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use parking_lot::Mutex;

/// A text, or what comes bit by bit.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A response, now or after a while.
pub(super) type Answer = Pin<Box<dyn Future<Output = Response<Body>>>>;

/// An extension of a response whose body goes on for as long as its client is there.
#[derive(Clone, Debug)]
pub(super) struct GoesOn {
    /// When some of it was taken last.
    pub(super) taken: Arc<Mutex<Instant>>,
}

/// What is known at once.
pub(super) fn now(response: Response<Body>) -> Answer {
    Box::pin(std::future::ready(response))
}

pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Response<Body> {
    page_of(status, "text/plain; charset=utf-8", body.into())
}

/// `kind` is the content type.
pub(super) fn page_of(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// What every response says: it is of this moment, it is what it says it is, and it is for nobody's page but our own.
pub(super) fn with_common_headers(mut response: Response<Body>) -> Response<Body> {
    const COMMON: [(HeaderName, &str); 4] = [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in COMMON {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
