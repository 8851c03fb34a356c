//! The password that nearside itself asks its clients for (`auth = "password"`).

use std::fmt;
use std::hint::black_box;

use parking_lot::RwLock;

use crate::upstream::Login;

/// What clients, or those who ask for the admin pages, have to give.
pub struct Password(RwLock<Box<[u8]>>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Password {
    /// Precondition: it is not empty.
    pub fn new(password: &[u8]) -> Self {
        Self(RwLock::new(password.into()))
    }

    /// From now on it is another. Precondition: it is not empty.
    pub fn change(&self, password: &[u8]) {
        *self.0.write() = password.into();
    }

    /// Whether it is this one. Compares in a time that depends on the length of what was given and on nothing else.
    pub fn is(&self, given: &[u8]) -> bool {
        let known = self.0.read();
        let mut different = usize::from(given.len() != known.len());
        for (i, byte) in given.iter().enumerate() {
            let known = known.get(i % known.len().max(1)).copied().unwrap_or_default();
            different |= usize::from(black_box(known ^ byte));
        }
        black_box(different) == 0
    }

    /// Whether this login is right: there is one user, `default`.
    pub fn lets_in(&self, login: &Login) -> bool {
        let named = login.user.as_deref().is_none_or(|user| user == b"default");
        self.is(&login.password) && named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_itself_is_right() {
        let password = Password::new(b"sesame");
        assert!(password.is(b"sesame"));
        for wrong in [&b""[..], b"s", b"sesam", b"sesamf", b"sesamesesame", b"Sesame", b"sesame\0"] {
            assert!(!password.is(wrong), "{}", wrong.escape_ascii());
        }
        let login = |user: Option<&[u8]>| Login { user: user.map(Into::into), password: b"sesame".to_vec() };
        assert!(password.lets_in(&login(None)) && password.lets_in(&login(Some(b"default"))));
        assert!(!password.lets_in(&login(Some(b"DEFAULT"))) && !password.lets_in(&login(Some(b""))));
        assert_eq!(format!("{password:?}"), "***");
    }
}
