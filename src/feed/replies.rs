//! What comes on the feed's connection: replies, messages, and its end.

use bytes::BytesMut;
use tokio::time::Instant;
use tracing::info;

use super::client::{Awaited, FeedClient};
use super::hooks::Hooks;
use super::questions::Question;
use crate::cache::{Micros, Waiter};
use crate::process::Reports;
use crate::resp::Protocol;
use crate::resp::pubsub::{is_confirmation, is_message, message_word};
use crate::resp::scanner::Kind;
use crate::upstream::{At, Chunk, Loss, ReplyHandler, Said};

impl<W: Waiter, H: Hooks> ReplyHandler for FeedClient<W, H> {
    type InFlight = Awaited;

    fn is_push(&self, front: Option<&Awaited>, kind: Kind, start: &[u8]) -> bool {
        let word = match kind {
            Kind::Push | Kind::Aggregate => message_word(start),
            _ => return false,
        };
        match is_confirmation(word) {
            true => !matches!(front, Some(Awaited::Subscribed(_))),
            false => kind == Kind::Push || is_message(word),
        }
    }

    fn push(&self, chunk: Chunk<'_>, at: At) {
        if let Some(frame) = self.whole(chunk, at) {
            self.message(&frame);
        }
    }

    fn reply(&self, expect: Awaited, chunk: Chunk<'_>, at: At) -> Option<Awaited> {
        let Some(frame) = self.whole(chunk, at) else { return Some(expect) };
        match expect {
            Awaited::Asked(question) => self.answered(question, &frame, at.kind),
            Awaited::Calls => self.looked(&frame, at.kind),
            Awaited::ClusterState => self.cluster_state(&frame, at.kind),
            Awaited::ClusterNodes => self.cluster_nodes(&frame, at.kind),
            Awaited::Registered(batch) => self.registered(batch, &frame, at.kind),
            Awaited::Subscribed(left) if left > 1 && at.kind != Kind::Error => {
                return Some(Awaited::Subscribed(left - 1));
            }
            Awaited::Subscribed(_) => self.answered(Question::Subscribe, &frame, at.kind),
            Awaited::Pong { sent, arms, looks } => self.pong(sent, arms, looks, &frame, at.kind),
        }
        None
    }

    fn lost(&self, _expect: Awaited, _loss: &Loss) {}

    fn attempt(&self) {
        self.feed.hooks.metrics().feed_attempts.inc();
    }

    fn up(&self, _id: Option<i64>) {
        self.since.set(Instant::now());
    }

    fn down(&self, was_up: bool, _carries_on: bool, loss: &Loss) {
        if was_up {
            self.leave("the feed is lost", &loss.cause.to_string());
            self.feed.lapse();
            self.ended.notify_one();
        }
    }

    fn may_log_in(&self) -> bool {
        // A RESP2 subscriber may not. Nor is it made anew for that: with it all that is cached would go, as it does if the
        // upstream closes it one day because of its age, and no sooner.
        self.protocol == Protocol::Resp3
    }

    fn logged_in(&self, refusal: Option<&[u8]>) {
        self.feed.hooks.metrics().logged_in_again(refusal);
    }

    fn may_wait(&self, _expect: &Awaited) -> bool {
        // The heartbeat has a bound of its own.
        true
    }
}

impl<W: Waiter, H: Hooks> FeedClient<W, H> {
    /// The answer to a `PING`: all that the upstream had sent before `sent` is applied.
    fn pong(&self, sent: Micros, arms: bool, looks: bool, frame: &[u8], kind: Kind) {
        self.pings.answered();
        if self.turned_away.get() {
            return;
        }
        if !Said::proves(kind, frame) {
            self.tell_put_off("PING", frame);
        }
        let loading = &self.feed.hooks.metrics().loading;
        match kind == Kind::Error && frame.starts_with(b"-LOADING") {
            true => loading.say(String::from_utf8_lossy(&frame[1..]).trim_end()),
            false => loading.unsay(),
        }
        // A server that is busy or loading has not said yet what it is about to tell, and a look that was not answered
        // leaves open what only it would tell. Nor is a feed armed while what its node was seen to have lost is not void.
        let (questions, hooks) = (&self.questions, &self.feed.hooks);
        let is_unknown = hooks.is_of_cluster() && !questions.ownership.is_known();
        if !Said::proves(kind, frame) || questions.is_blinded() || is_unknown || arms && hooks.is_voiding() {
            if arms {
                self.questions.ask_soon();
            }
            return;
        }
        if arms && self.ask_the_rest() {
            return;
        }
        let (coverages, slot) = (self.feed.cache.coverages(), self.feed.hooks.slot());
        // What is tracked by prefix is told at the end of the upstream's turn, behind the replies of
        // that turn: only the answer to the next `PING` proves that it has come.
        let proven = match self.feed.hooks.reports() {
            Reports::Nothing | Reports::Registered => sent,
            Reports::Prefixes | Reports::All => self.previous.replace(sent),
        };
        if !arms {
            match looks {
                true if hooks.is_of_cluster() => hooks.prove(proven),
                true => coverages.advance(slot, proven),
                false => coverages.hear(slot, proven),
            }
            if proven <= self.feed.cache.barrier() {
                self.unheard.notify_one();
            }
            return;
        }
        self.feed.cache.forget_echoes();
        if coverages.arm(slot, None, hooks.provable(sent)).is_some() {
            if let Some(untold) = self.feed.hooks.metrics().feed_up_told.now() {
                info!(upstream = %self.feed.settings.address, untold, "the feed is subscribed");
            }
            self.armed.set(true);
            self.questions.armed(self.protocol);
            self.tell_up();
        }
    }

    /// Gathers a frame; gives it when it is whole.
    fn whole(&self, chunk: Chunk<'_>, at: At) -> Option<BytesMut> {
        let mut held = self.held.borrow_mut();
        held.extend_from_slice(&chunk);
        at.last.then(|| held.split())
    }
}
