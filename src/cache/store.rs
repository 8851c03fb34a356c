//! What is kept: replies, found by their keys, in the order in which they were last used.
//!
//! Invariants:
//! - `bytes` is the sum of the costs of the entries, and a cost is what the entry takes from the allocator,
//!   the tables' share included, not the length of its value.
//! - The slots are dense: an entry that goes leaves its place to the last one. So memory goes back when
//!   entries do, and links and index never lead to a free slot.
//!
//! Order: a new entry comes first, and a hit only marks its entry. When room is needed, a marked entry at
//! the end of the order goes back to its front, unmarked ([`Store::spare_used`]). So a hit changes nothing
//! but the entry itself, where a list in exact order would write to five others.
//!
//! An entry is one allocation (key, arguments of the request behind it, reply) and 64 bytes in two tables. The `lru` crate was here
//! before: with it an entry of 24 + 64 bytes took 265 bytes, now 171, and Redis takes 176.

use std::mem::size_of;

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::entry::{Body, Entry, Head, Reply};
use super::entry_key::EntryKey;
use super::group::{Groups, PerGroup};

/// How many replies are kept under one key; the oldest gives way.
pub(super) const MAX_REPLIES: usize = 256;

/// How many used entries are spared, at most, for one that goes: a bound on the work under the shard's lock.
const MAX_SPARED: usize = 64;

/// The two parts of an entry, and the index' share: a number and a control byte at the mean load of 5/8.
const FIXED_COST: usize = size_of::<Head>() + size_of::<Slot>() + 8;

pub(super) fn cost(entry: &Entry<'_>) -> usize {
    entry.allocated() + FIXED_COST
}

/// An entry's body, and its place in the order.
struct Slot {
    body: Body,
    newer: u32,
    older: u32,
}

/// No slot.
const NONE: u32 = u32::MAX;

/// Replies that were taken out, to be freed when the shard's lock is released.
pub(super) type Replies = SmallVec<[Reply; 1]>;

/// One shard's entries. Keys come with their hash, the same for the same key.
pub(super) struct Store {
    /// The two parts of each entry have the same number.
    heads: Vec<Head>,
    slots: Vec<Slot>,
    /// Where the replies of a key are.
    index: HashTable<u32>,
    newest: u32,
    oldest: u32,
    bytes: usize,
    groups: Groups,
    /// Of these, by group.
    by_group: PerGroup<usize>,
}

