//! The URL of a service whose master sentinels name, taken apart. What its parts mean is the affair of
//! [`Upstream`](super::Upstream), whose rules for hosts, users and databases hold here too.

use std::fmt;

use crate::io::Address;

/// Where a sentinel listens if the URL does not say.
const PORT: u16 = 26379;

/// Sentinels that a URL may name.
const MOST: usize = 16;

/// Who is asked where the upstream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentinels {
    /// In the order in which they were written; at least one.
    pub addresses: Vec<Address>,
    /// What they call the master and its replicas.
    pub service: String,
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, address) in self.addresses.iter().enumerate() {
            write!(f, "{}{address}", if i == 0 { "" } else { "," })?;
        }
        write!(f, "/{}", self.service)
    }
}

/// A URL in its parts, none of which was looked at but the service.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spelled<'a> {
    /// What a URL of one server would begin with: `redis` or `rediss`.
    pub scheme: &'static str,
    /// `USER:PASSWORD@` or nothing.
    pub login: &'a str,
    /// Each with its port.
    pub hosts: Vec<String>,
    pub service: String,
    /// The database or nothing.
    pub db: &'a str,
}

impl Spelled<'_> {
    /// The URL of one server, with all but the service.
    pub fn of(&self, host: &str) -> String {
        format!("{}://{}{host}/{}", self.scheme, self.login, self.db)
    }
}

/// Takes `redis+sentinel://[USER:PASSWORD@]HOST[:PORT][,…]/SERVICE[/DB]`, and as some clients have it
/// `redis-sentinel://[USER:PASSWORD@]HOST[:PORT][,…][/DB]?sentinelMasterId=SERVICE`, or `#SERVICE`. `None` if it is none of
/// these; the error says in a part of a sentence what is wrong.
pub(super) fn spelled(url: &str) -> Option<Result<Spelled<'_>, String>> {
    let (scheme, rest) = url.split_once("://")?;
    let (scheme, in_path) = match scheme.to_ascii_lowercase().as_str() {
        "redis+sentinel" => ("redis", true),
        "rediss+sentinel" => ("rediss", true),
        "redis-sentinel" => ("redis", false),
        "rediss-sentinel" => ("rediss", false),
        _ => return None,
    };
    let (rest, named) = match in_path {
        true => (rest, Ok(None)),
        false => {
            let end = rest.find(['?', '#']).unwrap_or(rest.len());
            (&rest[..end], named(&rest[end..]).map(Some))
        }
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    Some(named.and_then(|named| {
        let (service, db) = match named {
            Some(service) => (service, path),
            None => path.split_once('/').unwrap_or((path, "")),
        };
        Ok(Spelled { scheme, login, hosts: parse_hosts(hosts)?, service: parse_service(service)?, db })
    }))
}

/// The service in what stands behind the path.
fn named(behind: &str) -> Result<&str, String> {
    const WRITE: &str = "write ?sentinelMasterId=SERVICE behind it";
    let (query, fragment) = behind.split_once('#').unwrap_or((behind, ""));
    let mut service = fragment;
    for (name, value) in
        query.trim_start_matches('?').split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    {
        match name {
            "" => {}
            "sentinelMasterId" if service.is_empty() || service == value => service = value,
            "sentinelMasterId" => return Err(format!("names two services, {service:?} and {value:?}")),
            _ => return Err(format!("has the parameter {name:?}; only sentinelMasterId is known")),
        }
    }
    match service {
        "" => Err(format!("does not say which service is meant; {WRITE}")),
        _ => Ok(service),
    }
}

fn parse_hosts(hosts: &str) -> Result<Vec<String>, String> {
    let hosts: Vec<_> = hosts.split(',').map(str::trim).map(with_port).collect();
    match hosts.len() {
        _ if hosts.iter().any(|host| host.starts_with(':')) => {
            Err("has a sentinel without a host".to_owned())
        }
        1..=MOST => Ok(hosts),
        many => Err(format!("names {many} sentinels; {MOST} are the most")),
    }
}

fn with_port(host: &str) -> String {
    let behind = host.rsplit_once(']').map_or(host, |(_, behind)| behind);
    if behind.contains(':') { host.to_owned() } else { format!("{host}:{PORT}") }
}

/// As the sentinels' configuration has it.
fn parse_service(service: &str) -> Result<String, String> {
    match service {
        "" => Err("does not say which service is meant; write its name behind the sentinels, as in \
                   redis+sentinel://HOST:PORT/SERVICE"
            .to_owned()),
        _ if service.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)) => {
            Ok(service.to_owned())
        }
        _ => Err(format!(
            "has the service {service:?}; sentinels know names of letters, digits and . - _ only"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_taken_apart() {
        for (url, login, hosts, service, db) in [
            ("redis+sentinel://h/s", "", "h:26379", "s", ""),
            ("redis+sentinel://h:1,[::1],[::2]:3/my.s-1/2", "", "h:1,[::1]:26379,[::2]:3", "my.s-1", "2"),
            ("redis+sentinel://a:p@w@h,i/s", "a:p@w@", "h:26379,i:26379", "s", ""),
            ("redis-sentinel://:p@h:1,i?sentinelMasterId=s", ":p@", "h:1,i:26379", "s", ""),
            ("REDIS-SENTINEL://h/3?sentinelMasterId=s", "", "h:26379", "s", "3"),
            ("redis-sentinel://h/3#s", "", "h:26379", "s", "3"),
            ("redis-sentinel://h?sentinelMasterId=s#s", "", "h:26379", "s", ""),
        ] {
            let spelled = spelled(url).expect(url).expect(url);
            assert_eq!((spelled.scheme, spelled.login), ("redis", login), "{url}");
            assert_eq!((spelled.hosts.join(",").as_str(), &*spelled.service), (hosts, service), "{url}");
            assert_eq!(spelled.db, db, "{url}");
        }
        assert_eq!(spelled("rediss+sentinel://h/s").unwrap().unwrap().scheme, "rediss");
        assert!(["redis://h/s", "h:1", "unix:/s"].iter().all(|url| spelled(url).is_none()));
    }

    #[test]
    fn what_is_missing_or_unknown_is_said() {
        let many = format!("redis+sentinel://{}/s", ["h"; MOST + 1].join(","));
        for (url, why) in [
            ("redis+sentinel://h", "which service"),
            ("redis+sentinel://h/", "which service"),
            ("redis+sentinel://h/a b", "has the service"),
            ("redis+sentinel://h/s?x=1", "has the service"),
            ("redis+sentinel://h,,i/s", "without a host"),
            ("redis+sentinel:///s", "without a host"),
            ("redis-sentinel://h", "sentinelMasterId=SERVICE"),
            ("redis-sentinel://h/s?timeout=1s", "only sentinelMasterId"),
            ("redis-sentinel://h?sentinelMasterId=a#b", "two services"),
            (&*many, "17 sentinels"),
        ] {
            let error = spelled(url).expect(url).expect_err(url);
            assert!(error.contains(why), "{url}: {error}");
        }
    }
}
