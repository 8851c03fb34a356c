//! The feed's heartbeat: `PING`s by which its coverage is proven, and the end of a connection without answers.
//!
//! While no reads come in nothing is proven, so nothing is served; whether the connection lives is not asked
//! then. The first read goes upstream, and from then on the same bound holds.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::ask::{ask_again, ping, ping_and_look};
use super::client::FeedClient;
use super::hooks::{Feed, Hooks};
use super::register::register;
use crate::cache::Waiter;
use crate::upstream::{Link, Pace};

/// Sends a `PING` because of a barrier that is not passed yet, while reads come in. At most one is under way: its
/// answer asks for the next, if that is wanted then.
fn pass_barrier<W: Waiter, H: Hooks>(link: &Link<FeedClient<W, H>>) {
    let client = link.client();
    let (cache, hooks) = (&client.feed.cache, &client.feed.hooks);
    let wanted = client.armed.get() && cache.coverages().heard_by(hooks.slot()) <= cache.barrier();
    if !wanted || client.pings.oldest().is_some() || !link.is_up() || !hooks.is_active(hooks.now()) {
        return;
    }
    // To look each time would cost the upstream too much where scripts come one after another.
    ping_and_look(link, false, cache.barrier_to_look_behind() >= client.looked.get());
}

/// Sends a `PING` at a third of the bound while reads come in; ends when one is not answered in time, and
/// wakes for that.
pub(super) async fn heartbeat<W: Waiter, H: Hooks>(feed: &Feed<W, H>, link: &Link<FeedClient<W, H>>) {
    let mut told = feed.hooks.bound_told();
    let mut bound = feed.hooks.bound();
    let mut beat = Instant::now() + Pace::within(bound).every;
    let mut barriers = feed.cache.barriers();
    let mut place = feed.hooks.left();
    loop {
        // Nobody depends on it until it is armed, and there is more to be answered by then.
        let within = Pace::within(bound);
        let patience = if link.client().armed.get() { within.patience } else { bound };
        let pace = Pace { patience, ..within };
        let left = link.client().pings.left(pace, feed.hooks.now());
        let overdue = left.map(|left| Instant::now() + left);
        let questions = &link.client().questions;
        let next = [overdue, questions.due()].into_iter().flatten().fold(beat, Instant::min);
        tokio::select! {
            () = sleep_until(next) => {}
            () = questions.changed() => continue,
            Ok(()) = place.changed() => {
                leave(feed, link, "its server takes no writes any more, and another has its place");
                return;
            }
            Ok(()) = barriers.changed() => {
                pass_barrier(link);
                continue;
            }
            Ok(()) = told.changed() => {
                bound = feed.hooks.bound();
                beat = beat.min(Instant::now() + Pace::within(bound).every);
                continue;
            }
            () = feed.hooks.registrar().arrived() => {
                register(link);
                continue;
            }
            () = link.client().unheard.notified() => {
                pass_barrier(link);
                continue;
            }
        }
        if questions.due().is_some_and(|due| due <= Instant::now()) && link.is_up() {
            ask_again(link);
        }
        // If this process was held up, the answer may have come and waits to be read.
        tokio::task::yield_now().await;
        if link.client().armed.get() && feed.cache.coverages().current(feed.hooks.slot()).is_none() {
            leave(feed, link, "the upstream does not know it");
            return;
        }
        if link.client().armed.get() && link.client().had_better_register() {
            leave(feed, link, "links are not tracked, so keys are registered");
            return;
        }
        let now = feed.hooks.now();
        if link.client().pings.left(pace, now) == Some(Duration::ZERO) {
            link.client().leave("the feed connects anew", "it gave no answer within max-staleness");
            return;
        }
        if Instant::now() < beat {
            continue;
        }
        beat = Instant::now() + pace.every;
        if feed.hooks.is_active(now) && link.is_up() {
            ping(link, false);
        }
    }
}

/// The connection is of no more use, and its coverage was ended from outside.
fn leave<W: Waiter, H: Hooks>(feed: &Feed<W, H>, link: &Link<FeedClient<W, H>>, cause: &str) {
    link.client().leave("the feed connects anew", cause);
    if link.client().armed.get() && feed.cache.coverages().current(feed.hooks.slot()).is_none() {
        feed.hooks.metrics().feed_lapses.inc();
        feed.hooks.down();
    }
}
