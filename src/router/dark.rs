//! Whether a link that gives no answer, with a write at its front, is dark or is only kept waiting.
//!
//! A read that is not answered though the server answers others was never heard there. A write may be paused (`CLIENT
//! PAUSE`, a failover): it is answered when the pause is over, and whoever gave it up would fail what the server carries
//! out. So the server is asked over another link: `CLIENT LIST ID` shows a connection that it keeps waiting as blocked.
//!
//! Invariants: a link is given up only when the server has said twice, a heartbeat apart, that it keeps nothing of
//! it waiting, or does not know it, and nothing came on the link in between: what the server answered just before the
//! first question would have come by the second. Where it does not answer the question, `upstream-timeout` decides.

use super::links::Router;
use crate::cache::LinkId;
use crate::pending::{InFlight, Link, Pending, Standing};
use crate::resp::encode;

impl Router {
    /// Asks the server about the links that give no answer to a write.
    pub(super) fn ask_about_silent(&self) {
        let mut links = self.links_that_stand();
        links.retain(|link| {
            let handler = link.client();
            handler.is_silent() && handler.front.is_write() && link.is_up() && link.in_flight() > 0
        });
        if links.is_empty() {
            return;
        }
        for link in links {
            let own = self.own_link_to(&link.client().node);
            let Some(id) = link.client().upstream_id().filter(|_| own.is_up() && !link.is(&own)) else {
                continue;
            };
            let (id, pending) = (id.to_string(), Pending::Standing(link.client().id));
            let command: [&[u8]; 4] = [b"CLIENT", b"LIST", b"ID", id.as_bytes()];
            let request = InFlight { since: self.process.now(), pending };
            let _ = own.send(|out| out.with(|tail| encode::command(tail, &command)), request);
        }
    }

    /// The server has said how it stands with a link.
    pub(super) fn stands(&self, id: LinkId, standing: Standing) {
        let Some(link) = self.links_that_stand().into_iter().find(|link| link.client().id == id) else {
            return;
        };
        if link.client().is_doubted(standing, self.process.now()) {
            self.give_up_dark(&link);
        }
    }

    /// Closes a link that is known to be dark: what is in flight on it fails.
    pub(super) fn give_up_dark(&self, link: &Link) {
        self.process.metrics.dark_links.inc();
        link.close("the link gives no answer, though the upstream lives");
    }

    /// The shared links, and those that were replaced and still have something in flight.
    fn links_that_stand(&self) -> Vec<Link> {
        let shared = self.shared_links();
        let replaced = self.replaced.borrow();
        replaced
            .iter()
            .map(|left| left.link.clone())
            .chain(shared.into_iter().map(|(_, _, link)| link))
            .collect()
    }
}
