//! Links and the feed: each shared link is made sure to lead to the feed's server, and asks to have what is read on it
//! tracked.
//!
//! Invariants: what the upstream says to one link concerns that link. A question that was put off (`-BUSY` …) is
//! asked again soon, one that was refused from time to time, when users were changed, and whenever link or feed come up.

use std::rc::Rc;
use std::time::Duration;

use super::expect::{InFlight, Pending};
use super::heart::ping;
use super::peer::LinkHandler;
use super::shared::FeedUp;
use super::worker::Worker;
use crate::cache::LinkId;
use crate::namespace::Tracking;
use crate::resp::encode;
use crate::upstream::{Link, server_id};

impl Worker {
    pub(super) fn link_of(&self, number: LinkId) -> Option<Link<LinkHandler>> {
        self.shared_links().into_iter().map(|(_, link)| link).find(|link| link.client().number == number)
    }

    /// A shared link has connected, or answers again.
    pub(super) fn link_up(self: &Rc<Self>, number: LinkId) {
        if let Some(link) = self.link_of(number) {
            self.arm(&link);
            if link.client().front.is_passing() && !link.client().front.is_ready() {
                // Behind what was just asked: its answer says that the link may be used.
                ping(&link, self.shared.now());
            }
        }
        self.pay();
    }

    /// Asks anew for the tracking of a link, if it is still wanted then.
    pub(super) fn arm_later(self: &Rc<Self>, number: LinkId, delay: Duration) {
        let worker = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(delay).await;
            let Some(worker) = worker.upgrade() else { return };
            let Some(link) = worker.link_of(number) else { return };
            if link.client().is_due() && link.is_up() {
                worker.arm(&link);
            }
        });
    }

    /// Makes sure that `link` leads to the feed's server, and asks the upstream to track what is read on it.
    /// Whatever is leased after the answer is covered:
    /// its read comes behind this request on the same connection.
    pub(super) fn arm(&self, link: &Link<LinkHandler>) {
        let Some(FeedUp { coverage, client_id, server, .. }) = *self.shared.feed_up.borrow() else { return };
        let expect = |pending| InFlight { since: self.shared.now(), pending };
        if let Some(server) = server {
            let _ = link.send(|out| out.copy(server_id::ASK), expect(Pending::Server(coverage, server)));
        }
        if !self.shared.wants(Tracking::Keys) {
            return;
        }
        let Some(id) = client_id else {
            return link.client().refuse("the feed could not learn its id (HELLO, CLIENT ID)");
        };
        let id = id.to_string();
        let command: [&[u8]; 5] = [b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", id.as_bytes()];
        let _ =
            link.send(|out| out.with(|tail| encode::command(tail, &command)), expect(Pending::Arm(coverage)));
    }

    /// Arms all links anew whenever the feed comes up, and those that lack it whenever rights have changed.
    pub(super) async fn follow_feed(&self) {
        let mut feed = self.shared.feed_up.subscribe();
        let mut last = None;
        loop {
            let up = *feed.borrow_and_update();
            let is_new = std::mem::replace(&mut last, up) != up;
            if up.is_some() {
                for (_, link) in self.shared_links() {
                    match link.is_up() {
                        true if is_new || link.client().lacks_tracking() => self.arm(&link),
                        true => {}
                        // The upstream is there again: do not wait for somebody to ask.
                        false => link.reconnect_now(),
                    }
                }
            }
            if feed.changed().await.is_err() {
                return;
            }
        }
    }
}
