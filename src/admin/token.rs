//! The token of the admin pages.
//!
//! Invariants:
//! - What the file holds counts from the next request on. While it holds none, or is gone, the token before counts; if there
//!   was none, nobody is let in.
//! - Tokens are compared in a time that does not tell how much of one is right.
//! - A browser that has shown it once is given a cookie, which holds not the token but a word of this process for it: cookies
//!   of one port are sent to every other of the host. A new token voids it.

use std::cell::RefCell;
use std::path::PathBuf;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, COOKIE, HOST};
use rustix::rand::{GetRandomFlags, getrandom};
use tracing::warn;

use crate::config::{Secret, read_password};
use crate::metrics::Seldom;
use crate::process::Password;

/// See the [module](self).
pub struct Token {
    file: PathBuf,
    known: RefCell<Option<Known>>,
    told: Seldom,
}

struct Known {
    text: Secret,
    token: Password,
    /// What the cookie holds, as it is given and as it is compared; `None` where the system has no random numbers.
    word: Option<(String, Password)>,
}

impl Known {
    fn new(text: Secret) -> Self {
        let token = Password::new(text.expose().as_bytes());
        let word = word().map(|word| (word.clone(), Password::new(word.as_bytes())));
        Self { text, token, word }
    }
}

/// A word that nobody can guess.
fn word() -> Option<String> {
    let mut bytes = [0u8; 16];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty()).ok()?;
    (filled == bytes.len()).then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The cookie of this port: of several nearsides on a host, each has its own.
fn name(headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let port = host.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()).unwrap_or(80);
    format!("nearside-{port}")
}

impl Token {
    /// In the first line of this file.
    pub fn of(file: PathBuf) -> Self {
        Self { file, known: RefCell::default(), told: Seldom::default() }
    }

    /// Reads the file.
    pub(super) async fn refresh(&self) {
        let file = self.file.clone();
        // A file system that does not answer must keep nobody else waiting.
        let read = tokio::task::spawn_blocking(move || read_password(&file)).await;
        match read.unwrap_or_else(|_| Err("it cannot be read".to_owned())) {
            Ok(text) => {
                self.told.over();
                let mut known = self.known.borrow_mut();
                if known.as_ref().is_none_or(|known| known.text != text) {
                    *known = Some(Known::new(text));
                }
            }
            Err(why) => {
                if let Some(untold) = self.told.now() {
                    let (file, there) = (self.file.display(), self.known.borrow().is_some());
                    let what = if there { "the token before is kept" } else { "nobody is let in" };
                    warn!(%file, why, untold, "admin-token-file holds no token, and is read again: {what}");
                }
            }
        }
    }

    /// Whether that is the token.
    pub(super) fn is(&self, given: &[u8]) -> bool {
        self.known.borrow().as_ref().is_some_and(|known| known.token.is(given))
    }

    /// Whether the request shows the token, or the cookie.
    pub(super) fn is_shown(&self, headers: &HeaderMap) -> bool {
        let bearer = |value: &[u8]| {
            let (scheme, token) = value.split_at_checked("Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then(|| self.is(token.trim_ascii()))
        };
        let authorization = headers.get_all(AUTHORIZATION).into_iter();
        authorization.filter_map(|value| bearer(value.as_bytes())).any(|is| is) || self.has_cookie(headers)
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        let (known, start) = (self.known.borrow(), format!("{}=", name(headers)));
        let Some((_, word)) = known.as_ref().and_then(|known| known.word.as_ref()) else { return false };
        let cookies = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let mut values =
            cookies.flat_map(|cookies| cookies.split("; ")).filter_map(|one| one.strip_prefix(&*start));
        values.any(|value| word.is(value.as_bytes()))
    }

    /// The cookie by which a browser shows from now on that it had the token.
    pub(super) fn cookie(&self, headers: &HeaderMap) -> Option<String> {
        let known = self.known.borrow();
        let (word, _) = known.as_ref()?.word.as_ref()?;
        Some(format!("{}={word}; Path=/; HttpOnly; SameSite=Strict", name(headers)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(token: &Token, name: &'static str, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert("host", "127.0.0.1:9380".parse().expect("a host"));
        headers.insert(name, value.parse().expect("a value"));
        token.is_shown(&headers)
    }

    #[tokio::test]
    async fn what_the_file_holds_counts_and_a_new_token_voids_the_cookie() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        let token = Token::of(file.clone());
        token.refresh().await;
        assert!(!shows(&token, "authorization", "Bearer "), "there is none yet");
        std::fs::write(&file, "sesame\n").expect("written");
        token.refresh().await;
        for right in ["Bearer sesame", "bearer sesame", "Bearer  sesame "] {
            assert!(shows(&token, "authorization", right), "{right:?}");
        }
        for wrong in ["sesame", "Basic sesame", "Bearer", "Bearer ", "Bearer sesam", "Bearer sesame2"] {
            assert!(!shows(&token, "authorization", wrong), "{wrong:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("host", "127.0.0.1:9380".parse().expect("a host"));
        let given = token.cookie(&headers).expect("a cookie");
        assert!(
            !given.contains("sesame") && given.ends_with("; Path=/; HttpOnly; SameSite=Strict"),
            "{given}"
        );
        let cookie = given.split(';').next().expect("a pair");
        assert!(shows(&token, "cookie", cookie) && shows(&token, "cookie", &format!("a=b; {cookie}; c=d")));
        assert!(
            !shows(&token, "cookie", &cookie.replace("9380", "9381"))
                && !shows(&token, "cookie", &cookie[1..])
        );
        // Gone for a moment, as it is replaced.
        std::fs::write(&file, "").expect("written");
        token.refresh().await;
        assert!(shows(&token, "authorization", "Bearer sesame") && shows(&token, "cookie", cookie));
        std::fs::write(&file, "another").expect("written");
        token.refresh().await;
        assert!(!shows(&token, "authorization", "Bearer sesame") && !shows(&token, "cookie", cookie));
        assert!(shows(&token, "authorization", "Bearer another"));
    }
}
