//! A worker's heartbeat: proves tracked links fresh while reads come in, and leaves those that give no answer.
//!
//! Invariants: what was read on a link that goes dead is void within the bound, counted from then or from
//! the first read thereafter. Once the feed proves that the upstream itself lives, another link takes the silent
//! one's place; if a write is at its front, that may be paused, and the server
//! is asked about it (see [`dark`](super::dark)); else the link is dark, and all that is in flight fails at once. A link that was only slow is tracked again when it answers.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::expect::{InFlight, Pending};
use super::peer::LinkHandler;
use super::worker::{UNUSED, Worker, is_active};
use crate::cache::{IdentId, LinkId, Micros};
use crate::upstream::{Link, PING, Pace};

impl Worker {
    pub(super) async fn heartbeat(self: &Rc<Self>) {
        let bound = self.shared.tightest_staleness();
        let pace = Pace::within(if bound.is_zero() { UNUSED } else { bound });
        let every = pace.every.min(UNUSED);
        let mut beat = Instant::now();
        let mut barriers = self.shared.cache.barriers();
        loop {
            let silence = self.until_silence(pace).map(|left| Instant::now() + left);
            tokio::select! {
                () = sleep_until(silence.map_or(beat, |silence| silence.min(beat))) => {}
                Ok(()) = barriers.changed() => {
                    self.shared_links().iter().for_each(|(_, link)| self.pass_barrier(link));
                    continue;
                }
            }
            // If this process was held up, the answer may have come and waits to be read.
            tokio::task::yield_now().await;
            let now = self.shared.now();
            let links = self.shared_links();
            for (ident, link) in &links {
                if link.client().left(pace, now) == Some(Duration::ZERO) {
                    self.leave_silent(*ident, link);
                }
            }
            if Instant::now() < beat {
                continue;
            }
            beat = Instant::now() + every;
            if links.iter().any(|(_, link)| link.has_lived()) && self.shared.metrics.links_down_told.over() {
                info!(upstream = %self.shared.settings.upstream.address, "the upstream is there again");
            }
            self.let_go_of_stuck(now);
            self.drop_unused();
            self.close_replaced();
            self.ask_about_silent();
            let active = is_active(&self.shared, now);
            for (_, link) in &links {
                // One on which an answer is awaited is asked whether it lives, tracked or not.
                let awaits = link.in_flight() > 0 && link.is_up() && link.client().pings.oldest().is_none();
                if active && link.client().tracked().is_some() || awaits {
                    ping(link, now);
                }
            }
        }
    }

    /// A shared link has answered, and a barrier asks for more.
    pub(super) fn link_behind_barrier(&self, number: LinkId) {
        if let Some(link) = self.link_of(number) {
            self.pass_barrier(&link);
        }
    }

    /// Pings a tracked link because of a barrier that it has not passed, while reads come in. At most one `PING` is
    /// under way for that: its answer asks for the next, if that is wanted then.
    fn pass_barrier(&self, link: &Link<LinkHandler>) {
        let (peer, now) = (link.client(), self.shared.now());
        if peer.is_behind_barrier() && peer.pings.oldest().is_none() && is_active(&self.shared, now) {
            ping(link, now);
        }
    }

    /// How long until the next link is found silent that was not yet.
    fn until_silence(&self, pace: Pace) -> Option<Duration> {
        let (now, links) = (self.shared.now(), self.shared_links());
        let peers = links.iter().map(|(_, link)| link.client());
        peers.filter(|peer| !peer.is_silent()).filter_map(|peer| peer.left(pace, now)).min()
    }

    /// Closes replaced links on which nothing is expected any more, though idle sessions still hold them.
    fn close_replaced(&self) {
        let over = |(_, link): &mut (IdentId, Link<LinkHandler>)| !link.is_up() || link.in_flight() == 0;
        let over: Vec<_> = self.replaced.borrow_mut().extract_if(.., over).collect();
        for (_, link) in over.iter().filter(|(_, link)| link.is_up()) {
            link.close("another link has taken its place");
        }
    }

    fn leave_silent(self: &Rc<Self>, ident: IdentId, link: &Link<LinkHandler>) {
        link.client().mark_unresponsive();
        let coverages = self.shared.cache.coverages();
        let proven = coverages.current(&self.shared.feed).map(|feed| coverages.watermark(feed));
        let lives = proven > link.client().pings.oldest();
        if lives && !link.client().front.is_write() {
            // The server answers others, and keeps nobody waiting for a read: what was sent here has not come there, or
            // its answers do not come here.
            self.give_up_dark(link);
            return;
        }
        let has_left = self.replaced.borrow().iter().any(|(other, _)| *other == ident);
        let login = self.links.borrow().iter().find(|known| known.link.is(link)).map(|k| k.login.clone());
        let (Some(who), Some(login), true, false) = (self.shared.idents.get(ident), login, lives, has_left)
        else {
            return;
        };
        warn!(
            link = link.client().number.0,
            "a link gives no answer, though the upstream lives: making another"
        );
        let another = self.new_link(&who, &login);
        self.adopt(ident, &login, &another);
        another.reconnect();
    }
}

pub(super) fn ping(link: &Link<LinkHandler>, now: Micros) {
    link.client().pings.sent(now);
    let _ = link.send(|out| out.copy(PING), InFlight { since: now, pending: Pending::Ping });
}
