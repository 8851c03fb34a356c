//! Names of replies, and by which of several commands that share a reply it may be had.
//!
//! `GET k` and an element of `MGET k` are one reply under one name, so that neither is ever older than the other. But a user
//! may be allowed to say only one of them, of some keys even. So an entry knows by which of both its user has got it
//! from the upstream; whoever asks by the other goes there once. A change of users voids all entries.

use super::id::{IdentId, NO_IDENT};

/// The longest key under which replies are kept, in bytes.
pub const MAX_KEY: usize = u16::MAX as usize;

/// The longest rest of a request (what stands behind its key) under which a reply is kept, in bytes.
pub const MAX_ARGS: usize = 4096;

/// Names a reply: the exact request, and for whom. Two names of one reply are equal, whatever it is asked `by`.
#[derive(Clone, Copy, Debug)]
pub struct EntryKey<'a> {
    pub key: &'a [u8],
    /// The (user, database, protocol) of the session, as a number.
    pub ident: IdentId,
    /// The command, as a number.
    pub command: u16,
    /// What stands behind the key in the request, raw, with its argument boundaries; at most [`MAX_ARGS`].
    pub args: &'a [u8],
    pub by: By,
}

impl PartialEq for EntryKey<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.ident == other.ident
            && self.command == other.command
            && self.key == other.key
            && self.args == other.args
    }
}

impl EntryKey<'_> {
    /// Whether no reply is kept under it.
    pub(super) fn is_too_long(&self) -> bool {
        self.key.len() > MAX_KEY || self.args.len() > MAX_ARGS || self.ident == NO_IDENT
    }
}

/// An [`EntryKey`] that owns its bytes.
pub struct EntryKeyBuf {
    /// Key and arguments, one behind the other.
    bytes: Box<[u8]>,
    key_len: usize,
    ident: IdentId,
    command: u16,
    by: By,
}

impl EntryKeyBuf {
    pub fn new(name: &EntryKey<'_>) -> Self {
        let bytes = [name.key, name.args].concat().into_boxed_slice();
        Self { bytes, key_len: name.key.len(), ident: name.ident, command: name.command, by: name.by }
    }

    pub fn borrow(&self) -> EntryKey<'_> {
        let (key, args) = self.bytes.split_at(self.key_len);
        EntryKey { key, ident: self.ident, command: self.command, args, by: self.by }
    }
}

/// A set of commands; empty where none share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct By(pub(super) u8);

impl By {
    /// The command that the name says, and no other.
    pub const ITSELF: By = By(0);
    pub const GET: By = By(1);
    pub const MGET: By = By(2);

    /// Whether all of `wanted` are in it.
    pub(super) fn has(self, wanted: By) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    pub fn and(self, other: By) -> By {
        By(self.0 | other.0)
    }

    /// Whether the command that the name says is in it, so that nearside may say that to have the reply anew.
    pub fn is_by_name(self) -> bool {
        self != By::MGET
    }
}
