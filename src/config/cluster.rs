//! The URL of a cluster, taken apart. What the URL's parts mean is the affair of
//! [`Upstream`](super::Upstream), whose rules for hosts and users hold here too.

use std::fmt;

use crate::io::Address;

/// Where a node listens if the URL does not say.
const PORT: u16 = 6379;

/// Nodes that a URL may name.
const MOST: usize = 64;

/// Nodes that are asked for all the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds {
    /// In the order in which they were written; at least one.
    pub addresses: Vec<Address>,
}

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, address) in self.addresses.iter().enumerate() {
            write!(f, "{}{address}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// A URL in its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spelled<'a> {
    /// What a URL of one server would begin with: `redis` or `rediss`.
    scheme: &'static str,
    /// `USER:PASSWORD@` or nothing.
    login: &'a str,
    /// Each with its port.
    pub hosts: Vec<String>,
}

impl Spelled<'_> {
    /// The URL of one of the nodes.
    pub fn of(&self, host: &str) -> String {
        format!("{}://{}{host}", self.scheme, self.login)
    }
}

/// Takes `redis+cluster://[USER:PASSWORD@]HOST[:PORT][,…][/0]`, `rediss+cluster://` for TLS, and the same as some clients write
/// it, `redis-cluster://`, or with `valkey`. `None` if it is none of these; the error says in a part of a sentence what is
/// wrong.
pub(super) fn spelled(url: &str) -> Option<Result<Spelled<'_>, String>> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "redis+cluster" | "redis-cluster" | "valkey+cluster" => "redis",
        "rediss+cluster" | "rediss-cluster" | "valkeys+cluster" => "rediss",
        _ => return None,
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    if !matches!(path, "" | "0") {
        return Some(Err("has a database, and a cluster has none but 0".to_owned()));
    }
    Some(parse_hosts(hosts).map(|hosts| Spelled { scheme, login, hosts }))
}

fn parse_hosts(hosts: &str) -> Result<Vec<String>, String> {
    let hosts: Vec<_> = hosts.split(',').map(str::trim).map(with_port).collect();
    match hosts.len() {
        _ if hosts.iter().any(|host| host.starts_with(':')) => Err("has a node without a host".to_owned()),
        1..=MOST => Ok(hosts),
        many => Err(format!("names {many} nodes; {MOST} are the most, and one that answers is enough")),
    }
}

fn with_port(host: &str) -> String {
    let behind = host.rsplit_once(']').map_or(host, |(_, behind)| behind);
    if behind.contains(':') { host.to_owned() } else { format!("{host}:{PORT}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_are_taken_apart() {
        for (url, login, hosts) in [
            ("redis+cluster://h", "", "h:6379"),
            ("redis+cluster://h:1,[::1],[::2]:3/0", "", "h:1,[::1]:6379,[::2]:3"),
            ("redis-cluster://a:p@w@h,i/", "a:p@w@", "h:6379,i:6379"),
            ("VALKEY+CLUSTER://:p@h:1, i", ":p@", "h:1,i:6379"),
        ] {
            let spelled = spelled(url).expect(url).expect(url);
            assert_eq!((spelled.scheme, spelled.login), ("redis", login), "{url}");
            assert_eq!(spelled.hosts.join(","), hosts, "{url}");
        }
        for url in ["rediss+cluster://h", "rediss-cluster://h", "valkeys+cluster://h"] {
            assert_eq!(spelled(url).expect(url).expect(url).of("h:1"), "rediss://h:1");
        }
        assert!(["redis://h", "h:1", "redis+sentinel://h/s"].iter().all(|url| spelled(url).is_none()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let many = format!("redis+cluster://{}", ["h"; MOST + 1].join(","));
        for (url, why) in [
            ("redis+cluster://h/1", "none but 0"),
            ("redis+cluster://h,,i", "without a host"),
            ("redis+cluster://", "without a host"),
            (&*many, "65 nodes"),
        ] {
            let error = spelled(url).expect(url).expect_err(url);
            assert!(error.contains(why), "{url}: {error}");
        }
    }
}
