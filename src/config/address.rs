//! Where nearside listens and which server is its upstream.
//!
//! A password never leaves this file by `Debug`, `Display` or an error text; only [`Secret::expose`]
//! hands it out.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use redis::{ConnectionAddr, IntoConnectionInfo};

use super::cluster::{self, Seeds};
use super::sentinel::{self, Sentinels};
use crate::io::Address;

/// A host (a name or an IP address, without brackets) and a port; port 0 lets the system choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

impl HostPort {
    /// Takes `HOST:PORT`, `[IPV6]:PORT`, and `PORT` or `:PORT`, which stand for 127.0.0.1.
    ///
    /// Names are not resolved here, so that a start does not depend on when a name server comes up.
    pub fn parse(text: &str) -> Result<HostPort, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(HostPort { host: address.ip().to_string(), port: address.port() });
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let port = port.parse().map_err(|_| format!("{text:?} does not end in a port from 0 to 65535"))?;
        // All digits and dots and yet no address: an IPv4 address with a slip in it.
        let numeric = host.chars().all(|c| c.is_ascii_digit() || c == '.');
        match host {
            "" => Ok(HostPort { host: "127.0.0.1".to_owned(), port }),
            _ if !numeric && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) => {
                Ok(HostPort { host: host.to_owned(), port })
            }
            _ => Err(format!("{text:?} has no valid host before the port")),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// One address that clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    Tcp(HostPort),
    /// With TLS.
    Tls(HostPort),
    Unix(PathBuf),
}

impl Listen {
    /// Takes what [`HostPort::parse`] takes, the same after `tls://`, `unix:PATH`, and an absolute path.
    pub fn parse(text: &str) -> Result<Listen, String> {
        if let Some(at) = text.strip_prefix("tls://") {
            return HostPort::parse(at)
                .map(Listen::Tls)
                .map_err(|why| format!("{why}; write tls://HOST:PORT"));
        }
        match unix_path(text) {
            Some(path) if path.contains(['?', '#']) => {
                Err(format!("{text:?} has a part after ? or #, which a socket to listen on does not have"))
            }
            Some(path) => socket_path(path).map(Listen::Unix),
            None => HostPort::parse(text).map(Listen::Tcp).map_err(|why| {
                format!(
                    "{why}; write HOST:PORT, a port alone (then on 127.0.0.1), tls://HOST:PORT or unix:PATH"
                )
            }),
        }
    }
}

impl Listen {
    /// The port, if it has one.
    pub fn port(&self) -> Option<&HostPort> {
        match self {
            Listen::Tcp(at) | Listen::Tls(at) => Some(at),
            Listen::Unix(_) => None,
        }
    }

