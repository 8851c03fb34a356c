//! The admin pages: `/livez`, `/readyz` and `/metrics`, over HTTP on a port of their own.

mod export;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::debug;

use crate::session::Shared;

/// Connections at once; those beyond wait.
const MAX_CONNECTIONS: usize = 64;

/// How long a client may take to send its request.
const PATIENCE: Duration = Duration::from_secs(10);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves the pages until the task is aborted.
pub fn serve(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    draining: Arc<AtomicBool>,
) -> io::Result<JoinHandle<()>> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    Ok(tokio::task::spawn_local(async move {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    debug!(%error, "the admin port cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (shared, draining) = (shared.clone(), draining.clone());
            let pages = service_fn(move |request| {
                let response = answer(&request, &shared, &draining);
                async move { Ok::<_, Infallible>(response) }
            });
            tokio::task::spawn_local(async move {
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
                if let Err(error) = http.serve_connection(TokioIo::new(stream), pages).await {
                    debug!(%error, "an admin connection ended");
                }
                drop(place);
            });
        }
    }))
}

fn answer(request: &Request<Incoming>, shared: &Shared, draining: &AtomicBool) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" => match readiness(shared, draining.load(Ordering::Relaxed)) {
            Ok(()) => text(StatusCode::OK, "ok\n"),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
        },
        "/metrics" => match export::metrics(shared) {
            Ok(page) => page_of(StatusCode::OK, OPEN_METRICS, page),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n"),
        },
        _ => text(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n"),
    }
}

/// Ready is who can serve: without an upstream every request would fail.
fn readiness(shared: &Shared, draining: bool) -> Result<(), &'static str> {
    let metrics = &shared.metrics;
    if draining {
        return Err("draining\n");
    }
    if metrics.upstream_links.get() == 0 && metrics.feed_up.get() == 0 {
        return Err("the upstream is not reachable\n");
    }
    Ok(())
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    page_of(status, "text/plain; charset=utf-8", body.into())
}

fn page_of(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
