//! The password that clients have to give: from a file or a variable, never from a flag.

use std::{fs::File, io::Read, path::Path};

use super::address::Secret;
use super::choice::Auth;
use super::settings::Config;

/// The variable that holds it.
pub(super) const VARIABLE: &str = "NEARSIDE_PASSWORD";

/// No password is longer: a client that has not logged in may send no longer argument.
const LONGEST: usize = 16384;

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
            read(path).map_err(|why| format!("password-file: {}: {why}", path.display()))?
        }
        (Auth::Password, None, Some(password)) => password,
    };
    match password.len() {
        0 => Err("auth: the password is empty".to_owned()),
        1..=LONGEST => Ok(Some(Secret::new(&password))),
        _ => Err(format!("auth: the password is longer than {LONGEST} bytes")),
    }
}

fn unused(what: &str) -> String {
    format!("{what}: is given, but nearside does not ask for it; write auth = \"password\"")
}

/// The file's first line.
fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    // What is longer is refused, and need not be read.
    let most = LONGEST as u64 + 2;
    let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
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
        let long = "x".repeat(20_000);
        assert!(resolved(Auth::Password, Some(&long), None).is_err());
        assert!(resolved(Auth::Password, None, Some(&long)).is_err());
        let config =
            Config { auth: Auth::Password, password_file: Some("/nowhere/p".into()), ..Config::default() };
        assert!(resolve(&config, None).expect_err("no file").contains("/nowhere/p: No such file"));
    }
}
