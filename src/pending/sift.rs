//! What is kept of the replies on a connection of a session's own: see [`astray`](super::astray).

use bytes::Bytes;

use super::astray::Keeps;
use super::in_flight::Pending;
use super::link_handler::LinkHandler;
use super::pushes::ended_channel;
use super::redirected::may_pass;
use crate::process::errors;
use crate::reply::{Refusal, ReplySlot};
use crate::resp::Redirection;
use crate::resp::scanner::Kind;
use crate::upstream::{At, Loss};

/// A master that becomes a replica sends those away who wait there, and has taken nothing for them.
const DEMOTED: &[u8] = b"-UNBLOCKED force unblock from blocking operation";

/// What Redis answers to an `EXEC` that it would refuse as a command.
const BECAUSE: &[u8] = b"-EXECABORT Transaction discarded because of: ";

/// A request, if it is not dealt with; else what is still expected of it.
pub(super) type Sifted = Result<Pending, Option<Pending>>;

impl LinkHandler {
    /// A piece of a reply came on a connection of a session's own.
    pub(super) fn sift(&self, pending: Pending, chunk: &[u8], at: At) -> Sifted {
        let keeps = self.astray.kept();
        if keeps == Keeps::Nothing || !pending.is_request() {
            return Ok(pending);
        }
        if self.astray.is_held() {
            if !at.last {
                return Err(Some(pending));
            }
            self.hold(pending, chunk, at, || (Refusal { said: None, by: None, line: Bytes::new() }, true));
            return Err(None);
        }
        if at.kind != Kind::Error || !at.first || !at.last {
            return Ok(pending);
        }
        let exec = pending.is_exec();
        let watched = matches!(keeps, Keeps::Watched(_));
        if exec && watched && self.astray.has_lost_watch() && chunk.starts_with(b"-EXECABORT") {
            self.end_watched(pending, at);
            return Err(None);
        }
        let is_script = matches!(&pending, Pending::Write(write) if write.barrier.is_some());
        let Some(refusal) = self.refusal_of(chunk, is_script) else { return Ok(pending) };
        let slot = refusal.said.as_ref().and_then(Redirection::slot);
        match keeps {
            Keeps::Transaction(Some(mine)) | Keeps::Watched(Some(mine))
                if !exec && slot.is_some_and(|slot| slot != mine) =>
            {
                if let Some(to) = self.undone(pending, chunk, at) {
                    to.whole(&errors::line(errors::CROSS_SLOT));
                }
            }
            Keeps::Watched(_) if exec => self.end_watched(pending, at),
            Keeps::Watched(_) | Keeps::Watch => {
                self.lose_watch();
                let said: &[u8] = if watched { b"+QUEUED\r\n" } else { b"+OK\r\n" };
                if let Some(to) = self.undone(pending, chunk, at) {
                    to.whole(said);
                }
            }
            _ => self.hold(pending, chunk, at, || (refusal, true)),
        }
        Err(None)
    }

    /// Whether the message says that a shard channel's slot is another node's: the session subscribes there.
    pub(super) fn follows(&self, frame: &[u8]) -> bool {
        if self.process.is_single() {
            return false;
        }
        let owner = self.owner.borrow();
        let (Some(owner), Some(channel)) = (&*owner, ended_channel(frame)) else { return false };
        self.astray.has_moved(channel);
        owner.queue.wake();
        true
    }

    /// A request on a connection of a session's own is lost; gives it back unless it is kept.
    pub(super) fn sift_lost(&self, pending: Pending, loss: &Loss) -> Option<Pending> {
        let keeps = matches!(self.astray.kept(), Keeps::One | Keeps::Transaction(_));
        if !keeps || !pending.is_request() {
            return Some(pending);
        }
        let proven = !loss.sent && may_pass(loss) || self.astray.is_held();
        if !proven {
            // Nor is what stands behind it kept: its client has heard of the loss.
            self.astray.keeps(Keeps::Nothing);
            return Some(pending);
        }
        let line = || errors::line(&errors::lost(&self.node.upstream.address, loss)).into();
        self.process.metrics.redirects[Redirection::KINDS].inc();
        self.process.cluster.refresh_soon();
        let at = At { kind: Kind::Error, first: true, last: true };
        self.hold(pending, b"-", at, || (Refusal { said: None, by: None, line: line() }, false));
        None
    }

    fn hold(&self, pending: Pending, chunk: &[u8], at: At, why: impl FnOnce() -> (Refusal, bool)) {
        if let Some(to) = self.undone(pending, chunk, at) {
            self.astray.hold(to, why);
        }
    }

    /// `EXEC` behind a `WATCH` that was lost.
    fn end_watched(&self, pending: Pending, at: At) {
        self.lose_watch();
        self.astray.forget_watch();
        // The server has forgotten its transaction, and what it watched.
        if let Some(to) = self.undone(pending, b"-EXECABORT", at) {
            to.whole(self.pushes.null_array());
        }
    }

    fn lose_watch(&self) {
        if !self.astray.has_lost_watch() {
            self.process.metrics.watches_lost.inc();
        }
        self.astray.lose_watch();
        self.process.cluster.refresh_soon();
    }

    /// A request was not executed: lets go of what is held for it.
    fn undone(&self, mut pending: Pending, chunk: &[u8], at: At) -> Option<ReplySlot> {
        match &mut pending {
            Pending::Leave(to, leaves) => leaves.reply(chunk, at, &self.pushes, to),
            Pending::Write(write) => {
                if let (Some(leaves), Some(to)) = (&mut write.leaves, &write.to) {
                    leaves.reply(chunk, at, &self.pushes, to);
                }
            }
            _ => {}
        }
        pending.give_up()
    }

    /// What an error says, if that proves that nothing was executed. What a script says may be its own word.
    fn refusal_of(&self, line: &[u8], is_script: bool) -> Option<Refusal> {
        let by = self.node.address();
        let refusal = |said| Some(Refusal { said, by: by.clone(), line: Bytes::copy_from_slice(line) });
        if line.starts_with(DEMOTED) {
            self.process.cluster.refresh_soon();
            return refusal(None);
        }
        let because = line.strip_prefix(BECAUSE).map(|because| [b"-", because].concat());
        let words = because.as_deref().unwrap_or(line);
        let mut said = Redirection::of(words).filter(|said| said.is_verbatim(words))?;
        self.process.metrics.redirects[said.number()].inc();
        self.name_host(&mut said);
        if is_script && self.is_here(&said) {
            return None;
        }
        match is_script {
            // It may have been executed, and say what it likes: others are to say it too.
            true => self.process.cluster.refresh_soon(),
            false => self.learn(&said),
        }
        refusal(Some(said))
    }
}
