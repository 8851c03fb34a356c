//! Passwords: the one that clients have to give, from a file or a variable, never from a flag; and from where nearside has
//! the one that it gives upstream.

use std::{fs::File, io::Read, path::Path};

use super::address::Secret;
use super::choice::Auth;
use super::settings::Config;

/// The variable that holds it.
pub(super) const VARIABLE: &str = "NEARSIDE_PASSWORD";

/// No password is longer: a client that has not logged in may send no longer argument.
const LONGEST: usize = 16384;

/// What is longer than this is refused, and need not be read.
pub const READ: usize = LONGEST + 2;

/// The password that `config` asks for, with what the variable holds; or why there is none.
pub(super) fn resolve(config: &Config, variable: Option<String>) -> Result<Option<Secret>, String> {
    let file = config.password_file.as_deref();
    let password = match (config.auth, file, variable) {
        (Auth::Upstream, None, None) => return Ok(None),
        (Auth::Upstream, Some(_), _) => return Err(unused("password-file")),
        (Auth::Upstream, None, Some(_)) => return Err(unused(VARIABLE)),
        (Auth::Password, Some(_), Some(_)) => {
            return Err(format!("password-file: {VARIABLE} is given too; one of them is enough"));
        }
        (Auth::Password, None, None) => {
            return Err(format!("auth: no password is given; write password-file, or set {VARIABLE}"));
        }
        (Auth::Password, Some(path), None) => {
            first_line(path).map_err(|why| format!("password-file: {}: {why}", path.display()))?
        }
        (Auth::Password, None, Some(password)) => password,
    };
    match password.len() {
        0 => Err("auth: the password is empty".to_owned()),
        1..=LONGEST => Ok(Some(Secret::new(&password))),
        _ => Err(format!("auth: the password is longer than {LONGEST} bytes")),
    }
}

/// Whether it is known from where the password for the upstream comes; or what is wrong.
pub(super) fn check_upstream(config: &Config) -> Result<(), String> {
    let (upstream, file) = (&config.upstream, config.upstream_password_file.is_some());
    let command = config.upstream_password_command.is_some();
    match (&upstream.username, &upstream.password) {
        _ if file && command => {
            Err("upstream-password-command: upstream-password-file is given too; one of them is enough"
                .to_owned())
        }
        (_, Some(_)) if file || command => {
            let which = if file { "upstream-password-file" } else { "upstream-password-command" };
            Err(format!("{which}: the URL {upstream} has a password too; one of them is enough"))
        }
        (Some(_), None) if !file && !command => Err(format!(
            "upstream: {upstream} has a user but no password; write redis://USER:PASSWORD@HOST, or \
             upstream-password-file or upstream-password-command"
        )),
        _ => Ok(()),
    }
}

/// Whether there is a token for the admin pages, if there is to be one; or what is wrong.
pub(super) fn check_admin(config: &Config) -> Result<(), String> {
    let Some(path) = &config.admin_token_file else { return Ok(()) };
    let read = read_password(path).map_err(|why| format!("admin-token-file: {}: {why}", path.display()));
    read.map(drop)
}

fn unused(what: &str) -> String {
    format!("{what}: is given, but nearside does not ask for it; write auth = \"password\"")
}

/// A password from what a file holds, or a program has printed: its first line. Errors: there is none, or it is too long.
pub fn password_of(bytes: Vec<u8>) -> Result<Secret, String> {
    let line = line(bytes)?;
    match line.len() {
        0 => Err("it is empty".to_owned()),
        1..=LONGEST => Ok(Secret::new(&line)),
        _ => Err(format!("it is longer than {LONGEST} bytes")),
    }
}

/// A password from the first line of a file. Errors: why it cannot be had.
pub fn read_password(path: &Path) -> Result<Secret, String> {
    read(path).and_then(password_of)
}

/// The file's first line.
fn first_line(path: &Path) -> Result<String, String> {
    line(read(path)?)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(READ as u64).read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(|error| error.to_string())
}

fn line(mut bytes: Vec<u8>) -> Result<String, String> {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    bytes.truncate(end);
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(auth: Auth, file: Option<&str>, variable: Option<&str>) -> Result<Option<String>, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config { auth, ..Config::default() };
        if let Some(text) = file {
            let path = folder.path().join("password");
            std::fs::write(&path, text).expect("written");
            config.password_file = Some(path);
        }
        let found = resolve(&config, variable.map(str::to_owned))?;
        Ok(found.map(|secret| secret.expose().to_owned()))
    }

    #[test]
    fn that_for_the_upstream_comes_from_one_place() {
        let checked = |url: &str, file: bool, command: bool| {
            let config = Config {
                upstream: crate::config::Upstream::parse(url).expect(url),
                upstream_password_file: file.then(|| "/run/p".into()),
                upstream_password_command: command.then(|| vec!["token".to_owned()]),
                ..Config::default()
            };
            check_upstream(&config)
        };
        let (named, full) = ("redis://app@db", "redis://app:s3cret@db");
        for (url, file, command) in [
            ("redis://db", false, false),
            ("redis://db", true, false),
            (named, true, false),
            (named, false, true),
            (full, false, false),
        ] {
            assert_eq!(checked(url, file, command), Ok(()), "{url}");
        }
        for (url, file, command, says) in [
            (
                named,
                false,
                false,
                "has a user but no password; write redis://USER:PASSWORD@HOST, or upstream-password-file",
            ),
            (named, true, true, "upstream-password-file is given too"),
            (full, true, false, "upstream-password-file: the URL redis://app:***@db:6379 has a password too"),
            ("redis://:s3cret@db", false, true, "upstream-password-command: the URL"),
        ] {
            let why = checked(url, file, command).expect_err(says);
            assert!(why.contains(says) && !why.contains("s3cret"), "{why}");
        }
    }

    #[test]
    fn it_comes_from_one_place() {
        let sesame = Ok(Some("sesame".to_owned()));
        assert_eq!(resolved(Auth::Upstream, None, None), Ok(None));
        for text in ["sesame", "sesame\n", "sesame\r\n", "sesame\nand more\n"] {
            assert_eq!(resolved(Auth::Password, Some(text), None), sesame, "{text:?}");
        }
        assert_eq!(resolved(Auth::Password, None, Some("sesame")), sesame);
        for (auth, file, variable, says) in [
            (Auth::Upstream, Some("sesame"), None, "write auth = \"password\""),
            (Auth::Upstream, None, Some("sesame"), "NEARSIDE_PASSWORD: is given, but"),
            (Auth::Password, Some("sesame"), Some("sesame"), "one of them is enough"),
            (Auth::Password, None, None, "no password is given"),
            (Auth::Password, Some("\nsesame"), None, "is empty"),
            (Auth::Password, None, Some(""), "is empty"),
        ] {
            let why = resolved(auth, file, variable).expect_err(says);
            assert!(why.contains(says) && !why.contains("sesame"), "{why}");
        }
        let of = |text: &str| password_of(text.as_bytes().to_vec()).map(|secret| secret.expose().to_owned());
        assert_eq!(of("token\r\nmore"), Ok("token".to_owned()));
        assert!(of("").is_err() && of("\ntoken").is_err() && of(&"x".repeat(LONGEST + 1)).is_err());
        let long = "x".repeat(20_000);
        assert!(resolved(Auth::Password, Some(&long), None).is_err());
        assert!(resolved(Auth::Password, None, Some(&long)).is_err());
        let config =
            Config { auth: Auth::Password, password_file: Some("/nowhere/p".into()), ..Config::default() };
        assert!(resolve(&config, None).expect_err("no file").contains("/nowhere/p: No such file"));
    }
}
