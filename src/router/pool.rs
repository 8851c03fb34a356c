//! Connections that were a session's own, kept ready for the next that needs one.
//!
//! Invariants: there are never more than were in use at once lately, for one that is not used for a while is
//! closed, and what was used last is used first.

use std::time::Duration;

use tokio::time::Instant;

/// How long one is kept without use.
const IDLE: Duration = Duration::from_secs(60);

/// The most of them.
const MOST: usize = 1024;

/// Of `T`s for `K`s.
pub struct Pool<K, T> {
    /// Those that were used last stand last.
    idle: Vec<(K, T, Instant)>,
}

impl<K, T> Default for Pool<K, T> {
    fn default() -> Self {
        Self { idle: Vec::new() }
    }
}

impl<K: PartialEq, T> Pool<K, T> {
    /// Keeps one.
    pub fn put(&mut self, of: K, link: T) {
        if self.idle.len() >= MOST {
            self.idle.remove(0);
        }
        self.idle.push((of, link, Instant::now()));
    }

    /// The one that was used last.
    pub fn take(&mut self, of: &K) -> Option<T> {
        let i = self.idle.iter().rposition(|(known, ..)| known == of)?;
        Some(self.idle.remove(i).1)
    }

    /// Gives up what was not used for a while. Whoever calls drops it.
    pub fn expired(&mut self) -> Vec<(K, T, Instant)> {
        let fresh =
            self.idle.iter().position(|(.., since)| since.elapsed() < IDLE).unwrap_or(self.idle.len());
        self.idle.drain(..fresh).collect()
    }

    pub fn clear(&mut self) {
        self.idle.clear();
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
        assert_eq!(pool.expired().iter().map(|(_, link, _)| *link).collect::<Vec<_>>(), [1, 10, 2, 20]);
        assert_eq!((pool.take(&a), pool.take(&b), pool.take(&b)), (None, Some(30), None));
        (0..=MOST).for_each(|link| pool.put(a, link));
        assert_eq!(pool.idle.len(), MOST);
        assert_eq!(pool.idle[0].1, 1, "the oldest made room");
        pool.clear();
        assert_eq!(pool.take(&a), None);
    }
}
