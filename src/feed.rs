//! The feed: one connection on which the upstream tells what changed.
//!
//! It subscribes to the namespaces' channels, and the data links' `CLIENT TRACKING` redirects to it. Both
//! lead to one function, `Cache::heard`.
//!
//! Invariants:
//! - **The gap rule.** The coverage is armed only when every subscription is confirmed and a `PING` sent
//!   after them is answered, and it ends with the connection. Whatever was filled before is void then, and
//!   nothing is leased or served under it in between.
//! - **The watermark** is the time at which the newest answered `PING` was sent. Replies and messages come in
//!   the order in which the upstream sent them, so everything that it had sent before is applied.
//! - Each `PING` goes behind a look at what nothing else reports, changes of users among it (see [`stats`]), and in front of a
//!   cluster at which hash slots are the node's own: the proof that it brings covers that too.
//! - A connection that goes dead is given up within the bound: see [`heart`]. A half-open one is not waited for.
//!
//! `server` runs it and connects it to the workers through [`Hooks`].

mod answers;
mod ask;
mod client;
mod commands;
mod heard;
mod heart;
mod hooks;
mod questions;
mod register;
mod replies;
mod stats;

pub use hooks::{Feed, Hooks};
pub use questions::Told;

pub use crate::process::{Registrar, Reports};

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use tracing::info;

use ask::ask;
use client::FeedClient;
use heart::heartbeat;
use questions::REFUSED;

use crate::cache::Waiter;
use crate::resp::Protocol;
use crate::upstream::{Backoff, ConnectError, Identity, Link, Who, backoff, can_connect};

/// How long to wait before looking again whether the upstream can be reached.
const RETRY: Duration = Duration::from_millis(20);

impl<W: Waiter, H: Hooks> Feed<W, H> {
    /// Keeps the feed up until the task is dropped. Runs in a `LocalRuntime`.
    pub async fn run(self) {
        let feed = Rc::new(self);
        let mut protocol = Protocol::Resp3;
        let (mut paced, mut refusals) = (Backoff::default(), 0);
        loop {
            let Some(link) = feed.connected(protocol).await else {
                if protocol == Protocol::Resp2 {
                    tokio::time::sleep(paced.failed()).await;
                }
                // Each time anew: the server may be another by then.
                protocol = if protocol == Protocol::Resp3 { Protocol::Resp2 } else { Protocol::Resp3 };
                continue;
            };
            let client = link.client();
            ask(&link, &client.at_first(), true);
            tokio::select! {
                () = client.ended.notified() => {}
                () = heartbeat(&feed, &link) => {}
                () = feed.speaks_resp3(), if protocol == Protocol::Resp2 => {
                    info!("the upstream speaks RESP3 now: the feed connects anew");
                }
            }
            // The link may have told of its loss, and ended the coverage, already.
            let (was_armed, was_refused) = (client.armed.get(), client.turned_away.get());
            let lived = link.lived();
            drop(link);
            feed.lapse();
            if was_refused && !was_armed {
                tokio::time::sleep(backoff(REFUSED, refusals)).await;
                refusals += 1;
            } else {
                refusals = 0;
                tokio::time::sleep(paced.lost(was_armed, lived)).await;
            }
            protocol = Protocol::Resp3;
        }
    }

    /// A link that stands; `None` if another protocol is to be tried. While the upstream is away, it waits.
    async fn connected(self: &Rc<Self>, protocol: Protocol) -> Option<Link<FeedClient<W, H>>> {
        let identity = self.identity(protocol);
        let client = FeedClient::new(self.clone(), protocol);
        let link = Link::new(client, identity, Rc::new(self.settings.clone()));
        while let Err(loss) = poll_fn(|cx| link.poll_ready(cx)).await {
            if protocol == Protocol::Resp3 && knows_no_hello(&loss.cause) {
                self.told.no_resp3();
                return None;
            }
            let cause = loss.cause.to_string();
            self.hooks.metrics().unreachable.say(format!("{}: {cause}", self.settings.address));
            self.tell_down("the feed cannot connect", &cause);
            if protocol == Protocol::Resp2 {
                return None;
            }
            tokio::time::sleep(RETRY).await;
        }
        if protocol == Protocol::Resp3 {
            self.told.resp3();
        }
        Some(link)
    }

    fn identity(&self, protocol: Protocol) -> Identity {
        Identity { who: Who::Own(self.own.clone()), db: 0, protocol }
    }

    /// Ends when the upstream, which did not, speaks RESP3: it was upgraded in place, or the user was given the right.
    async fn speaks_resp3(&self) {
        let identity = self.identity(Protocol::Resp3);
        for turn in 0.. {
            tokio::time::sleep(backoff(REFUSED, turn)).await;
            if can_connect(&self.settings, &identity).await {
                return;
            }
        }
    }
}

/// Whether that is what `HELLO` was answered, and not `AUTH`.
fn knows_no_hello(cause: &ConnectError) -> bool {
    let ConnectError::Refused(raw) = cause else { return false };
    let said = String::from_utf8_lossy(raw).to_ascii_lowercase();
    let no_right = said.starts_with("-noperm") && said.contains("hello");
    no_right || said.contains("unknown command") || said.starts_with("-noproto")
}
