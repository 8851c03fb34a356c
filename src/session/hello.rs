//! What a client says of itself: `HELLO`, `AUTH`, `SELECT`, its name and which replies it wants, as Redis reads them.

use std::borrow::Cow;

use crate::process::errors;
use crate::reply::Replies;
use crate::resp::Protocol;
use crate::resp::number::string2ll;
use crate::resp::request::Request;
use crate::upstream::Login;

/// What a `HELLO` asks for.
pub struct Hello {
    pub protocol: Option<Protocol>,
    pub login: Option<Login>,
    pub name: Option<Vec<u8>>,
}

/// `HELLO [version [AUTH user password] [SETNAME name]]`, with the checks in the order of Redis'
/// `helloCommand`; what is wrong is an error's text.
pub fn parse_hello(request: &Request<'_>) -> Result<Hello, Cow<'static, str>> {
    let protocol = match request.get(1).map(string2ll) {
        None => None,
        Some(Some(2)) => Some(Protocol::Resp2),
        Some(Some(3)) => Some(Protocol::Resp3),
        Some(Some(_)) => return Err(errors::NOPROTO.into()),
        Some(None) => return Err(errors::BAD_VERSION.into()),
    };
    let (mut login, mut name) = (None, None);
    let mut i = 2;
    while let Some(option) = request.get(i) {
        match (request.get(i + 1), request.get(i + 2)) {
            (Some(user), Some(password)) if option.eq_ignore_ascii_case(b"auth") => {
                login = Some(Login { user: Some(user.to_vec()), password: password.to_vec() });
                i += 3;
            }
            (Some(chosen), _) if option.eq_ignore_ascii_case(b"setname") => {
                if !is_name(chosen) {
                    return Err(errors::BAD_NAME.into());
                }
                name = Some(chosen.to_vec());
                i += 2;
            }
            _ => return Err(errors::hello_option(option).into()),
        }
    }
    Ok(Hello { protocol, login, name })
}

/// The login that an `AUTH` of a valid length gives.
pub fn login_of(request: &Request<'_>) -> Option<Login> {
    match request.len() {
        2 => Some(Login { user: None, password: request.arg(1).to_vec() }),
        3 => Some(Login { user: Some(request.arg(1).to_vec()), password: request.arg(2).to_vec() }),
        _ => None,
    }
}

/// As `HELLO` takes it.
pub fn version(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Resp2 => b"2",
        Protocol::Resp3 => b"3",
    }
}

/// Which replies a `CLIENT REPLY` asks for; `None` if there is anything wrong with it.
pub fn wanted_replies(request: &Request<'_>) -> Option<Replies> {
    let words: [(&[u8], Replies); 3] =
        [(b"on", Replies::On), (b"off", Replies::Off), (b"skip", Replies::Skip)];
    let word = request.get(2).filter(|_| request.len() == 3)?;
    words.into_iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, replies)| replies)
}

/// A database number as Redis takes it.
pub fn number(arg: &[u8]) -> Option<u32> {
    let number = string2ll(arg)?;
    u32::try_from(number).ok().filter(|number| *number <= i32::MAX as u32)
}

/// As Redis' `validateClientName`.
pub fn is_name(name: &[u8]) -> bool {
    name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_numbers() {
        assert_eq!(number(b"15"), Some(15));
        for wrong in [&b"-1"[..], b"01", b"+1", b"x", b"", b"4294967296"] {
            assert_eq!(number(wrong), None);
        }
    }
}