    /// Whether it can be reached from other hosts.
    pub fn is_open(&self) -> bool {
        match self {
            Listen::Tcp(at) | Listen::Tls(at) => match at.host.parse::<IpAddr>() {
                Ok(address) => !address.is_loopback(),
                Err(_) => !at.host.eq_ignore_ascii_case("localhost"),
            },
            Listen::Unix(_) => false,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Tls(address) => write!(f, "tls://{address}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where the upstream is, or who knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Server(Address),
    Sentinels(Sentinels),
    Cluster(Seeds),
}

/// The upstream server. `Display` gives its URL with the password hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    pub place: Place,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// The database that a client is in until it says SELECT.
    pub db: u32,
    /// Whether its connections are secured by TLS.
    pub tls: bool,
}

impl Upstream {
    /// An upstream on a Unix socket, without credentials, in database 0.
    pub fn unix(path: PathBuf) -> Upstream {
        let place = Place::Server(Address::Unix(path));
        Upstream { place, username: None, password: None, db: 0, tls: false }
    }

    /// Takes `redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]` (also `valkey://`, or without a scheme), `rediss://` and
    /// `valkeys://` for TLS, `PORT` alone, which stands for one on 127.0.0.1, and
    /// `unix:PATH[?db=DB&user=USER&pass=PASSWORD]` (also `unix://` and `redis+unix://`), and what names sentinels: see
    /// [`spelled`](sentinel::spelled), or nodes of a cluster: see [`spelled`](cluster::spelled).
    ///
    /// The error shows what was given with the password hidden.
    pub fn parse(text: &str) -> Result<Upstream, String> {
        let given = text;
        let refused = |why: &str| format!("{:?} {why}", redact(given));
        if let Some(spelled) = sentinel::spelled(given) {
            return Self::of_sentinels(spelled.map_err(|why| refused(&why))?).map_err(|why| refused(&why));
        }
        if let Some(spelled) = cluster::spelled(given) {
            return Self::of_cluster(spelled.map_err(|why| refused(&why))?).map_err(|why| refused(&why));
        }
        let (plain, tls) = without_tls(given);
        let text = &*plain;
        let port = text.strip_prefix(':').unwrap_or(text);
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let url = match text {
            // A port alone, as for `listen`. By the letter it is a host, and nobody's.
            _ if is_number(port) => format!("redis://127.0.0.1:{port}"),
            _ if text.contains("://") || text.starts_with("unix:") => text.to_owned(),
            _ if text.starts_with('/') => format!("unix:{text}"),
            _ => format!("redis://{text}"),
        };
        let url = redis::parse_redis_url(&url).ok_or_else(|| {
            refused("is not the URL of a Redis server; write redis://[USER:PASSWORD@]HOST:PORT[/DB] or unix:/PATH; in a password, write @ : / ? # % as %40 %3A %2F %3F %23 %25")
        })?;
        let on_tcp = matches!(url.scheme(), "redis" | "valkey");
        if url.fragment().is_some() || (on_tcp && url.query().is_some()) {
            return Err(refused("has a part after ? or # that nearside does not know"));
        }
        if let Some((name, _)) =
            url.query_pairs().find(|(name, _)| !["db", "user", "pass"].contains(&&**name))
        {
            return Err(refused(&format!("has the parameter {name:?}; only db, user and pass are known")));
        }
        let info = url.into_connection_info().map_err(|error| {
            let error = error.to_string();
            refused(&format!("is refused: {}", error.trim_end_matches(" - InvalidClientConfig")))
        })?;
        if let ConnectionAddr::Tcp(host, _) = info.addr()
            && is_number(host)
        {
            return Err(refused(&format!("has a number for a host; did you mean redis://127.0.0.1:{host}?")));
        }
        let settings = info.redis_settings();
        let db = settings.db().try_into().map_err(|_| refused("has no valid database number"))?;
        let address = match info.addr() {
            ConnectionAddr::Tcp(_, 0) => return Err(refused("has port 0, to which nothing can connect")),
            ConnectionAddr::Tcp(host, port) => Address::Tcp { host: host.clone(), port: *port },
            ConnectionAddr::Unix(path) => Address::Unix(socket_path(&path.to_string_lossy())?),
            _ => return Err(refused("is a kind of address that nearside does not know")),
        };
        let password = settings.password().filter(|p| !p.is_empty()).map(Secret::new);
        let username = settings.username().filter(|u| !u.is_empty()).map(str::to_owned);
        Ok(Upstream { place: Place::Server(address), username, password, db, tls })
    }

    /// By the rules for one server, for each of them.
    fn of_sentinels(spelled: sentinel::Spelled<'_>) -> Result<Upstream, String> {
        let urls = spelled.hosts.iter().map(|host| spelled.of(host));
        let (like, addresses) = Self::of_several(urls)?;
        let sentinels = Sentinels { addresses, service: spelled.service };
        Ok(Upstream { place: Place::Sentinels(sentinels), ..like })
    }

    fn of_cluster(spelled: cluster::Spelled<'_>) -> Result<Upstream, String> {
        let (like, addresses) = Self::of_several(spelled.hosts.iter().map(|host| spelled.of(host)))?;
        Ok(Upstream { place: Place::Cluster(Seeds { addresses }), ..like })
    }

    /// The first of these servers, and where all of them are.
    fn of_several(urls: impl Iterator<Item = String>) -> Result<(Upstream, Vec<Address>), String> {
        let (mut first, mut addresses) = (None, Vec::new());
        for url in urls {
            let server = Self::parse(&url).map_err(|why| format!("is refused: {why}"))?;
            if let Place::Server(address) = &server.place {
                addresses.push(address.clone());
            }
            first.get_or_insert(server);
        }
        Ok((first.ok_or("names no server")?, addresses))
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.username.as_deref().unwrap_or_default();
        let s = if self.tls { "s" } else { "" };
        let (kind, at): (_, &dyn fmt::Display) = match &self.place {
            Place::Server(at) => ("", at),
            Place::Sentinels(at) => ("+sentinel", at),
            Place::Cluster(at) => ("+cluster", at),
        };
        match &self.place {
            Place::Server(Address::Tcp { .. }) | Place::Sentinels(_) | Place::Cluster(_) => {
                match &self.password {
                    Some(hidden) => write!(f, "redis{s}{kind}://{user}:{hidden}@{at}")?,
                    None if !user.is_empty() => write!(f, "redis{s}{kind}://{user}@{at}")?,
                    None => write!(f, "redis{s}{kind}://{at}")?,
                }
                if self.db != 0 { write!(f, "/{}", self.db) } else { Ok(()) }
            }
            Place::Server(Address::Unix(path)) => {
                write!(f, "unix:{}", path.display())?;
                let mut mark = '?';
                let mut parameter = |name: &str, value: &dyn fmt::Display| {
                    write!(f, "{}{name}={value}", std::mem::replace(&mut mark, '&'))
                };
                if self.db != 0 {
                    parameter("db", &self.db)?;
                }
                if !user.is_empty() {
                    parameter("user", &user)?;
                }
                self.password.as_ref().map_or(Ok(()), |hidden| parameter("pass", hidden))
            }
        }
    }
}

/// A password; shown as `***` wherever it is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: &str) -> Secret {
        Secret(text.to_owned())
    }

