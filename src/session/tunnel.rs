//! Replication and the Lua debugger: from the accepted `SYNC`, `PSYNC`, or script under `SCRIPT DEBUG` on, what the
//! server says is no sequence of replies any more, and the session becomes a plain tunnel.
//!
//! Invariants: all earlier replies are delivered, and the tunnel is a connection of its own. If the server
//! refuses, the client is told and the session goes on as it was. With the tunnel the session ends. What a debugged
//! script may have written is void in the cache.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};

use super::clients::Alone;
use super::core::Core;
use super::errors;
use super::shared::Shared;
use crate::cache::Reason;
use crate::upstream::{Identity, Loss, Stream, Tunnel};

/// What is kept of what was said on a session's own connection, in bytes.
const SAID: usize = 16 << 10;

/// What the server has to be told before the tunnel begins, as it was on the session's own connection.
#[derive(Clone, Default)]
pub(super) struct Said {
    commands: Vec<u8>,
    number: usize,
}

impl Said {
    pub(super) fn add(&mut self, command: &[u8]) {
        if self.commands.len() + command.len() <= SAID {
            self.commands.extend_from_slice(command);
            self.number += 1;
        }
    }
}

/// The session is to become a tunnel.
pub(super) struct Wanted {
    pub(super) said: Said,
    pub(super) request: Bytes,
    /// A script's, which may write.
    pub(super) writes: bool,
}

/// What the server makes of it.
pub(super) enum Begun {
    Stands(Tunnel, Bytes),
    /// In its own words, or in ours.
    Refused(Vec<u8>),
    /// The client is gone, or is to be sent away.
    Over,
}

/// Opens the tunnel. `ahead` gets what the client sends meanwhile.
pub(super) async fn begin(
    core: &Core,
    wanted: &Wanted,
    client: &mut Stream,
    ahead: &mut BytesMut,
) -> io::Result<Begun> {
    let identity = Identity { login: core.login.clone(), db: core.ident.db, protocol: core.ident.protocol };
    let settings = &core.shared.settings.upstream;
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
    until_sent_away(core, asking).await.unwrap_or(Ok(Begun::Over))
}

/// Passes on what both sides say until either ends, the process stops, or the client is killed.
pub(super) async fn join(
    core: &Core,
    wanted: &Wanted,
    tunnel: Tunnel,
    first: &[u8],
    client: &mut Stream,
    ahead: &[u8],
) -> io::Result<()> {
    let _counted = Counted::new(&core.shared);
    let _alone = Alone::new(&core.session, tunnel.id());
    let _void = wanted.writes.then(|| Void(&core.shared));
    until_sent_away(core, tunnel.join(client, first, ahead)).await.unwrap_or(Ok(()))
}

/// `None` if the process stops or the client is killed before.
async fn until_sent_away<T>(core: &Core, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        core.queue.set_waker(cx);
        match core.worker.is_draining() || core.session.is_killed() {
            true => Poll::Ready(None),
            false => future.as_mut().poll(cx).map(Some),
        }
    })
    .await
}

/// While it stands, a tunnel is counted.
struct Counted<'a>(&'a Shared);

impl<'a> Counted<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.metrics.tunnels.inc();
        shared.metrics.upstream_connects.inc();
        shared.metrics.upstream_links.inc();
        Self(shared)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.metrics.upstream_links.dec();
        self.0.metrics.upstream_disconnects.inc();
    }
}

/// At its end everything is void that was cached.
struct Void<'a>(&'a Shared);

impl Drop for Void<'_> {
    fn drop(&mut self) {
        drop(self.0.cache.fence_all(Reason::Write));
    }
}