impl Store {
    pub(super) fn new(groups: &Groups) -> Self {
        Self {
            heads: Vec::new(),
            slots: Vec::new(),
            index: HashTable::new(),
            newest: NONE,
            oldest: NONE,
            bytes: 0,
            groups: groups.clone(),
            by_group: groups.each(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The same, by group.
    pub(super) fn bytes_by_group(&self) -> impl Iterator<Item = usize> {
        self.by_group.iter().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    fn entry(&self, i: usize) -> Entry<'_> {
        Entry { head: &self.heads[i], body: &self.slots[i].body }
    }

    #[inline]
    fn position(&self, name: &EntryKey<'_>, hash: u32) -> Option<usize> {
        let same = |&i: &u32| self.entry(i as usize).is(name);
        self.index.find(spread(hash), same).map(|&i| i as usize)
    }

    /// The entry named so.
    #[inline]
    pub(super) fn find(&mut self, name: &EntryKey<'_>, hash: u32) -> Option<(&mut Head, &Body)> {
        let i = self.position(name, hash)?;
        Some((&mut self.heads[i], &self.slots[i].body))
    }

    /// The slots of the key's replies.
    fn of_key<'s>(&'s self, key: &'s [u8], hash: u32) -> impl Iterator<Item = usize> + 's {
        let all = self.index.iter_hash(spread(hash)).map(|&i| i as usize);
        all.filter(move |&i| self.entry(i).key() == key)
    }

    /// All replies of `key`.
    pub(super) fn peek<'s>(&'s self, key: &'s [u8], hash: u32) -> impl Iterator<Item = Entry<'s>> + 's {
        self.of_key(key, hash).map(|i| self.entry(i))
    }

    /// Adds a reply, in place of the one of the same name or, if the key has too many, of its oldest.
    /// Gives what had to go.
    pub(super) fn insert(&mut self, reply: Reply) -> Option<Reply> {
        let (name, hash) = (reply.entry().name(), reply.head.hash);
        let mut gone = self.position(&name, hash);
        if gone.is_none() && self.of_key(name.key, hash).nth(MAX_REPLIES - 1).is_some() {
            gone = self.of_key(name.key, hash).min_by_key(|&i| self.entry(i).body.opened());
        }
        let gone = gone.map(|i| self.remove_at(i));
        let cost = cost(&reply.entry());
        self.bytes += cost;
        *self.by_group.of(self.groups.of(reply.entry().key())) += cost;
        let i = self.slots.len() as u32;
        let Reply { head, body } = reply;
        self.heads.push(head);
        self.slots.push(Slot { body, newer: NONE, older: NONE });
        self.index.insert_unique(spread(hash), i, |&i| spread(self.heads[i as usize].hash));
        self.link_first(i);
        gone
    }

    /// Keeps those replies of `key` that `keep` accepts; gives the others.
    pub(super) fn retain(
        &mut self,
        key: &[u8],
        hash: u32,
        mut keep: impl FnMut(&mut Head) -> bool,
    ) -> Replies {
        let mut doomed: SmallVec<[usize; 4]> = SmallVec::new();
        self.of_key(key, hash).for_each(|i| doomed.push(i));
        if doomed.is_empty() {
            // So it is for most keys that are written.
            return Replies::new();
        }
        doomed.retain(|i| !keep(&mut self.heads[*i]));
        // From the last on: what takes the place of one that goes is then not one of them.
        doomed.sort_unstable_by(|a, b| b.cmp(a));
        doomed.into_iter().map(|i| self.remove_at(i)).collect()
    }

    /// Takes one reply out.
    pub(super) fn remove(&mut self, name: &EntryKey<'_>, hash: u32) -> Option<Reply> {
        self.position(name, hash).map(|i| self.remove_at(i))
    }

    /// The entry that comes last in the order.
    pub(super) fn oldest(&self) -> Option<Entry<'_>> {
        (self.oldest != NONE).then(|| self.entry(self.oldest as usize))
    }

    /// Takes the last one out.
    pub(super) fn pop_oldest(&mut self) -> Option<Reply> {
        (self.oldest != NONE).then(|| self.remove_at(self.oldest as usize))
    }

    /// Sends the last ones back to the front while they were used since they came there, unmarked.
    pub(super) fn spare_used(&mut self) {
        for _ in 0..MAX_SPARED {
            let Some(head) = self.heads.get_mut(self.oldest as usize) else { return };
            if !head.spare() {
                return;
            }
            let i = self.oldest;
            self.unlink(i);
            self.link_first(i);
        }
    }

    /// In no particular order, beginning with the `first`th.
    pub(super) fn iter_from(&self, first: usize) -> impl Iterator<Item = Entry<'_>> {
        (first..self.len()).chain(0..first.min(self.len())).map(|i| self.entry(i))
    }

    /// Of the entries that stand before `below`, looks at the last ones, `most` at most, and takes out those whose keys are
    /// `doomed`; gives them, and before where the next are.
    pub(super) fn take_of_last(
        &mut self,
        below: usize,
        most: usize,
        doomed: impl Fn(&[u8]) -> bool,
    ) -> (Replies, usize) {
        let end = below.min(self.len());
        let first = end.saturating_sub(most);
        let mut gone = Replies::new();
        for i in (first..end).rev() {
            if doomed(self.entry(i).key()) {
                gone.push(self.remove_at(i));
            }
        }
        (gone, first)
    }

    fn remove_at(&mut self, i: usize) -> Reply {
        self.unlink(i as u32);
        let hash = spread(self.heads[i].hash);
        if let Ok(entry) = self.index.find_entry(hash, |&known| known == i as u32) {
            entry.remove();
        }
        let (head, Slot { body, .. }) = (self.heads.swap_remove(i), self.slots.swap_remove(i));
        let reply = Reply { head, body };
        let cost = cost(&reply.entry());
        self.bytes -= cost;
        *self.by_group.of(self.groups.of(reply.entry().key())) -= cost;
        self.moved(self.slots.len(), i);
        self.shrink();
        reply
    }

    /// The entry at `from` is now at `to`, if there was one.
    fn moved(&mut self, from: usize, to: usize) {
        let Some(&Slot { newer, older, .. }) = self.slots.get(to) else { return };
        let hash = spread(self.heads[to].hash);
        let to = to as u32;
        if let Some(place) = self.index.find_mut(hash, |&i| i as usize == from) {
            *place = to;
        }
        *self.older_of(newer) = to;
        *self.newer_of(older) = to;
    }

    fn unlink(&mut self, i: u32) {
        let Slot { newer, older, .. } = self.slots[i as usize];
        *self.older_of(newer) = older;
        *self.newer_of(older) = newer;
    }

