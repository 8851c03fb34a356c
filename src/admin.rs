//! The admin pages: health, metrics, and what can be asked of a running nearside, over HTTP on a port of their own or a Unix
//! socket.
//!
//! Invariants: nothing is answered before the [door](door) has let the request in; connections are bounded in number, and
//! each in time, so that a probe is answered whoever else is there (see [`connections`]).
//!
//! A new page is a row of [`ROUTES`]: its path, who may have it, and what answers. `server` calls [`serve`].

mod accept;
mod answer;
mod asked;
mod connections;
mod door;
mod exemplars;
mod export;
mod health;
mod hosts;
mod listed;
mod listen;
mod live;
mod metric;
mod page;
mod per_part;
mod query;
mod ready;
mod reload;
mod running;
mod shown;
mod token;
mod why;
mod write_back;

use std::io;
use std::rc::Rc;

use hyper::StatusCode;
use tokio::task::JoinHandle;

use answer::{Answer, now, text, with_common_headers};
use asked::Asked;
use connections::{Arrival, Connections};
use door::For;
use live::Live;

pub use asked::Admin;
pub use connections::Listener;
pub use door::Door;
pub use ready::readiness;
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
    Route { path: "/", is_for: For::Readers, answer: page_file },
    Route { path: "/page.css", is_for: For::Readers, answer: page_file },
    Route { path: "/page.js", is_for: For::Readers, answer: page_file },
    Route { path: "/charts.js", is_for: For::Readers, answer: page_file },
    Route { path: "/figures.js", is_for: For::Readers, answer: page_file },
    Route { path: "/icon.svg", is_for: For::Readers, answer: page_file },
    Route { path: "/livez", is_for: For::Probes, answer: |_| now(text(StatusCode::OK, "ok\n")) },
    Route { path: "/readyz", is_for: For::Probes, answer: |asked| now(health::readyz(&asked)) },
    Route { path: "/metrics", is_for: For::Readers, answer: |asked| now(export::page(&asked)) },
    Route { path: "/live", is_for: For::Readers, answer: |asked| now(listen::page(&asked)) },
    Route { path: "/why", is_for: For::Readers, answer: |asked| now(why::page(&asked)) },
    Route {
        path: "/reload",
        is_for: For::Operators,
        answer: |asked| Box::pin(async move { reload::reload(&asked.admin.reload).await }),
    },
];

fn page_file(asked: Asked) -> Answer {
    now(page::file(asked.request.uri().path()))
}

/// Serves the pages until the task is aborted, to at most `most` connections at once: one more takes the place of the
/// one that has asked for nothing for longest. Errors: a listener that is none.
pub fn serve(listeners: Vec<Listener>, admin: Admin, most: usize) -> io::Result<JoinHandle<()>> {
    let (connections, admin) = (Connections::of(listeners, most)?, Rc::new(admin));
    let live = Live::new(admin.process.clone(), admin.draining.clone(), most);
    let samples = live.clone().sample();
    let pages = connections.serve(move |arrival, request| {
        answer(arrival, Asked { admin: admin.clone(), live: live.clone(), request })
    });
    Ok(tokio::task::spawn_local(async move {
        tokio::select! { () = pages => {}, () = samples => {} }
    }))
}

/// Lets a request in, and has it answered.
fn answer(arrival: Arrival, asked: Asked) -> Answer {
    Box::pin(async move {
        let route = ROUTES.iter().find(|route| route.path == asked.request.uri().path());
        // Who may not have any page is not told of them.
        let is_for = route.map_or(For::Readers, |route| route.is_for);
        let Admin { process, door, .. } = &*asked.admin;
        let refusal = door.stops(&process.metrics, arrival, is_for, &asked.request).await;
        with_common_headers(match (refusal, route) {
            (Some(refusal), _) => refusal,
            (None, Some(route)) => (route.answer)(asked).await,
            (None, None) => text(StatusCode::NOT_FOUND, listed()),
        })
    })
}

/// What is said of a path that is none.
fn listed() -> String {
    // The page's own files are for the page.
    let paths: Vec<_> = ROUTES.iter().map(|route| route.path).filter(|path| !path.contains('.')).collect();
    let (last, others) = paths.split_last().unwrap_or((&"", &[]));
    format!("there are {} and {last}\n", others.join(", "))
}
