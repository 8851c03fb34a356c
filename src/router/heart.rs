//! A worker's heartbeat: proves tracked links fresh while reads come in, and leaves those that give no answer.
//!
//! Invariants: what was read on a link that goes dead is void within the bound, counted from then or from
//! the first read thereafter. Once the feed proves that the upstream itself lives, another link takes the silent
//! one's place; if a write is at its front, that may be paused, and the server
//! is asked about it (see `dark`); else, if the next beat finds it so still, the link is dark, and all that is in flight fails at once. A link that was only slow is tracked again when it answers.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::links::{Router, SharedLink, UNUSED};
use super::ping::ping;
use crate::cache::{IdentId, LinkId};
use crate::pending::Link;
use crate::process::NodeId;
use crate::upstream::Pace;

impl Router {
    /// Runs until it is dropped.
    pub async fn heartbeat(&self) {
        let mut told = self.process.bounds_told();
        let mut pace = self.pace();
        let mut beat = Instant::now();
        let mut barriers = self.process.cache.barriers();
        loop {
            let silence = self.until_silence(pace).map(|left| Instant::now() + left);
            tokio::select! {
                () = sleep_until(silence.map_or(beat, |silence| silence.min(beat))) => {}
                Ok(()) = barriers.changed() => {
                    self.shared_links().iter().for_each(|(_, _, link)| self.pass_barrier(link));
                    continue;
                }
                Ok(()) = told.changed() => {
                    pace = self.pace();
                    beat = beat.min(Instant::now() + pace.every.min(UNUSED));
                    continue;
                }
            }
            // If this process was held up, the answer may have come and waits to be read.
            tokio::task::yield_now().await;
            let now = self.process.now();
            let links = self.shared_links();
            for (node, ident, link) in &links {
                if link.client().left(pace, now) == Some(Duration::ZERO) {
                    self.leave_silent((*node, *ident), link, pace.every / 4);
                }
            }
            if Instant::now() < beat {
                continue;
            }
            beat = Instant::now() + pace.every.min(UNUSED);
            // Of many nodes one may be away for long.
            let stands = |link: &Link| !link.is_down() || link.is_refused();
            if links.iter().any(|(_, _, link)| link.has_lived())
                && links.iter().all(|(_, _, link)| stands(link))
                && self.process.metrics.links_down_told.over()
            {
                info!(upstream = %self.process.first_node().upstream.address, "the upstream is there again");
            }
            self.let_go_of_stuck(now);
            self.drop_unused();
            self.close_replaced();
            self.ask_about_silent();
            let active = self.process.is_active(now);
            for (_, _, link) in &links {
                // One on which an answer is awaited is asked whether it lives, tracked or not.
                let awaits = link.in_flight() > 0 && link.is_up() && link.client().pings.oldest().is_none();
                if active && link.client().tracked().is_some() || awaits {
                    ping(link, now);
                }
            }
        }
    }

    /// By the tightest bound that there is now.
    fn pace(&self) -> Pace {
        let bound = self.process.tightest_staleness();
        Pace::within(if bound.is_zero() { UNUSED } else { bound })
    }

    /// A shared link has answered, and a barrier asks for more.
    pub(super) fn link_behind_barrier(&self, id: LinkId) {
        if let Some(link) = self.link_of(id) {
            self.pass_barrier(&link);
        }
    }

    /// Pings a tracked link because of a barrier that it has not passed, while reads come in. At most one `PING` is
    /// under way for that: its answer asks for the next, if that is wanted then.
    fn pass_barrier(&self, link: &Link) {
        let (handler, now) = (link.client(), self.process.now());
        if handler.is_behind_barrier() && handler.pings.oldest().is_none() && self.process.is_active(now) {
            ping(link, now);
        }
    }

    /// How long until the next link is found silent that was not yet.
    pub(super) fn until_silence(&self, pace: Pace) -> Option<Duration> {
        let (now, links) = (self.process.now(), self.shared_links());
        let handlers = links.iter().map(|(_, _, link)| link.client());
        handlers.filter(|handler| !handler.is_silent()).filter_map(|handler| handler.left(pace, now)).min()
    }

    /// Closes replaced links on which nothing is expected any more, though idle sessions still hold them.
    fn close_replaced(&self) {
        let over = |left: &mut SharedLink| !left.link.is_up() || left.link.in_flight() == 0;
        let over: Vec<_> = self.replaced.borrow_mut().extract_if(.., over).collect();
        for left in over.iter().filter(|left| left.link.is_up()) {
            left.link.close("another link has taken its place");
        }
    }

    /// Nothing that was read on the link is served any more. It is left if the upstream lives, and, unless a write is at its front, the
    /// next beat finds it silent still, `sure` later: this process may have been held up between its question and what sends that, or
    /// between an answer and what reads it.
    pub(super) fn leave_silent(&self, (node, ident): (NodeId, IdentId), link: &Link, sure: Duration) {
        let silent_for = link.client().silent_for(self.process.now());
        link.client().mark_unresponsive();
        let coverages = self.process.cache.coverages();
        let proven = coverages.current(&link.client().node.feed).map(|feed| coverages.watermark(feed));
        let lives = proven > link.client().pings.oldest();
        if lives && !link.client().front.is_write() {
            // The server answers others, and keeps nobody waiting for a read: what was sent here has not come there, or
            // its answers do not come here.
            if silent_for.is_some_and(|micros| micros >= sure.as_micros() as u64) {
                self.give_up_dark(link);
            }
            return;
        }
        let has_left = self.replaced.borrow().iter().any(|other| (other.node, other.ident) == (node, ident));
        let (Some(key), true, false) = (self.key_of(link.client().id), lives, has_left) else { return };
        if let Some(untold) = self.process.metrics.silent_told.now() {
            warn!(
                link = link.client().id.0,
                untold,
                "a link gives no answer, though the upstream lives: another is made; if that goes on, look what stands between"
            );
        }
        let another = self.new_link(&key);
        self.adopt(ident, &key, &another);
        another.reconnect();
    }
}
