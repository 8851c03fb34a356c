//! Connections that were a session's own, kept ready for the next that needs one.
//!
//! Invariants: there are never more than were in use at once lately, for one that is not used for a while is
//! closed, and of those of one identity the one that was used last is used first. Beyond a bound, the identity that was
//! least lately in use gives one up.

use std::collections::VecDeque;
use std::hash::Hash;
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

/// How long one is kept without use.
const IDLE: Duration = Duration::from_secs(60);

/// The most of them.
const MOST: usize = 1024;

/// Of `T`s for `K`s.
pub struct Pool<K: Hash + Eq, T> {
    /// Those that were used last stand last.
    idle: LruCache<K, VecDeque<(T, Instant)>>,
    /// How many there are of all.
    len: usize,
}

impl<K: Hash + Eq, T> Default for Pool<K, T> {
    fn default() -> Self {
        Self { idle: LruCache::unbounded(), len: 0 }
    }
}

impl<K: Hash + Eq + Clone, T> Pool<K, T> {
    /// Keeps one; gives back another that makes room for it. Whoever calls drops that.
    pub fn put(&mut self, of: K, link: T) -> Option<T> {
        self.idle.get_or_insert_mut(of, VecDeque::new).push_back((link, Instant::now()));
        self.len += 1;
        if self.len <= MOST {
            return None;
        }
        let least = self.idle.peek_lru().map(|(of, _)| of.clone())?;
        self.pop(&least, VecDeque::pop_front)
    }

    /// The one that was used last.
    pub fn take(&mut self, of: &K) -> Option<T> {
        self.idle.promote(of);
        self.pop(of, VecDeque::pop_back)
    }

    fn pop(
        &mut self,
        of: &K,
        end: impl FnOnce(&mut VecDeque<(T, Instant)>) -> Option<(T, Instant)>,
    ) -> Option<T> {
        let theirs = self.idle.peek_mut(of)?;
        let popped = end(theirs);
        if theirs.is_empty() {
            self.idle.pop(of);
        }
        self.len -= usize::from(popped.is_some());
        popped.map(|(link, _)| link)
    }

    /// Gives up what was not used for a while. Whoever calls drops it.
    pub fn expired(&mut self) -> Vec<T> {
        let is_over = |(_, since): &(T, Instant)| since.elapsed() >= IDLE;
        let with_some = self.idle.iter().filter(|(_, theirs)| theirs.front().is_some_and(is_over));
        let identities: Vec<K> = with_some.map(|(of, _)| of.clone()).collect();
        let mut expired = Vec::new();
        for of in identities {
            while self.idle.peek(&of).and_then(VecDeque::front).is_some_and(is_over) {
                expired.extend(self.pop(&of, VecDeque::pop_front));
            }
        }
        expired
    }

    pub fn clear(&mut self) {
        self.idle.clear();
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_used_last_is_used_first_and_the_rest_ends() {
        let mut pool = Pool::default();
        let (a, b) = ('a', 'b');
        for link in 1..=3 {
            pool.put(a, link);
            pool.put(b, 10 * link);
            tokio::time::advance(IDLE / 2).await;
        }
        assert_eq!(pool.take(&a), Some(3));
        let mut expired = pool.expired();
        expired.sort_unstable();
        assert_eq!((expired, pool.len), (vec![1, 2, 10, 20], 1));
        assert_eq!((pool.take(&a), pool.take(&b), pool.take(&b)), (None, Some(30), None));
        assert_eq!((pool.len, pool.idle.len()), (0, 0), "an identity without any takes no place");
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_bound_who_was_least_lately_there_gives_one_up() {
        let mut pool = Pool::default();
        pool.put('a', 0);
        let most = MOST as i32;
        assert!((1..most).all(|link| pool.put('b', link).is_none()));
        assert_eq!(pool.put('b', most), Some(0));
        assert_eq!(pool.put('b', most + 1), Some(1), "the oldest of its own, where there is nobody else");
        assert_eq!((pool.len, pool.take(&'a'), pool.take(&'b')), (MOST, None, Some(most + 1)));
        pool.clear();
        assert_eq!((pool.len, pool.take(&'b')), (0, None));
    }
}
