//! An entry: one cached reply, and what it is good for.
//!
//! It is kept in two parts, at the same place of two tables. A lookup reads the head, which is half a cache line, and
//! through the body the key and the reply: two accesses that do not wait for each other, where an entry in one piece
//! made them wait. Of a hit at depth 64 that was a tenth of the processor time.

use std::mem::size_of;

use super::coverage::{CoverageId, Micros};
use super::entry_key::{By, EntryKey};
use super::id::IdentId;

/// How long a filled entry may be served.
#[derive(Clone, Copy, Debug)]
pub struct Expiry {
    /// From when on it must not be served.
    pub expires: Micros,
    /// Whether that comes from `max-age` and not from the server's time to live.
    pub aged: bool,
}

impl Expiry {
    /// This life, or what is left of it until `end`.
    pub fn at_most(self, end: Micros) -> Self {
        match end < self.expires {
            true => Self { expires: end, aged: false },
            false => self,
        }
    }
}

/// What a lookup compares and judges.
pub(super) struct Head {
    /// From when on it must not be served.
    pub(super) expires: Micros,
    generation: u32,
    ident: IdentId,
    /// The key's.
    pub(super) hash: u32,
    slot: u32,
    command: u16,
    key_len: u16,
    args_len: u16,
    /// How many messages of the key were sent before it was read upstream, and are still to come.
    pub(super) pending_echoes: u8,
    /// By what its user has got it, and what follows.
    marks: u8,
}

/// `expires` comes from `max-age`, not from the server.
const AGED: u8 = 1 << 7;

/// Read since it was filled.
const READ: u8 = 1 << 6;

/// Read since it was last spared.
const USED: u8 = 1 << 5;

const _: () = assert!(size_of::<Head>() == 32);

impl Head {
    /// Notes that it was read.
    pub(super) fn touch(&mut self) {
        self.marks |= READ | USED;
    }

    /// Whether it was read since it was filled.
    pub(super) fn is_read(&self) -> bool {
        self.marks & READ != 0
    }

    /// Spares it: whether it was read since that was done last.
    pub(super) fn spare(&mut self) -> bool {
        let used = self.marks & USED != 0;
        self.marks &= !USED;
        used
    }

    pub(super) fn ident(&self) -> IdentId {
        self.ident
    }

    pub(super) fn is_aged(&self) -> bool {
        self.marks & AGED != 0
    }

    pub(super) fn by(&self) -> By {
        By(self.marks & !(AGED | READ | USED))
    }

    /// Whether it is given to whoever asks by these.
    #[inline(always)]
    pub(super) fn allows(&self, by: By) -> bool {
        self.by().has(by)
    }

    pub(super) fn coverage(&self) -> CoverageId {
        CoverageId { slot: self.slot, generation: self.generation }
    }

    /// Where the reply starts in the body's data.
    fn lead(&self) -> usize {
        usize::from(self.key_len) + usize::from(self.args_len)
    }
}

/// What else an entry holds.
pub(super) struct Body {
    /// The key, then the arguments behind it, then the reply, all raw.
    data: Box<[u8]>,
    /// When its lease was given: its read was not sent before.
    opened: Micros,
}

impl Body {
    /// The reply of the entry that has this head.
    pub(super) fn reply(&self, head: &Head) -> &[u8] {
        &self.data[head.lead()..]
    }

    pub(super) fn opened(&self) -> Micros {
        self.opened
    }
}

/// Where a reply comes from, and how long it is good.
pub(super) struct Origin {
    pub(super) coverage: CoverageId,
    /// When its lease was given.
    pub(super) opened: Micros,
    /// How many messages of the key were sent before it was read upstream, and are still to come.
    pub(super) pending_echoes: u32,
    pub(super) expiry: Expiry,
}

/// An entry on its way in or out.
pub(super) struct Reply {
    pub(super) head: Head,
    pub(super) body: Body,
}

impl Reply {
    /// Precondition: key and arguments are not longer than [`MAX_KEY`](super::entry_key::MAX_KEY) and
    /// [`MAX_ARGS`](super::entry_key::MAX_ARGS). `hash` is the key's.
    pub(super) fn new(
        name: &EntryKey<'_>,
        hash: u32,
        reply: &[u8],
        Origin { coverage, opened, pending_echoes, expiry }: Origin,
    ) -> Self {
        let mut data = Vec::with_capacity(name.key.len() + name.args.len() + reply.len());
        data.extend_from_slice(name.key);
        data.extend_from_slice(name.args);
        data.extend_from_slice(reply);
        let head = Head {
            expires: expiry.expires,
            generation: coverage.generation,
            ident: name.ident,
            hash,
            slot: coverage.slot,
            command: name.command,
            key_len: name.key.len() as u16,
            args_len: name.args.len() as u16,
            // To be deaf for less long is safe.
            pending_echoes: pending_echoes.try_into().unwrap_or(u8::MAX),
            marks: name.by.0 | if expiry.aged { AGED } else { 0 },
        };
        Self { head, body: Body { data: data.into_boxed_slice(), opened } }
    }

    pub(super) fn entry(&self) -> Entry<'_> {
        Entry { head: &self.head, body: &self.body }
    }
}

/// An entry where it is kept.
#[derive(Clone, Copy)]
pub(super) struct Entry<'s> {
    pub(super) head: &'s Head,
    pub(super) body: &'s Body,
}

impl<'s> Entry<'s> {
    #[inline(always)]
    pub(super) fn is(&self, name: &EntryKey<'_>) -> bool {
        self.head.command == name.command
            && self.head.ident == name.ident
            && usize::from(self.head.args_len) == name.args.len()
            && usize::from(self.head.key_len) == name.key.len()
            && self.key() == name.key
            && (name.args.is_empty() || self.args() == name.args)
    }

    pub(super) fn key(&self) -> &'s [u8] {
        &self.body.data[..self.head.key_len.into()]
    }

    fn args(&self) -> &'s [u8] {
        &self.body.data[self.head.key_len.into()..self.head.lead()]
    }

    pub(super) fn reply(&self) -> &'s [u8] {
        self.body.reply(self.head)
    }

    pub(super) fn name(&self) -> EntryKey<'s> {
        EntryKey {
            key: self.key(),
            ident: self.head.ident,
            command: self.head.command,
            args: self.args(),
            by: self.head.by(),
        }
    }

    /// What its data takes from the allocator.
    pub(super) fn allocated(&self) -> usize {
        allocated(self.body.data.len())
    }
}

/// What an allocator takes for `len` bytes: classes in steps of at most an eighth.
fn allocated(len: usize) -> usize {
    match len {
        0 => 0,
        1..=128 => len.next_multiple_of(16),
        _ => len.next_multiple_of((len.next_power_of_two() / 8).min(4096)),
    }
}
