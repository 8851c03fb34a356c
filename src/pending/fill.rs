//! A read that may fill the cache, in flight: its reply is kept until it is known how long it is good.

use bytes::BytesMut;

use super::expiry::{expiry_of, not_kept};
use super::fields;
use super::link_handler::LinkHandler;
use crate::cache::{By, EntryKey, Lease, Micros, Reason};
use crate::command::Fields;
use crate::process::{Ticket, Traced};
use crate::reply::{Refusal, ReplySlot};
use crate::resp::scanner::Kind;
use crate::upstream::{At, Chunk};

/// A lease of ours: sessions wait on it.
pub type CacheLease = Lease<Ticket>;

/// A read and the questions for its end in flight.
pub struct Fill {
    /// `None` if nobody asked: a refresh.
    to: Option<ReplySlot>,
    /// Gone once the reply is known not to be kept; then it is passed on as it comes.
    lease: Option<CacheLease>,
    /// The reply, while it may be kept.
    held: BytesMut,
    /// The read's reply is complete.
    read: bool,
    /// Of which fields the reply tells; none once their times are known.
    fields: Fields,
    /// For how long no field of the reply ends; `None` if that was not proven.
    fields_last: Option<Micros>,
    /// It is told of to a collector.
    traced: Option<Box<Traced>>,
}

impl Fill {
    /// Precondition: the lease's key is registered where that is needed.
    pub fn new(to: Option<ReplySlot>, lease: CacheLease, fields: Fields) -> Self {
        debug_assert!(lease.is_registered(), "nobody would tell of its changes");
        Self {
            to,
            lease: Some(lease),
            held: BytesMut::new(),
            read: false,
            fields,
            fields_last: Some(Micros::MAX),
            traced: None,
        }
    }

    /// It is about to be sent on this link, for a request that was read at `since`, and may be sampled.
    #[cold]
    pub fn trace(&mut self, link: &LinkHandler, since: Micros) {
        self.traced = self.name().and_then(|name| Traced::begin(&link.process, &link.node, since, &name, 1));
    }

    pub fn to(&self) -> Option<&ReplySlot> {
        self.to.as_ref()
    }

    pub fn name(&self) -> Option<EntryKey<'_>> {
        self.lease.as_ref().map(CacheLease::name)
    }

    pub fn into_to(self) -> Option<ReplySlot> {
        self.to
    }

    pub fn reply(mut self: Box<Self>, handler: &LinkHandler, chunk: Chunk<'_>, at: At) -> Option<Box<Self>> {
        if self.read {
            if !at.last {
                // Far longer than any answer that proves something.
                self.fields_last = None;
                return Some(self);
            }
            if self.fields == Fields::None {
                let outcome = self.finish(handler, &chunk);
                if let Some(mut traced) = self.traced {
                    outcome.into_iter().for_each(|outcome| traced.ended(outcome));
                    traced.answered(&handler.node, handler.heard.get());
                }
                return None;
            }
            let proven = fields::judge(self.fields, &chunk, &self.held);
            self.fields_last = self.fields_last.and(proven);
            self.fields = Fields::None;
            return Some(self);
        }
        self.read = at.last;
        let cache = &handler.process.cache;
        if at.kind == Kind::Error {
            if let Some(name) = self.name().filter(|name| name.by != By::ITSELF) {
                handler.process.note_error(&handler.node, name.ident, &chunk);
            }
            self.traced.iter_mut().for_each(|traced| traced.failed(&chunk));
            self.give_up(handler, Reason::ErrorReply);
        } else if self.held.len() + chunk.len() > cache.max_value() {
            self.give_up(handler, Reason::TooLarge);
        }
        if self.lease.is_some() {
            self.held.extend_from_slice(&chunk);
            return Some(self);
        }
        if let Some(to) = &self.to {
            if !self.held.is_empty() {
                to.piece(self.held.split().freeze(), false);
            }
            to.piece(chunk.into_bytes(), at.last);
        }
        Some(self)
    }

    /// The read was refused without being executed: it goes back to its slot, if anybody waits for it. Gives itself back to
    /// wait for what was asked behind it.
    ///
    /// Errors: the reply is to be handed over, or it is not that of the read.
    pub fn redirected(mut self: Box<Self>, refusal: Refusal) -> Result<Box<Self>, Box<Self>> {
        if self.read {
            return Err(self);
        }
        self.traced.iter_mut().for_each(|traced| traced.failed(&refusal.line));
        if self.to.as_ref().is_some_and(|to| to.put_back(refusal).is_err()) {
            return Err(self);
        }
        // Nothing is delivered, so nothing older is overtaken.
        (self.read, self.to, self.lease) = (true, None, None);
        Ok(self)
    }

    fn give_up(&mut self, handler: &LinkHandler, reason: Reason) {
        if let Some(lease) = self.lease.take() {
            lease.give_up(reason, handler.process.now());
            self.traced.iter_mut().for_each(|traced| traced.ended(reason));
        }
    }

    /// Says what became of the reply, unless that was known before.
    fn finish(&mut self, handler: &LinkHandler, ttl: &[u8]) -> Option<Reason> {
        let mut lease = self.lease.take()?;
        // Nobody asked for a refresh, so nobody said it; but its reply is one to `GET` all the same.
        if lease.stands() {
            lease.share(handler.process.shared_by(&handler.node, lease.name().ident, lease.name().by));
        }
        let now = handler.process.now();
        let reply = std::mem::take(&mut self.held).freeze();
        let again = if self.to.is_none() { lease.end_refresh() } else { None };
        let again = again.map(|wanted| (Box::<[u8]>::from(lease.name().key), wanted));
        // As they are now: whoever has joined this fetch may have come after they were changed.
        let namespace = handler.process.namespaces.find(lease.name().key);
        let (max_age, max_staleness) =
            (handler.process.max_age(namespace), handler.process.max_staleness(namespace));
        let expiry = expiry_of(ttl, &reply, lease.opened(), max_age);
        let end = expiry.zip(self.fields_last).map(|(expiry, last)| {
            let last = lease.opened().saturating_add(last);
            expiry.at_most(last)
        });
        let outcome = if let Some(end) = end {
            lease.fill(&reply, end, now, max_staleness).err().unwrap_or(Reason::Filled)
        } else {
            let reason = match expiry {
                None => not_kept(&handler.process, ttl),
                Some(_) => Reason::FieldTtl,
            };
            lease.pass_on(&reply, reason, now, max_staleness)
        };
        if let (Some((key, wanted)), Some(upcalls)) = (again, handler.upcalls()) {
            upcalls.refresh(&key, &wanted);
        }
        if let Some(to) = &self.to {
            to.piece(reply, true);
        }
        Some(outcome)
    }
}
