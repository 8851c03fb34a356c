//! The admin pages: health, metrics, and what can be asked of a running nearside, over HTTP on a port of their own or a Unix
//! socket.
//!
//! Invariants: nothing is answered before the [door](door) has let the request in; connections are bounded in number, and
//! each in time, so that a probe is answered whoever else is there (see [`connections`]).
//!
//! A new page is a row of [`ROUTES`]: its path, who may have it, and what answers. `server` calls [`serve`].

mod answer;
mod asked;
mod connections;
mod door;
mod export;
mod health;
mod hosts;
mod listed;
mod query;
mod reload;
mod token;

use std::io;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use tokio::task::JoinHandle;

use answer::{Answer, now, text, with_common_headers};
use asked::Asked;
use connections::{Arrival, Connections};
use door::For;

pub use asked::Admin;
pub use connections::Listener;
pub use door::Door;
pub use reload::{Reload, Reloaded};
pub use token::Token;

/// A page, or something that is done.
struct Route {
    path: &'static str,
    is_for: For,
    answer: fn(Asked) -> Answer,
}

/// All there is.
const ROUTES: &[Route] = &[
    Route { path: "/livez", is_for: For::Probes, answer: |_| now(text(StatusCode::OK, "ok\n")) },
    Route { path: "/readyz", is_for: For::Probes, answer: |asked| now(health::readyz(&asked)) },
    Route { path: "/metrics", is_for: For::Readers, answer: |asked| now(export::page(&asked)) },
    Route {
        path: "/reload",
        is_for: For::Operators,
        answer: |asked| Box::pin(async move { reload::reload(&asked.admin.reload).await }),
    },
];

/// Serves the pages until the task is aborted, to at most `most` connections at once: one more takes the place of the
/// one that has asked for nothing for longest. Errors: a listener that is none.
pub fn serve(listeners: Vec<Listener>, admin: Admin, most: usize) -> io::Result<JoinHandle<()>> {
    let (connections, admin) = (Connections::of(listeners, most)?, Rc::new(admin));
    Ok(tokio::task::spawn_local(
        connections.serve(move |arrival, request| answer(admin.clone(), arrival, request)),
    ))
}

/// Lets a request in, and has it answered.
fn answer(admin: Rc<Admin>, arrival: Arrival, request: Request<Incoming>) -> Answer {
    Box::pin(async move {
        let path = request.uri().path();
        let Some(route) = ROUTES.iter().find(|route| route.path == path) else {
            // Who may not have any page is not told of them.
            let refusal = admin.door.stops(&admin.process.metrics, arrival, For::Readers, &request).await;
            return with_common_headers(refusal.unwrap_or_else(|| text(StatusCode::NOT_FOUND, listed())));
        };
        let refusal = admin.door.stops(&admin.process.metrics, arrival, route.is_for, &request).await;
        with_common_headers(match refusal {
            Some(refusal) => refusal,
            None => (route.answer)(Asked { admin, request }).await,
        })
    })
}

/// What is said of a path that is none.
fn listed() -> String {
    let paths: Vec<_> = ROUTES.iter().map(|route| route.path).collect();
    let (last, others) = paths.split_last().unwrap_or((&"", &[]));
    format!("there are {} and {last}\n", others.join(", "))
}
