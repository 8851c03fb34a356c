//! Refreshes: which replies an announced update is to bring back, and the fetches that do so.
//!
//! Invariants: of one reply, one refresh is under way at a time. An update that overtakes it does not start
//! another, but has it followed by one, which then knows of all updates before it; and only so many follow one
//! another until the reply is read again, so that nobody's updates are fetched for nobody.

use std::sync::Arc;

use super::cover::Cover;
use super::coverage::{CoverageId, Micros};
use super::entry::Reply;
use super::entry_key::{By, EntryKey};
use super::flights::{Flight, Refresh, Waiter};
use super::id::IdentId;
use super::lease::Lease;
use super::lookup::Lookup;
use super::reason::Reason;
use super::shards::{Cache, State};

/// How many refreshes may follow one that was overtaken.
const FOLLOWERS: u8 = 3;

/// How many more may follow the first that is taken in the place of a read that nobody waits for.
const RENEWALS: u8 = 1;

/// A reply of some key that is to be fetched anew.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub ident: IdentId,
    pub command: u16,
    /// The request's bytes behind the key, raw.
    pub args: Box<[u8]>,
    /// By what it was had, and while which coverage stood that is known.
    by: By,
    under: CoverageId,
    /// How many more may follow this fetch.
    followers: u8,
}

impl Wanted {
    fn new(name: &EntryKey<'_>, under: CoverageId, followers: u8) -> Self {
        let EntryKey { ident, command, args, by, .. } = *name;
        Self { ident, command, args: args.into(), by, under, followers }
    }

    /// A reply that is asked for by itself, and was had while this coverage stood.
    pub fn of(name: &EntryKey<'_>, under: CoverageId) -> Self {
        Self::new(name, under, FOLLOWERS)
    }

    fn read(reply: &Reply) -> Self {
        Self::new(&reply.entry().name(), reply.head.coverage(), FOLLOWERS)
    }

    /// Whether it is the same reply.
    pub fn is(&self, other: &Wanted) -> bool {
        self.ident == other.ident && self.command == other.command && self.args == other.args
    }

    pub fn name<'a>(&'a self, key: &'a [u8]) -> EntryKey<'a> {
        EntryKey { key, ident: self.ident, command: self.command, args: &self.args, by: self.by }
    }
}

impl<W: Waiter> Cache<W> {
    /// Like [`Cache::heard`], and says what of the key is in use, so that it can be fetched anew: replies that
    /// were read since they were filled, and refreshes that this has overtaken.
    pub fn heard_for_refresh(&self, key: &[u8], reason: Reason, now: Micros) -> Vec<Wanted> {
        let (dropped, overtaken) = self.heard_and_dropped(key, reason, now);
        let read = dropped
            .iter()
            .filter(|reply| reply.head.is_read() && reply.head.by().is_by_name())
            .map(Wanted::read);
        let overtaken =
            overtaken.iter().map(|(name, under, left)| Wanted::new(&name.borrow(), *under, *left));
        read.chain(overtaken).collect()
    }

    /// The lease to fetch `wanted` of `key` anew, as a refresh. `None` if somebody fetches it already (a refresh is
    /// followed by another then), if it is there again, or if it must not be kept. Not a read: it counts neither as a
    /// hit nor as a miss.
    pub fn lease_refresh(
        self: &Arc<Self>,
        key: &[u8],
        wanted: &Wanted,
        now: Micros,
        max_staleness: Micros,
        cover: impl FnOnce() -> Option<Cover>,
    ) -> Option<Lease<W>> {
        if max_staleness == 0 {
            return None;
        }
        let (mut name, place) = (wanted.name(key), self.place(key));
        if name.by != By::ITSELF && !self.coverages.stands(wanted.under) {
            // Users may have been changed since.
            name.by = By::GET;
        }
        let mut shard = self.shards[place.shard].lock();
        let same = |flight: &mut Flight<W>| {
            if flight.is(&name) { flight.refresh.as_mut().map(|r| r.again = true) } else { None }
        };
        if shard.flights.of_hash(place.hash).find_map(same).is_some() {
            return None;
        }
        let there = shard.store.find(&name, place.hash);
        if there.is_some_and(|(head, body)| self.state(head, body, max_staleness, now) == State::Fresh) {
            return None;
        }
        let found = self.miss(&mut shard, &name, place, now, cover, |_| None);
        let refresh = Refresh { followers: wanted.followers, again: false };
        // Under the same lock, so that no update comes between.
        if let Lookup::Miss(lease) = &found
            && let Some(flight) = lease.flight_in(&mut shard)
        {
            flight.refresh = Some(refresh);
        }
        drop(shard);
        match found {
            Lookup::Miss(lease) => Some(lease),
            _ => None,
        }
    }
}

impl<W: Waiter> Lease<W> {
    /// It came to nothing before it was read: what may be fetched in its place. So often in a row, that whoever writes a
    /// key all the time does not keep us at it.
    pub fn renew(&self) -> Option<Wanted> {
        let refresh = self.with_flight(|flight| flight.refresh.take()).flatten();
        if !self.name().by.is_by_name() {
            return None;
        }
        let followers = refresh.map_or(Some(RENEWALS), |refresh| refresh.followers.checked_sub(1))?;
        Some(Wanted::new(&self.name(), self.coverage(), followers))
    }

    /// The reply of a refresh has come: what is to follow it, if anything. It is no refresh from now on.
    pub fn end_refresh(&self) -> Option<Wanted> {
        let refresh = self.with_flight(|flight| flight.refresh.take()).flatten()?;
        let followers = refresh.followers.checked_sub(1).filter(|_| refresh.again)?;
        Some(Wanted::new(&self.name(), self.coverage(), followers))
    }
}
