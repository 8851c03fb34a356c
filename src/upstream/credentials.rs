//! With what a connection logs in: a login that a client gave, or nearside's own, whose password may change while
//! connections stand.
//!
//! Invariants:
//! - Each password of nearside's own has a number, which grows: a connection knows which one it has said. A new connection
//!   says the newest. Who nearside is never changes with it, so links, pools and the cache know nothing of passwords.
//! - The password before is kept until the upstream was seen to take the newest: whoever changes it may do so on the
//!   server first, or where nearside reads it first.
//! - A password is shown nowhere.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

/// A login that a client gave.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Login {
    /// `None` is the upstream's default user.
    pub user: Option<Vec<u8>>,
    pub password: Vec<u8>,
}

impl Login {
    /// What the upstream calls the user.
    pub fn user(&self) -> &[u8] {
        self.user.as_deref().unwrap_or(b"default")
    }
}

/// As whom a connection logs in.
#[derive(Clone)]
pub enum Who {
    /// As nearside itself.
    Own(Credentials),
    /// As a client does.
    Client(Login),
}

/// Nearside's own login. Clones are of the same; the default is none at all, as which nothing is said.
#[derive(Clone, Default)]
pub struct Credentials(Arc<Inner>);

#[derive(Default)]
struct Inner {
    user: Option<Vec<u8>>,
    known: watch::Sender<Known>,
    /// The upstream has refused the newest.
    doubted: Notify,
}

#[derive(Clone, Default)]
enum Known {
    /// There is no password, and none will come.
    #[default]
    Nothing,
    /// The first is being asked for.
    Awaited,
    /// There is none yet, and why.
    Missing(Arc<str>),
    Password(Arc<Password>),
}

/// One password of nearside's own.
pub(super) struct Password {
    pub(super) number: u64,
    text: Vec<u8>,
    before: Option<Arc<Password>>,
}