    fn link_first(&mut self, i: u32) {
        let second = std::mem::replace(&mut self.newest, i);
        let slot = &mut self.slots[i as usize];
        (slot.newer, slot.older) = (NONE, second);
        *self.newer_of(second) = i;
    }

    /// The link from `i` to the next older one; from no slot it leads to the newest.
    fn older_of(&mut self, i: u32) -> &mut u32 {
        self.slots.get_mut(i as usize).map_or(&mut self.newest, |slot| &mut slot.older)
    }

    /// The link from `i` to the next newer one; from no slot it leads to the oldest.
    fn newer_of(&mut self, i: u32) -> &mut u32 {
        self.slots.get_mut(i as usize).map_or(&mut self.oldest, |slot| &mut slot.newer)
    }

    /// Gives memory back when three quarters of it are not in use.
    fn shrink(&mut self) {
        const LEAST: usize = 64;
        let (len, room) = (self.slots.len(), self.slots.capacity());
        if room > LEAST && len < room / 4 {
            self.heads.shrink_to(len * 2);
            self.slots.shrink_to(len * 2);
            self.index.shrink_to(len * 2, |&i| spread(self.heads[i as usize].hash));
        }
    }
}

/// The index takes its place from the low bits and its tag from the high ones.
pub(super) fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::cache::entry::Origin;
    use crate::cache::{By, CoverageId, Expiry, IdentId, Micros};

    const COVERAGE: CoverageId = CoverageId { slot: 0, generation: 1 };

    fn name<'a>(key: &'a [u8], args: &'a [u8]) -> EntryKey<'a> {
        EntryKey { key, ident: IdentId(1), command: 7, args, by: By::ITSELF }
    }

    /// So few that different keys share one.
    fn hash(key: &[u8]) -> u32 {
        key.iter().map(|&byte| u32::from(byte)).sum::<u32>() % 5
    }

    fn put(store: &mut Store, key: &[u8], args: &[u8], reply: &[u8]) {
        let expiry = Expiry { expires: Micros::MAX, aged: false };
        let origin = Origin { coverage: COVERAGE, opened: 0, pending_echoes: args.len() as u32, expiry };
        store.insert(Reply::new(&name(key, args), hash(key), reply, origin));
    }

    fn get<'s>(store: &'s mut Store, name: &EntryKey<'_>) -> Option<&'s [u8]> {
        store.find(name, hash(name.key)).map(|(head, body)| body.reply(head))
    }

    fn touch(store: &mut Store, key: &[u8]) {
        store.find(&name(key, b""), hash(key)).unwrap().0.touch();
    }

    #[test]
    fn an_entry_takes_a_cache_line_and_its_data() {
        assert_eq!(size_of::<Head>() + size_of::<Slot>(), 64);
    }

    #[test]
    fn bytes_return_to_zero() {
        let mut store = Store::new(&Groups::default());
        for i in 0..300u32 {
            put(&mut store, b"k", &i.to_le_bytes(), &vec![b'x'; i as usize * 7]);
            put(&mut store, format!("key{i}").as_bytes(), b"", b"+OK\r\n");
        }
        put(&mut store, b"k", &299u32.to_le_bytes(), b"shorter");
        assert_eq!(store.peek(b"k", hash(b"k")).count(), MAX_REPLIES);
        assert!(store.remove(&name(b"k", &299u32.to_le_bytes()), hash(b"k")).is_some());
        assert!(store.remove(&name(b"key7", b""), hash(b"key7")).is_some());
        assert_eq!(store.retain(b"k", hash(b"k"), |_| false).len(), MAX_REPLIES - 1);
        while store.pop_oldest().is_some() {}
        assert_eq!((store.bytes(), store.len()), (0, 0));
        assert!(store.slots.capacity() <= 64 && store.index.capacity() <= 256, "memory is given back");
    }

    #[test]
    fn memory_goes_back_when_three_quarters_of_it_are_not_in_use() {
        let mut store = Store::new(&Groups::default());
        let room = |store: &Store| (store.heads.capacity(), store.slots.capacity(), store.index.capacity());
        for i in 0..1024u32 {
            put(&mut store, &i.to_le_bytes(), b"", b"+OK\r\n");
        }
        let full = room(&store);
        assert_eq!((full.0, full.1), (1024, 1024));
        while store.len() > 256 {
            store.pop_oldest();
        }
        assert_eq!((store.heads.capacity(), store.slots.capacity()), (1024, 1024), "a quarter is in use");
        store.pop_oldest();
        let (heads, slots, index) = room(&store);
        assert_eq!((heads, slots), (510, 510), "twice of what is in use");
        assert!(index >= 510 && index < full.2);
        let mut small = Store::new(&Groups::default());
        (0..64u32).for_each(|i| put(&mut small, &i.to_le_bytes(), b"", b"+OK\r\n"));
        while small.pop_oldest().is_some() {}
        assert_eq!((small.heads.capacity(), small.slots.capacity()), (64, 64), "so little is kept");
    }

    #[test]
    fn requests_are_told_apart_by_their_argument_boundaries() {
        let mut store = Store::new(&Groups::default());
        put(&mut store, b"k", b"$1\r\n1\r\n$2\r\n23\r\n", b"one");
        put(&mut store, b"k", b"$2\r\n12\r\n$1\r\n3\r\n", b"two");
        assert_eq!(get(&mut store, &name(b"k", b"$1\r\n1\r\n$2\r\n23\r\n")).unwrap(), b"one");
        assert_eq!(get(&mut store, &name(b"k", b"$2\r\n12\r\n$1\r\n3\r\n")).unwrap(), b"two");
        let other_user = EntryKey { ident: IdentId(2), ..name(b"k", b"$2\r\n12\r\n$1\r\n3\r\n") };
        assert!(get(&mut store, &other_user).is_none());
    }

    #[test]
    fn key_and_rest_are_told_apart() {
        let mut store = Store::new(&Groups::default());
        put(&mut store, b"ab", b"c", b"one");
        assert!(get(&mut store, &name(b"a", b"bc")).is_none());
        assert!(get(&mut store, &name(b"abc", b"")).is_none());
    }

    #[test]
    fn what_was_used_is_spared_once() {
        let mut store = Store::new(&Groups::default());
        for key in [b"a", b"b", b"c"] {
            put(&mut store, key, b"", b"+OK\r\n");
        }
        touch(&mut store, b"a");
        let mut order = Vec::new();
        while store.len() > 0 {
            store.spare_used();
            order.push(store.pop_oldest().unwrap().entry().key().to_vec());
        }
        assert_eq!(order, [b"b", b"c", b"a"]);
    }

    #[test]
    fn sparing_ends_though_everything_was_used() {
        let mut store = Store::new(&Groups::default());
        for i in 0..1000u32 {
            let key = i.to_string();
            put(&mut store, key.as_bytes(), b"", b"+OK\r\n");
            touch(&mut store, key.as_bytes());
        }
        store.spare_used();
        assert_eq!(store.oldest().unwrap().key(), MAX_SPARED.to_string().as_bytes());
    }

    proptest! {
        /// Against a list that is searched: the same replies, the same order, whatever is done.
        #[test]
        fn as_a_plain_list(steps in prop::collection::vec((0u8..6, 0u8..12, 0u8..3), 0..200)) {
            let mut store = Store::new(&Groups::default());
            let mut list: VecDeque<(Vec<u8>, Vec<u8>, Vec<u8>)> = VecDeque::new();
            for (n, (step, key, args)) in steps.into_iter().enumerate() {
                let (key, args, reply) = (vec![b'k', key], vec![b'r'; args.into()], vec![b'x'; n]);
                let same = list.iter().position(|(k, r, _)| (k, r) == (&key, &args));
                match step {
                    0 | 1 => {
                        put(&mut store, &key, &args, &reply);
                        same.map(|i| list.remove(i));
                        list.push_front((key, args, reply));
                    }
                    2 => {
                        let found = get(&mut store, &name(&key, &args)).map(<[u8]>::to_vec);
                        prop_assert_eq!(found, same.map(|i| list[i].2.clone()));
                    }
                    3 => {
                        let gone = store.remove(&name(&key, &args), hash(&key)).is_some();
                        prop_assert_eq!(gone, same.and_then(|i| list.remove(i)).is_some());
                    }
                    4 => {
                        let gone = store.retain(&key, hash(&key), |head| head.pending_echoes == 0);
                        let before = list.len();
                        list.retain(|(k, r, _)| *k != key || r.is_empty());
                        prop_assert_eq!(gone.len(), before - list.len());
                    }
                    _ => {
                        let gone = store.pop_oldest().map(|reply| reply.entry().key().to_vec());
                        prop_assert_eq!(gone, list.pop_back().map(|(key, ..)| key));
                    }
                }
                prop_assert_eq!(store.len(), list.len());
                prop_assert_eq!(store.bytes(), store.iter_from(0).map(|entry| cost(&entry)).sum::<usize>());
                prop_assert_eq!(store.oldest().map(|entry| entry.key()), list.back().map(|(key, ..)| &key[..]));
            }
        }
    }
}
