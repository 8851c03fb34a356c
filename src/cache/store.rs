//! What is kept: under each key, all its cached replies, in least-recently-used order of the keys.
//!
//! What always holds: `Store::bytes` is the sum of the costs of the entries in it, and a cost is what the
//! entry takes from the allocator, the table's share included, not the length of its value.

use std::mem::size_of;

use lru::{DefaultHasher, LruCache};
use smallvec::SmallVec;

use super::{CoverageId, Life, Micros, Name};

/// How many replies are kept under one key; the oldest gives way.
const MAX_REPLIES: usize = 256;

/// One cached reply.
pub(super) struct Reply {
    /// The rest of the request behind the key, then the reply, both raw.
    data: Box<[u8]>,
    rest_len: u16,
    command: u16,
    ident: u32,
    pub(super) coverage: CoverageId,
    /// How many messages of the key were sent before it was read upstream, and are still to come.
    pub(super) deaf: u32,
    /// Read since it was filled.
    pub(super) read: bool,
    /// `expires` comes from `max-age`, not from the server.
    pub(super) aged: bool,
    pub(super) filled: Micros,
    /// From when on it must not be served.
    pub(super) expires: Micros,
}

impl Reply {
    pub(super) fn new(
        name: &Name<'_>,
        reply: &[u8],
        coverage: CoverageId,
        deaf: u32,
        filled: Micros,
        life: Life,
    ) -> Self {
        let mut data = Vec::with_capacity(name.rest.len() + reply.len());
        data.extend_from_slice(name.rest);
        data.extend_from_slice(reply);
        Self {
            data: data.into_boxed_slice(),
            rest_len: name.rest.len() as u16,
            command: name.command,
            ident: name.ident,
            coverage,
            deaf,
            read: false,
            aged: life.aged,
            filled,
            expires: life.expires,
        }
    }

    pub(super) fn is(&self, name: &Name<'_>) -> bool {
        self.command == name.command && self.ident == name.ident && self.rest() == name.rest
    }

    pub(super) fn rest(&self) -> &[u8] {
        &self.data[..self.rest_len as usize]
    }

    pub(super) fn reply(&self) -> &[u8] {
        &self.data[self.rest_len as usize..]
    }

    pub(super) fn command(&self) -> u16 {
        self.command
    }

    pub(super) fn ident(&self) -> u32 {
        self.ident
    }
}

/// All cached replies of one key.
pub(super) type Replies = SmallVec<[Reply; 1]>;

/// One shard's entries.
pub(super) struct Store {
    entries: LruCache<Box<[u8]>, Replies, DefaultHasher>,
    bytes: usize,
}

/// What an allocator takes for `len` bytes: classes in steps of at most an eighth.
fn allocated(len: usize) -> usize {
    match len {
        0 => 0,
        1..=128 => len.next_multiple_of(16),
        _ => len.next_multiple_of((len.next_power_of_two() / 8).min(4096)),
    }
}

/// The list node with the replies' inline part (key and replies, two links), and the table's share: two
/// pointers and a control byte at the mean load of 5/8.
const KEY_COST: usize = size_of::<Box<[u8]>>() + size_of::<Replies>() + 2 * size_of::<usize>() + 28;

fn cost(key: &[u8], replies: &Replies) -> usize {
    let spilled = if replies.spilled() { allocated(replies.capacity() * size_of::<Reply>()) } else { 0 };
    let data: usize = replies.iter().map(|reply| allocated(reply.data.len())).sum();
    KEY_COST + allocated(key.len()) + spilled + data
}