    /// The password itself, for AUTH and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The URL with the scheme that stands for the same without TLS, and whether it had one with. TLS is added where
/// connections are opened.
fn without_tls(text: &str) -> (Cow<'_, str>, bool) {
    let scheme = text.split("://").next().unwrap_or_default();
    match scheme.to_ascii_lowercase().as_str() {
        "rediss" | "valkeys" if scheme.len() < text.len() => {
            (format!("redis{}", &text[scheme.len()..]).into(), true)
        }
        _ => (text.into(), false),
    }
}

fn unix_path(text: &str) -> Option<&str> {
    let path = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text))?;
    Some(path.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(path))
}

/// The system holds a socket's path in about a hundred bytes; better said here than at bind.
fn socket_path(path: &str) -> Result<PathBuf, String> {
    match std::os::unix::net::SocketAddr::from_pathname(path) {
        _ if path.is_empty() => Err("\"unix:\" needs the path of a socket after it".to_owned()),
        Ok(_) => Ok(PathBuf::from(path)),
        Err(error) => Err(format!("{path:?} cannot be a socket's path: {error}")),
    }
}

/// Hides what may be a password in a URL that need not be well formed.
fn redact(text: &str) -> String {
    let mut shown = text.to_owned();
    if let Some(at) = shown.rfind('@') {
        let start = shown.find("://").map_or(0, |scheme| scheme + 3).min(at);
        let start = shown[start..at].find(':').map_or(start, |colon| start + colon + 1);
        shown.replace_range(start..at, "***");
    }
    if let Some(start) = shown.find("pass=").map(|at| at + "pass=".len()) {
        let end = shown[start..].find('&').map_or(shown.len(), |at| start + at);
        shown.replace_range(start..end, "***");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        match Upstream::parse(url) {
            Ok(upstream) => upstream.to_string(),
            Err(why) => format!("error: {why}"),
        }
    }

    #[test]
    fn listen_addresses_are_taken_in_every_usual_form() {
        for (given, means) in [
            ("127.0.0.1:6380", "127.0.0.1:6380"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("6380", "127.0.0.1:6380"),
            (":6380", "127.0.0.1:6380"),
            ("localhost:1", "localhost:1"),
            ("[::1]:6380", "[::1]:6380"),
            ("tls://0.0.0.0:6380", "tls://0.0.0.0:6380"),
            ("tls://6380", "tls://127.0.0.1:6380"),
            ("unix:/run/n.sock", "unix:/run/n.sock"),
            ("unix:///run/n.sock", "unix:/run/n.sock"),
            ("unix:n.sock", "unix:n.sock"),
            ("/run/n.sock", "unix:/run/n.sock"),
        ] {
            assert_eq!(
                Listen::parse(given).map(|listen| listen.to_string()),
                Ok(means.to_owned()),
                "{given}"
            );
        }
        let long = format!("unix:/{}", "x".repeat(200));
        for bad in [
            "",
            "localhost",
            "127.0.0.300:1",
            "127.0.0.1:65536",
            "a b:1",
            "::1:6380",
            "tls://",
            "tls://unix:/x",
            "unix:",
            &long,
            "unix:/x?db=2",
        ] {
            assert!(Listen::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn upstream_urls_are_taken_in_every_usual_form() {
        for (given, means) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://db.example/2", "redis://db.example:6379/2"),
            ("valkey://db", "redis://db:6379"),
            ("rediss://app:s3cret@db:1/3", "rediss://app:***@db:1/3"),
            ("valkeys://db", "rediss://db:6379"),
            ("REDISS://[::1]", "rediss://[::1]:6379"),
            ("localhost:7000", "redis://localhost:7000"),
            ("redis://[::1]:7000", "redis://[::1]:7000"),
            ("redis://app:s3cret@db:1/3", "redis://app:***@db:1/3"),
            ("redis://:s3cret@db", "redis://:***@db:6379"),
            ("redis://app@db", "redis://app@db:6379"),
            ("redis://app:@db/1", "redis://app@db:6379/1"),
            ("unix:/run/r.sock", "unix:/run/r.sock"),
            ("unix:///run/r.sock?db=2&user=app&pass=s3cret", "unix:/run/r.sock?db=2&user=app&pass=***"),
            ("redis+unix:///run/r.sock", "unix:/run/r.sock"),
            ("/run/r.sock", "unix:/run/r.sock"),
            ("6379", "redis://127.0.0.1:6379"),
            (":6379", "redis://127.0.0.1:6379"),
            ("unix:/run/r.sock?db=2", "unix:/run/r.sock?db=2"),
            ("/run/r.sock?db=2", "unix:/run/r.sock?db=2"),
            ("redis+sentinel://a,b:1/main", "redis+sentinel://a:26379,b:1/main"),
            ("rediss+sentinel://:s3cret@a/main", "rediss+sentinel://:***@a:26379/main"),
            ("redis+sentinel://app:s3cret@[::1]/main/2", "redis+sentinel://app:***@[::1]:26379/main/2"),
            ("redis-sentinel://:s3cret@a/1?sentinelMasterId=main", "redis+sentinel://:***@a:26379/main/1"),
        ] {
            assert_eq!(shown(given), means, "{given}");
        }
        for url in ["unix:/run/r.sock?db=2", "unix:///run/r.sock?db=2", "/run/r.sock?db=2"] {
            let upstream = Upstream::parse(url).expect("valid");
            let place = Place::Server(Address::Unix("/run/r.sock".into()));
            assert_eq!((upstream.place, upstream.db), (place, 2), "{url}");
        }
        let upstream = Upstream::parse("redis://a%3Ab:p%40ss@db/1").expect("valid");
        assert_eq!(upstream.username.as_deref(), Some("a:b"));
        assert_eq!(upstream.password.as_ref().map(Secret::expose), Some("p@ss"));
    }

    #[test]
    fn a_refused_url_says_why_and_keeps_the_password() {
        for (given, why) in [
            ("rediss://:s3cret@db:0", "\"rediss://:***@db:0\" has port 0"),
            ("redis://6379", "did you mean redis://127.0.0.1:6379?"),
            ("redis://:s3cret@6379/1", "did you mean redis://127.0.0.1:6379?"),
            ("99999", "is not the URL of a Redis server"),
            ("unix:/run/r.sock?bd=2", "only db, user and pass are known"),
            ("http://:s3cret@db", "is not the URL of a Redis server"),
            ("redis://:s3cret@db:99999", "is not the URL of a Redis server"),
            ("redis://:s3/cret@db", "is not the URL of a Redis server"),
            ("redis://:s3cret@db/x", "database number"),
            ("redis://:s3cret@db/-1", "database number"),
            ("redis://:s3cret@db/1/2", "database number"),
            ("redis://:s3cret@db?db=3", "after ? or #"),
            ("redis://:s3cret@db:0", "port 0"),
            ("unix:/r.sock?pass=s3cret&base=1", "only db, user and pass"),
            ("redis+sentinel://:s3cret@db", "does not say which service"),
            ("redis+sentinel://:s3cret@db/main/x", "database number"),
            ("redis+sentinel://:s3cret@db:1,db:0/main", "port 0"),
            ("", "Missing hostname"),
        ] {
            let error = shown(given);
            assert!(error.starts_with("error: ") && error.contains(why), "{given}: {error}");
            assert!(!error.contains("s3"), "{error}");
        }
        let debug = format!("{:?}", Upstream::parse("redis://app:s3cret@db").expect("valid"));
        assert!(!debug.contains("s3cret") && debug.contains("***"), "{debug}");
    }
}
