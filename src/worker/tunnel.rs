//! Replication and the Lua debugger: from the accepted `SYNC`, `PSYNC`, or script under `SCRIPT DEBUG` on, what the
//! server says is no sequence of replies any more, and the session becomes a plain tunnel.
//!
//! Invariants: all earlier replies are delivered, and the tunnel is a connection of its own. If the server
//! refuses, the client is told and the session goes on as it was. With the tunnel the session ends. What a debugged
//! script may have written is void in the cache.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};

use crate::cache::Reason;
use crate::io::Stream;
use crate::process::{Alone, Process, errors};
use crate::request::Context;
use crate::session::Wanted;
use crate::upstream::{Loss, Tunnel};

/// What the server makes of it.
pub enum Begun {
    Stands(Tunnel, Bytes),
    /// In its own words, or in ours.
    Refused(Vec<u8>),
    /// The client is gone, or is to be sent away.
    Over,
}

/// The client's side: as whom it speaks, and whether the process stops.
pub struct Side<'a> {
    pub cx: &'a Context,
    pub draining: &'a Cell<bool>,
}

/// Opens the tunnel. `ahead` gets what the client sends meanwhile.
pub async fn begin(
    side: &Side<'_>,
    wanted: &Wanted,
    client: &mut Stream,
    ahead: &mut BytesMut,
) -> io::Result<Begun> {
    let (key, settings) = (&side.cx.key, &side.cx.key.node.upstream);
    let identity = key.identity(&side.cx.process.settings.upstream.own);
    let asking = async {
        let mut tunnel = match Tunnel::open(settings, &identity).await {
            Ok(tunnel) => tunnel,
            Err(cause) => {
                let loss = Loss { sent: false, cause };
                return Ok(Begun::Refused(errors::refused(&settings.address, &loss)));
            }
        };
        tunnel.replay(&wanted.said.commands, wanted.said.number).await?;
        Ok(match tunnel.ask(&wanted.request, client, ahead).await? {
            None => Begun::Over,
            Some(said) if said.first() == Some(&b'-') => Begun::Refused(said.to_vec()),
            Some(first) => Begun::Stands(tunnel, first),
        })
    };
    until_sent_away(side, asking).await.unwrap_or(Ok(Begun::Over))
}

/// Passes on what both sides say until either ends, the process stops, or the client is killed.
pub async fn join(
    side: &Side<'_>,
    wanted: &Wanted,
    (tunnel, first): (Tunnel, Bytes),
    client: &mut Stream,
    ahead: &[u8],
) -> io::Result<()> {
    let _counted = Counted::new(&side.cx.process);
    let _alone = Alone::new(&side.cx.client, side.cx.key.node.id, tunnel.id());
    let _void = wanted.writes.then(|| Void(&side.cx.process));
    until_sent_away(side, tunnel.join(client, &first, ahead)).await.unwrap_or(Ok(()))
}

/// `None` if the process stops or the client is killed before.
async fn until_sent_away<T>(side: &Side<'_>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        side.cx.queue.set_waker(cx);
        match side.draining.get() || side.cx.client.is_killed() {
            true => Poll::Ready(None),
            false => future.as_mut().poll(cx).map(Some),
        }
    })
    .await
}

/// While it stands, a tunnel is counted.
struct Counted<'a>(&'a Process);

impl<'a> Counted<'a> {
    fn new(process: &'a Process) -> Self {
        process.metrics.tunnels.inc();
        process.metrics.upstream_connects.inc();
        process.metrics.upstream_links.inc();
        Self(process)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.metrics.upstream_links.dec();
        self.0.metrics.upstream_disconnects.inc();
    }
}

/// At its end everything is void that was cached.
struct Void<'a>(&'a Process);

impl Drop for Void<'_> {
    fn drop(&mut self) {
        drop(self.0.cache.fence_all(Reason::Write));
    }
}
