//! Requests that a node of a cluster has not executed: refused by it, or not even sent.
//!
//! Invariants:
//! - Only what was not executed goes back to its slot. A reply that begins with one of the [errors](Redirection) proves that;
//!   behind a script only in the server's own words. So does a loss before the first byte was sent.
//! - What is held for the request (a fence, a lease, a place in a flight) is let go when it goes back: it is taken anew when
//!   the request is sent again. What else was sent behind it on the link is still awaited, and thrown away.
//! - What nobody waits for is dropped: a refresh, a refill, an audit. An announcement is not: if it was to be looked whether the
//!   key is there, `delete` is said in its place, which is always right.
//! - That a script is not known proves it too, where the server was told of scripts and has forgotten them since.
//! - One that was announced in the packet of its write is not sent again: the reply is the client's.
//! - What a script says is its own word, to the letter even: it moves no hash slot, nor makes it a cluster of a server that is
//!   none. The session holds it against what others say before the script is sent again.

use std::sync::Arc;

use bytes::Bytes;

use super::in_flight::Pending;
use super::link_handler::LinkHandler;
use crate::cache::NO_LINK;
use crate::command::Say;
use crate::io::Address;
use crate::process::{Node, Process, Topology, errors};
use crate::reply::Refusal;
use crate::resp::scanner::Kind;
use crate::resp::{Redirection, Whereabouts};
use crate::upstream::{At, ConnectError, Loss, Said};

/// A server that was told of scripts has forgotten them.
const NOSCRIPT: &[u8] = b"-NOSCRIPT No matching script. Please use EVAL.\r\n";

impl LinkHandler {
    /// An error came to a request. If that says that it was not executed, and it can be sent again, gives what is still to
    /// come on the link.
    ///
    /// Errors: the request, whose reply it is.
    pub(super) fn redirected(
        &self,
        pending: Pending,
        line: &[u8],
        at: At,
    ) -> Result<Option<Pending>, Pending> {
        if self.id == NO_LINK || !at.last {
            return Err(pending);
        }
        // Told of it again, it will know.
        let forgot = line == NOSCRIPT && self.told.forget();
        let said = Redirection::of(line).or(forgot.then_some(Redirection::TryAgain));
        let Some(mut said) = said else { return Err(pending) };
        let moved = matches!(said, Redirection::Moved { .. });
        if !moved && !self.process.cluster.is() {
            return Err(pending);
        }
        if !forgot {
            self.process.metrics.redirects[said.number()].inc();
        }
        self.name_host(&mut said);
        match self.is_vouched_for(&pending) {
            true => self.learn(&said),
            false if self.process.cluster.is() => self.process.cluster.refresh_soon(),
            false => return Err(pending),
        }
        let is_verbatim = forgot || said.is_verbatim(line);
        let refusal =
            Refusal { said: Some(said), by: self.node.address(), line: Bytes::copy_from_slice(line) };
        match pending {
            Pending::Relay(to) => match to.put_back(refusal) {
                Ok(()) => Ok(None),
                Err(_) => Err(Pending::Relay(to)),
            },
            Pending::Bypass(to, mut bypass) => {
                bypass.traced.iter_mut().for_each(|traced| traced.failed(line));
                match to.put_back(refusal) {
                    Ok(()) => Ok(None),
                    Err(_) => Err(Pending::Bypass(to, bypass)),
                }
            }
            Pending::Write(write) => {
                let is_own_word =
                    is_verbatim && !refusal.said.as_ref().is_some_and(|said| self.is_here(said));
                let can = write.announced == 0 && (write.barrier.is_none() || is_own_word);
                let to = write.to.as_ref().filter(|_| can);
                if to.is_none_or(|to| to.put_back(refusal).is_err()) {
                    return Err(Pending::Write(write));
                }
                if write.barrier.is_some() {
                    // It has only the words for it that it has written nothing.
                    self.process.cache.raise_barrier(self.process.now(), true);
                }
                Ok(None)
            }
            Pending::Fill(fill) => match fill.redirected(refusal) {
                Ok(more) => Ok(Some(Pending::Fill(more))),
                Err(fill) => Err(Pending::Fill(fill)),
            },
            Pending::MgetAssembly(assembly) => match assembly.redirected(refusal) {
                Ok(more) => Ok(more.map(Pending::MgetAssembly)),
                Err(assembly) => Err(Pending::MgetAssembly(assembly)),
            },
            // Said of what differs, it would be taken for another reply.
            Pending::Audit(_) => Ok(None),
            Pending::Said(mut said) if said.keys.front().is_some_and(|(_, say)| *say == Say::Look) => {
                if let Some((key, _)) = said.keys.pop_front() {
                    self.process.cache.no_echo(&key, self.process.now());
                    self.upcalls().iter().for_each(|upcalls| {
                        upcalls.announce(NO_LINK, said.db, vec![(key.clone(), Say::Delete)]);
                    });
                }
                Ok((!said.keys.is_empty()).then_some(Pending::Said(said)))
            }
            pending => Err(pending),
        }
    }

