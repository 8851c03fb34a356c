//! Whose pages these are: by which names a browser may ask for them.
//!
//! A page of another site can make a browser ask here, and by DNS rebinding under that site's own name: to the browser the
//! answer is then of that site, and its scripts may read it. The name is in `Host`, and no script can change it. So a name is
//! taken only if nobody outside can have it lead here. What is asked for by an IP address was not found by a name.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::HeaderMap;
use hyper::header::{HOST, ORIGIN};
use hyper::http::uri::Authority;

/// Names that are taken, beside `localhost` and IP addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts(Vec<String>);

impl Hosts {
    /// In any case; `*` is any name.
    pub(super) fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Whether the request is for one of them. A request without a host is of no browser. Errors: the host that it is for.
    pub(super) fn allow(&self, headers: &HeaderMap) -> Result<(), String> {
        let mut hosts = headers.get_all(HOST).into_iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return if headers.contains_key(HOST) { Err("several hosts".to_owned()) } else { Ok(()) };
        };
        let shown = || String::from_utf8_lossy(host.as_bytes()).chars().take(100).collect();
        let authority = host.to_str().ok().filter(|text| !text.contains('@'));
        let authority: Authority = authority.and_then(|text| text.parse().ok()).ok_or_else(shown)?;
        if self.has(authority.host()) { Ok(()) } else { Err(shown()) }
    }

    fn has(&self, host: &str) -> bool {
        let bare = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let v6 = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        v6.is_some_and(|v6| v6.parse::<Ipv6Addr>().is_ok())
            || bare.parse::<Ipv4Addr>().is_ok()
            || bare == "localhost"
            // Browsers ask no name server for these.
            || bare.ends_with(".localhost")
            || self.0.iter().any(|name| *name == bare || name == "*")
    }
}

/// Whether the request is of our own page, or of no page at all. Errors: of whose it is.
pub(super) fn is_of_our_own(headers: &HeaderMap) -> Result<(), String> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    for origin in headers.get_all(ORIGIN) {
        let origin = String::from_utf8_lossy(origin.as_bytes());
        let bare = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if !bare.is_some_and(|bare| !bare.is_empty() && bare.eq_ignore_ascii_case(host)) {
            return Err(origin.chars().take(100).collect());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in of {
            headers.append(*name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn only_names_that_nobody_else_can_have_lead_here() {
        let hosts = Hosts::new(["Nearside.internal".to_owned()]);
        let allows = |host: &str| hosts.allow(&headers(&[("host", host)])).is_ok();
        for host in [
            "localhost",
            "LocalHost:9380",
            "localhost.",
            "a.localhost:1",
            "127.0.0.1:9380",
            "10.1.2.3",
            "[::1]:9380",
            "[fd00::7]",
            "nearside.internal:80",
            "NEARSIDE.INTERNAL.",
        ] {
            assert!(allows(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "evil.example:9380",
            "127.0.0.1.evil.example",
            "localhost@evil.example",
            "evil@localhost",
            "evillocalhost",
            "a.nearside.internal",
            "127.1",
            "",
            " ",
            "[::1",
            "::1",
        ] {
            assert!(!allows(host), "{host:?}");
        }
        assert!(hosts.allow(&HeaderMap::new()).is_ok(), "HTTP/1.0, as some probes speak");
        assert!(hosts.allow(&headers(&[("host", "localhost"), ("host", "evil.example")])).is_err());
        assert!(Hosts::new(["*".to_owned()]).allow(&headers(&[("host", "evil.example")])).is_ok());
    }

    #[test]
    fn a_page_of_another_site_may_not_ask() {
        let asks = |host: &str, origins: &[&str]| {
            let origins = origins.iter().map(|origin| ("origin", *origin));
            is_of_our_own(&headers(&[("host", host)].into_iter().chain(origins).collect::<Vec<_>>())).is_ok()
        };
        let ours = "127.0.0.1:9380";
        assert!(asks(ours, &[]) && asks(ours, &["http://127.0.0.1:9380"]) && asks("A.b", &["https://a.B"]));
        for origin in
            ["null", "", "http://", "http://127.0.0.1", "http://10.0.0.1:9380", "http://evil.example"]
        {
            assert!(!asks(ours, &[origin]), "{origin}");
        }
        assert!(!asks(ours, &["http://127.0.0.1:9380", "http://evil.example"]));
        assert!(is_of_our_own(&headers(&[("origin", "http://evil.example")])).is_err());
    }
}
