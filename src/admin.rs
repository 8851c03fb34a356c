//! The admin pages: `/livez`, `/readyz` and `/metrics`, over HTTP on a port of their own.

mod export;
mod listed;

use std::cell::Cell;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinHandle;
use tracing::debug;

use crate::process::Process;

/// How long a client may take to send its request, the first and each further one.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a connection is left in peace when there are no file descriptors: a request is answered within that.
const GRACE: Duration = Duration::from_millis(100);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const TEXT_METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Who does not ask for it is told in the older format, as other exporters do.
fn wants_open_metrics(request: &Request<Incoming>) -> bool {
    let accepts = request.headers().get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    accepts.into_iter().any(|value| value.contains("application/openmetrics-text"))
}

/// Serves the pages until the task is aborted, to at most `most` connections at once: one more takes the place of the
/// one that has asked for nothing for longest.
pub fn serve(
    listener: std::net::TcpListener,
    process: Arc<Process>,
    draining: Arc<AtomicBool>,
    most: usize,
) -> io::Result<JoinHandle<()>> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    Ok(tokio::task::spawn_local(async move {
        let mut open: Vec<Open> = Vec::new();
        // A file descriptor for when there is no other: a probe is answered even then.
        let mut spare = File::open("/dev/null").ok();
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    debug!(%error, "the admin port cannot accept");
                    if spare.take().is_none() {
                        // Without a descriptor Linux says so even if nobody is there to be accepted: whoever was accepted
                        // last is answered first.
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        spare = File::open("/dev/null").ok();
                        if spare.is_none() {
                            close_idle(&mut open, GRACE).await;
                        }
                    }
                    continue;
                }
            };
            spare = spare.or_else(|| File::open("/dev/null").ok());
            open.retain(|open| !open.task.is_finished());
            if open.len() >= most {
                close_idle(&mut open, Duration::ZERO).await;
            }
            let asked = Rc::new(Cell::new(Instant::now()));
            let (process, draining, last) = (process.clone(), draining.clone(), asked.clone());
            let pages = service_fn(move |request| {
                last.set(Instant::now());
                let response = answer(&request, &process, &draining);
                async move { Ok::<_, Infallible>(response) }
            });
            let task = tokio::task::spawn_local(async move {
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
                if let Err(error) = http.serve_connection(TokioIo::new(stream), pages).await {
                    debug!(%error, "an admin connection ended");
                }
            });
            open.push(Open { asked, task });
        }
    }))
}

/// A connection.
struct Open {
    /// When it last asked for something, or came.
    asked: Rc<Cell<Instant>>,
    task: JoinHandle<()>,
}

/// Closes the connection that has asked for nothing for longest, if that is as long as `least`.
async fn close_idle(open: &mut Vec<Open>, least: Duration) {
    let idle = open.iter().enumerate().filter(|(_, open)| open.asked.get().elapsed() >= least);
    let longest = idle.min_by_key(|(_, open)| open.asked.get());
    if let Some((i, _)) = longest {
        let Open { task, .. } = open.swap_remove(i);
        task.abort();
        let _ = task.await;
    }
}

fn answer(request: &Request<Incoming>, process: &Process, draining: &AtomicBool) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" => match readiness(process, draining.load(Ordering::Relaxed)) {
            Ok(()) => text(StatusCode::OK, "ok\n"),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
        },
        "/metrics" => match export::metrics(process) {
            Ok(page) if wants_open_metrics(request) => page_of(StatusCode::OK, OPEN_METRICS, page),
            Ok(page) => page_of(StatusCode::OK, TEXT_METRICS, export::as_text(&page)),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n"),
        },
        _ => text(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n"),
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

fn text(status: StatusCode, body: impl Into<String>) -> Response<Full<Bytes>> {
    page_of(status, "text/plain; charset=utf-8", body.into())
}

fn page_of(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
