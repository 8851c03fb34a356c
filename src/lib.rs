//! nearside: a coherent near cache for Redis behind a plain Redis port.
//!
//! What it promises stands in docs/guarantees.md. This page walks one request through the code.
//!
//! # A read: `GET users/1`
//!
//! 1. `main` turns flags, environment and file into a [`config::Config`]. [`server::Server::bind`] opens the
//!    ports; `run` starts the workers, each a thread with a Tokio runtime of its own, the [`feed`] and the
//!    [`admin`] pages.
//! 2. `server::accept` takes the client's connection and leaves it in the [`session::Inbox`] of the worker with
//!    the fewest clients. [`session::Worker`] runs `session::connection::serve` for it.
//! 3. `Connection::poll` reads once, handles every complete request in the buffer, and writes once.
//!    [`resp::framer::RequestFramer`] finds where each request ends; its bytes stay where they are.
//! 4. `Connection::execute` asks the [`command::Table`] for the command's row: what it does, where it may run, whether
//!    its reply may be cached. `Core::admit` makes of a `GET` an `Act::Read`. A request that must wait for earlier replies is not admitted.
//! 5. `session::read` asks [`cache::Cache::lookup`], which answers in one of four ways:
//!    - `Hit`: the reply is copied to the session's `Outbox`, and that is all.
//!    - `Miss`: here is a [`cache::Lease`]. `fetch` sends the request's own bytes and a `PTTL` on the
//!      link that the worker's sessions share.
//!    - `Joined`: another fetches it already; a `Ticket` waits for its reply.
//!    - `Bypass`, with a [`cache::Reason`]: go upstream and keep nothing.
//! 6. [`upstream::Link::send`] queues bytes and an `Expect`, which says what is done with the reply. The link's
//!    task writes what all sessions queued in one turn, with one write.
//! 7. The reply comes in. [`resp::scanner::ReplyScanner`] finds its end, and the link hands it to
//!    `session::peer::Peer`. `Fill` keeps the reply until `PTTL` is answered; [`cache::Lease::fill`] puts it into
//!    the cache, unless the key or the coverage changed meanwhile. Then it is handed to its slot.
//! 8. `Outbox` writes what is complete from the front, so replies leave in the order of the requests.
//!
//! # A write: `SET users/1 ada`
//!
//! Steps 1 to 4 are the same; the row says `Access::Write`. `session::write::Touched` gathers the keys from the
//! row, takes a [`cache::Fence`] on them, and sends the request with a `PUBLISH users/update 1` behind it in the same
//! packet. When the reply comes, `Peer` drops the fence, hands the reply over, and swallows `PUBLISH`'s.
//!
//! # A change that somebody else made
//!
//! The [`feed`] is one connection more. It hears the channels of the [`namespace`]s and, because every
//! link has its `CLIENT TRACKING` redirected there, each change of a key that was read. Both end in
//! [`cache::Cache::heard`]. When the feed or a link is lost, its [`cache::Coverages`] entry ends, and all that was
//! filled under it is void.
//!
//! # A transaction, a subscription, a blocking pop
//!
//! `Core::admit` waits until the session's earlier replies are in; `session::dedicated` then gives it a connection
//! of its own, past the cache, until no state is left there.
//!
//! # Which room may use which
//!
//! ```text
//! main → server, config          session → resp, command, cache, upstream, namespace
//! server → session, feed, admin  feed → cache, upstream, namespace, command, resp
//! command, upstream → resp       cache, config, resp, namespace → nothing of ours
//! ```
pub mod admin;
pub mod cache;
pub mod command;
pub mod config;
pub mod dev;
pub mod feed;
pub mod logging;
pub mod metrics;
pub mod namespace;
pub mod resp;
pub mod server;
pub mod session;
pub mod upstream;
