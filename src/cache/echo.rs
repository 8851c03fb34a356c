//! Echoes: our own announcements, as they come back on the feed.
//!
//! A write through this nearside is announced, and the feed brings the announcement back to us. It must not
//! void what was read after the write. A message cannot be told to be our own, but that is not needed:
//!
//! Let a link send a write, its announcement A, and later a read R. The upstream executes them in this order,
//! and the feed brings messages in the order of their execution. So whatever the feed brings *up to* A was
//! sent before R was executed, and R's reply knows of it. A lease on that link is therefore **deaf** to
//! all that is heard of its key until as many messages have come as announcements of the key were under way
//! on the link; the entry that it fills stays deaf as long. Messages of others in between make it hear again
//! too early, which costs a refill, never too late.
//!
//! Invariants: a count is never higher than the number of announcements whose echo is still to come.
//! Every message of a key lowers all its counts; a failed announcement, a lost link and a new feed end them.

use hashbrown::HashTable;

use super::id::LinkId;
use super::store::spread;

/// Announcements under way, in one shard at most; those beyond are heard like any other.
const MAX_ECHOES: usize = 1024;

/// Announcements of one key that one link has sent and the feed has not brought back.
struct Echo {
    hash: u32,
    key: Box<[u8]>,
    link: LinkId,
    count: u32,
}

/// What is under way in one shard.
#[derive(Default)]
pub(super) struct Echoes(HashTable<Echo>);

impl Echoes {
    /// To how many messages a lease that is opened now on `link` is deaf.
    pub(super) fn awaited(&self, key: &[u8], hash: u32, link: LinkId) -> u32 {
        let found = self.0.find(spread(hash), |echo| echo.link == link && *echo.key == *key);
        found.map_or(0, |echo| echo.count)
    }

    /// Whether any message of the key is to come back.
    pub(super) fn are_awaited(&self, key: &[u8], hash: u32) -> bool {
        self.0.find(spread(hash), |echo| *echo.key == *key).is_some()
    }

    /// An announcement of `key` is about to be sent on `link`.
    pub(super) fn expect(&mut self, key: &[u8], hash: u32, link: LinkId) {
        match self.0.find_mut(spread(hash), |echo| echo.link == link && *echo.key == *key) {
            Some(echo) => echo.count += 1,
            None => {
                if self.0.len() < MAX_ECHOES {
                    let echo = Echo { hash, key: key.into(), link, count: 1 };
                    self.0.insert_unique(spread(hash), echo, |echo| spread(echo.hash));
                }
            }
        }
    }

    /// Counts one message of `key`, or forgets all that are to come.
    pub(super) fn end(&mut self, key: &[u8], hash: u32, all: bool) {
        for echo in self.0.iter_hash_mut(spread(hash)).filter(|echo| *echo.key == *key) {
            echo.count = if all { 0 } else { echo.count - 1 };
        }
        let is_over = |echo: &Echo| echo.count == 0 && *echo.key == *key;
        while let Ok(echo) = self.0.find_entry(spread(hash), is_over) {
            echo.remove();
        }
    }

    /// Takes out what was announced on `link`; gives the keys.
    pub(super) fn lose(&mut self, link: LinkId) -> Vec<Box<[u8]>> {
        self.0.extract_if(|echo| echo.link == link).map(|echo| echo.key).collect()
    }

    /// Forgets those of the keys that `is_of` accepts.
    pub(super) fn forget_of(&mut self, is_of: impl Fn(&[u8]) -> bool) {
        self.0.retain(|echo| !is_of(&echo.key));
    }

    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}