    /// A request was lost with its link, or found none. `None` if it was not sent, and goes back to its slot.
    pub(super) fn lost_with(&self, pending: Pending, loss: &Loss) -> Option<Pending> {
        if self.id == NO_LINK || !self.process.cluster.is() {
            return Some(pending);
        }
        let to = pending.awaited();
        if loss.sent {
            to.into_iter().for_each(|to| to.queue.is_in_doubt(to.slot));
            return Some(pending);
        }
        if !may_pass(loss) {
            return Some(pending);
        }
        let line = errors::line(&errors::lost(&self.node.upstream.address, loss));
        let refusal = Refusal { said: None, by: None, line: line.into() };
        if to.is_none_or(|to| to.put_back(refusal).is_err()) {
            return Some(pending);
        }
        self.process.metrics.redirects[Redirection::KINDS].inc();
        self.process.cluster.refresh_soon();
        None
    }

    /// Whether the reply to such a request is the server's own word, and none of a script's.
    fn is_vouched_for(&self, pending: &Pending) -> bool {
        match pending {
            Pending::Relay(_) => self.process.cluster.is(),
            Pending::Write(write) => write.barrier.is_none(),
            _ => true,
        }
    }

    /// Whether it leads to the node that says so, as no node's own word does.
    pub(super) fn is_here(&self, said: &Redirection) -> bool {
        let (Redirection::Moved { to, .. } | Redirection::Ask { to, .. }) = said else { return false };
        let to = address(to).map(|to| self.process.settings.cluster.reached(to));
        to.is_some() && to.as_ref() == self.node.address().as_deref()
    }

    /// What a node has said tells of the cluster.
    pub(super) fn learn(&self, said: &Redirection) {
        let process = &self.process;
        if !process.cluster.is() {
            return process.cluster.notice(&self.node.upstream.address);
        }
        match said {
            Redirection::Moved { slot, to } => {
                let owner = process.topology().owner_of(*slot).map(|node| node.id);
                match address(to) {
                    // Whoever was not taken for the owner says what is known already, or was true before.
                    Some(to) if owner.is_none_or(|owner| owner == self.node.id) => {
                        process.slot_has_moved(*slot, to);
                    }
                    _ => process.cluster.refresh_soon(),
                }
            }
            Redirection::Ask { to, .. } => {
                let to = address(to).map(|to| process.settings.cluster.reached(to));
                if to.is_none_or(|to| process.topology().node_at(&to).is_none()) {
                    process.cluster.refresh_soon();
                }
            }
            // Which is no news of the cluster.
            Redirection::TryAgain => {}
            _ => process.cluster.refresh_soon(),
        }
    }

    /// A node that names no host means its own.
    pub(super) fn name_host(&self, said: &mut Redirection) {
        let (Redirection::Moved { to, .. } | Redirection::Ask { to, .. }) = said else { return };
        if let (None, Some(Address::Tcp { host, .. })) = (&to.host, self.node.address().as_deref()) {
            to.host = Some(host.as_str().into());
        }
    }
}

/// Whether it may be otherwise soon: whom the node refuses for good, it will refuse again.
pub(super) fn may_pass(loss: &Loss) -> bool {
    match &loss.cause {
        ConnectError::Io(_) => true,
        ConnectError::Refused(line) => Said::of(Kind::Error, line) == Said::NotNow,
        ConnectError::TurnedAway(_) => false,
    }
}

/// The node to which this leads, if it is of the topology.
pub fn node_at<'t>(process: &Process, topology: &'t Topology, to: &Whereabouts) -> Option<&'t Arc<Node>> {
    topology.node_at(&process.settings.cluster.reached(address(to)?))
}

/// Whether the topology, too, has the hash slot there.
pub fn is_owned_at(process: &Process, topology: &Topology, slot: u16, to: &Whereabouts) -> bool {
    let owner = topology.owner_of(slot).map(|node| node.id);
    owner.is_some() && node_at(process, topology, to).map(|node| node.id) == owner
}

/// Where that is, unless nobody has said it.
pub(super) fn address(to: &Whereabouts) -> Option<Address> {
    let host = to.host.as_deref()?.to_owned();
    Some(Address::Tcp { host, port: to.port })
}