impl Store {
    pub(super) fn new() -> Self {
        Self { entries: LruCache::unbounded_with_hasher(DefaultHasher::default()), bytes: 0 }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The reply named so; its key becomes the most recently used.
    pub(super) fn get_mut(&mut self, name: &Name<'_>) -> Option<&mut Reply> {
        self.entries.get_mut(name.key)?.iter_mut().find(|reply| reply.is(name))
    }

    /// All replies of `key`, without a change of the order.
    pub(super) fn peek(&self, key: &[u8]) -> Option<&Replies> {
        self.entries.peek(key)
    }

    pub(super) fn insert(&mut self, name: &Name<'_>, reply: Reply) {
        if let Some(replies) = self.entries.get_mut(name.key) {
            let before = cost(name.key, replies);
            match replies.iter_mut().find(|old| old.is(name)) {
                Some(old) => *old = reply,
                None => {
                    if replies.len() >= MAX_REPLIES {
                        replies.remove(0);
                    }
                    replies.push(reply);
                }
            }
            self.bytes = self.bytes - before + cost(name.key, replies);
        } else {
            let mut replies = Replies::new();
            replies.push(reply);
            self.bytes += cost(name.key, &replies);
            self.entries.put(name.key.into(), replies);
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Replies> {
        let replies = self.entries.pop(key)?;
        self.bytes -= cost(key, &replies);
        Some(replies)
    }

    /// Keeps those replies of `key` that `keep` accepts; gives the others.
    pub(super) fn retain(&mut self, key: &[u8], mut keep: impl FnMut(&mut Reply) -> bool) -> Replies {
        let Some(replies) = self.entries.peek_mut(key) else { return Replies::new() };
        let before = cost(key, replies);
        let mut dropped = Replies::new();
        for i in (0..replies.len()).rev() {
            if !keep(&mut replies[i]) {
                dropped.push(replies.remove(i));
            }
        }
        if replies.is_empty() {
            self.entries.pop(key);
            self.bytes -= before;
        } else {
            self.bytes = self.bytes - before + cost(key, replies);
        }
        dropped
    }

    /// Drops one reply, and the key with the last of them.
    pub(super) fn remove_reply(&mut self, name: &Name<'_>) {
        let Some(replies) = self.entries.peek_mut(name.key) else { return };
        if replies.len() <= 1 {
            self.remove(name.key);
            return;
        }
        let before = cost(name.key, replies);
        replies.retain(|reply| !reply.is(name));
        self.bytes = self.bytes - before + cost(name.key, replies);
    }

    /// Takes out the least recently used key.
    pub(super) fn pop_oldest(&mut self) -> Option<(Box<[u8]>, Replies)> {
        let (key, replies) = self.entries.pop_lru()?;
        self.bytes -= cost(&key, &replies);
        Some((key, replies))
    }

    /// Whether every reply of the least recently used key fulfils `void`; false if there is none.
    pub(super) fn oldest_is(&self, mut void: impl FnMut(&Reply) -> bool) -> bool {
        self.entries.peek_lru().is_some_and(|(_, replies)| replies.iter().all(&mut void))
    }

    /// From the most to the least recently used.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &Replies)> {
        self.entries.iter().map(|(key, replies)| (&**key, replies))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COVERAGE: CoverageId = CoverageId { slot: 0, generation: 1 };

    fn name<'a>(key: &'a [u8], rest: &'a [u8]) -> Name<'a> {
        Name { key, ident: 1, command: 7, rest }
    }

    fn put(store: &mut Store, key: &[u8], rest: &[u8], reply: &[u8]) {
        let name = name(key, rest);
        store.insert(
            &name,
            Reply::new(&name, reply, COVERAGE, 0, 0, Life { expires: Micros::MAX, aged: false }),
        );
    }

    #[test]
    fn bytes_return_to_zero() {
        let mut store = Store::new();
        for i in 0..300u32 {
            put(&mut store, b"k", &i.to_le_bytes(), &vec![b'x'; i as usize * 7]);
            put(&mut store, format!("key{i}").as_bytes(), b"", b"+OK\r\n");
        }
        put(&mut store, b"k", &299u32.to_le_bytes(), b"shorter");
        assert_eq!(store.peek(b"k").unwrap().len(), MAX_REPLIES);
        store.remove_reply(&name(b"k", &299u32.to_le_bytes()));
        store.remove_reply(&name(b"key7", b""));
        assert!(store.remove(b"k").is_some());
        while store.pop_oldest().is_some() {}
        assert_eq!((store.bytes(), store.len()), (0, 0));
    }

    #[test]
    fn requests_are_told_apart_by_their_argument_boundaries() {
        let mut store = Store::new();
        put(&mut store, b"k", b"$1\r\n1\r\n$2\r\n23\r\n", b"one");
        put(&mut store, b"k", b"$2\r\n12\r\n$1\r\n3\r\n", b"two");
        assert_eq!(store.get_mut(&name(b"k", b"$1\r\n1\r\n$2\r\n23\r\n")).unwrap().reply(), b"one");
        assert_eq!(store.get_mut(&name(b"k", b"$2\r\n12\r\n$1\r\n3\r\n")).unwrap().reply(), b"two");
        let other_user = Name { ident: 2, ..name(b"k", b"$2\r\n12\r\n$1\r\n3\r\n") };
        assert!(store.get_mut(&other_user).is_none());
    }
}