impl Password {
    /// The one before, while the upstream was not seen to take this one.
    pub(super) fn before(&self) -> Option<Arc<Password>> {
        self.before.clone()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Credentials {
    /// A password that does not change.
    pub fn fixed(user: Option<Vec<u8>>, password: Vec<u8>) -> Self {
        let own = Self::awaited(user);
        own.take(password);
        own
    }

    /// The password is still to [come](Self::take).
    pub fn awaited(user: Option<Vec<u8>>) -> Self {
        Self(Arc::new(Inner { user, known: watch::Sender::new(Known::Awaited), doubted: Notify::new() }))
    }

    /// What the upstream calls the user.
    pub fn user(&self) -> &[u8] {
        self.0.user.as_deref().unwrap_or(b"default")
    }

    /// Whether it logs in at all.
    pub fn logs_in(&self) -> bool {
        !matches!(*self.0.known.borrow(), Known::Nothing)
    }

    /// Whether that is the same user with the newest password.
    pub fn is(&self, login: &Login) -> bool {
        let newest = self.newest();
        newest.is_some_and(|newest| newest.text == login.password) && self.user() == login.user()
    }

    /// From now on that is the password; says whether it is another than before.
    pub fn take(&self, text: Vec<u8>) -> bool {
        self.0.known.send_if_modified(|known| {
            let (before, number) = match &*known {
                Known::Password(newest) if newest.text == text => return false,
                // Of those before the newest, one at most is kept: the last that the upstream may have taken.
                Known::Password(newest) => (Some(newest), newest.number + 1),
                _ => (None, 1),
            };
            let alone = |newest: &Arc<Password>| {
                let Password { number, text, .. } = &**newest;
                let taken = newest.before.clone();
                taken.unwrap_or_else(|| {
                    Arc::new(Password { number: *number, text: text.clone(), before: None })
                })
            };
            let before = before.map(alone);
            *known = Known::Password(Arc::new(Password { number, text, before }));
            true
        })
    }

    /// There is no password, and why; one that was there before is kept.
    pub fn miss(&self, why: &str) {
        self.0.known.send_if_modified(|known| {
            let missing = matches!(known, Known::Awaited | Known::Missing(_));
            if missing {
                *known = Known::Missing(why.into());
            }
            missing
        });
    }

    /// Why there is no password, if there is to be one.
    pub fn missing(&self) -> Option<Arc<str>> {
        match &*self.0.known.borrow() {
            Known::Nothing | Known::Password(_) => None,
            Known::Awaited => Some("it was not told yet".into()),
            Known::Missing(why) => Some(why.clone()),
        }
    }

    /// Ends when the upstream has refused the newest password: there may be a newer one.
    pub async fn doubted(&self) {
        self.0.doubted.notified().await;
    }

    pub(super) fn doubt(&self) {
        self.0.doubted.notify_one();
    }

    /// The newest password, waiting for the first. Errors: why there is none.
    pub(super) async fn first(&self) -> Result<Option<Arc<Password>>, Arc<str>> {
        let mut known = self.0.known.subscribe();
        let known = known.wait_for(|known| !matches!(known, Known::Awaited)).await;
        match known.as_deref() {
            Ok(Known::Password(newest)) => Ok(Some(newest.clone())),
            Ok(Known::Missing(why)) => Err(why.clone()),
            _ => Ok(None),
        }
    }

    pub(super) fn newest(&self) -> Option<Arc<Password>> {
        match &*self.0.known.borrow() {
            Known::Password(newest) => Some(newest.clone()),
            _ => None,
        }
    }

    /// Told of each new password.
    pub(super) async fn changes(&self, told: impl Fn()) {
        let mut known = self.0.known.subscribe();
        while known.changed().await.is_ok() {
            told();
        }
    }

    /// The upstream has taken the password of this number: none before it is needed any more.
    pub(super) fn taken(&self, number: u64) {
        self.0.known.send_if_modified(|known| {
            if let Known::Password(newest) = known
                && newest.number == number
                && newest.before.is_some()
            {
                *newest = Arc::new(Password { number, text: newest.text.clone(), before: None });
            }
            // Nobody has to say anything because of that.
            false
        });
    }

    pub(super) fn login(&self, password: &Password) -> Login {
        Login { user: self.0.user.clone(), password: password.text.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(own: &Credentials) -> (u64, Vec<u8>, Option<Vec<u8>>) {
        let newest = own.newest().unwrap();
        (newest.number, newest.text.clone(), newest.before().map(|before| before.text.clone()))
    }

    #[test]
    fn the_last_password_that_was_taken_is_kept_until_another_is() {
        let own = Credentials::awaited(Some(b"app".to_vec()));
        assert!(own.logs_in() && own.missing().is_some() && own.newest().is_none());
        assert!(own.take(b"one".to_vec()) && !own.take(b"one".to_vec()));
        own.taken(1);
        assert!(own.take(b"two".to_vec()) && own.take(b"three".to_vec()));
        assert_eq!(texts(&own), (3, b"three".to_vec(), Some(b"one".to_vec())), "two was never taken");
        own.taken(2);
        assert_eq!(texts(&own).2, Some(b"one".to_vec()), "nor is it the newest");
        own.taken(3);
        assert_eq!(texts(&own), (3, b"three".to_vec(), None));
        own.miss("the file is empty");
        assert!(own.missing().is_none(), "what was there is kept");
        let login =
            |user: &[u8], password: &[u8]| Login { user: Some(user.into()), password: password.into() };
        assert!(own.is(&login(b"app", b"three")));
        assert!(!own.is(&login(b"app", b"one")) && !own.is(&login(b"default", b"three")));
    }

    #[tokio::test]
    async fn the_first_is_waited_for_until_there_is_a_reason_why_it_does_not_come() {
        assert!(matches!(Credentials::default().first().await, Ok(None)), "none is needed");
        let own = Credentials::awaited(None);
        let told = own.clone();
        let (first, ()) = tokio::join!(own.first(), async move { told.miss("no such file") });
        assert_eq!(first.err().as_deref(), Some("no such file"));
        own.take(b"one".to_vec());
        assert_eq!(own.first().await.ok().flatten().map(|newest| newest.number), Some(1));
        assert_eq!((format!("{own:?}"), own.user()), ("***".to_owned(), &b"default"[..]));
    }
}
