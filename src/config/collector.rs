//! Where spans are sent: the base URL of a collector that speaks OTLP over HTTP.

use std::fmt;

use super::address::HostPort;
use crate::io::Address;

/// What OpenTelemetry puts behind the base URL, for spans.
const FOR_SPANS: &str = "v1/traces";

/// The port on which a collector speaks OTLP over gRPC, by convention.
const GRPC: u16 = 4317;

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    at: HostPort,
    /// With a slash at its begin and its end.
    base: String,
}

impl Collector {
    /// Takes `http://HOST[:PORT][/PATH]`; the port is 80 if it is not given, as in any such URL.
    pub fn parse(text: &str) -> Result<Collector, String> {
        let wrong = |why: &str| format!("{text:?} {why}; write the collector's base URL: http://HOST:4318");
        if text.contains('@') {
            return Err(
                "the URL has a user or a password, which is not sent; write http://HOST:4318".to_owned()
            );
        }
        if text.starts_with("https://") {
            return Err(wrong(
                "asks for TLS, which is not spoken here: send to a collector on this host, or in the same pod, which passes \
                 the spans on by TLS",
            ));
        }
        let rest = text.strip_prefix("http://").ok_or_else(|| wrong("is no http:// URL"))?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let has_port = host.rsplit(']').next().is_some_and(|behind| behind.contains(':'));
        let at = if has_port { HostPort::parse(host) } else { HostPort::parse(&format!("{host}:80")) };
        let at = at.ok().filter(|at| at.port != 0 && !host.starts_with(':') && !host.is_empty());
        let at = at.ok_or_else(|| wrong("has no valid host and port"))?;
        let path = path.trim_matches('/');
        if !path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte)) {
            return Err(wrong("has a path, or something behind it, that cannot be used"));
        }
        if path.ends_with(FOR_SPANS) {
            return Err(wrong("ends in /v1/traces, which is put behind it anyway"));
        }
        Ok(Collector { at, base: if path.is_empty() { "/".to_owned() } else { format!("/{path}/") } })
    }

    pub fn address(&self) -> Address {
        Address::Tcp { host: self.at.host.clone(), port: self.at.port }
    }

    /// The host and the port, as a request names them.
    pub fn authority(&self) -> String {
        self.at.to_string()
    }

    /// Where spans go.
    pub fn path(&self) -> String {
        format!("{}{FOR_SPANS}", self.base)
    }

    /// Whether it is likely to speak gRPC alone.
    pub(super) fn is_for_grpc(&self) -> bool {
        self.at.port == GRPC
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.at, self.base.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_for_spans_is_put_behind_the_base() {
        for (text, shown, authority, path) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318", "127.0.0.1:4318", "/v1/traces"),
            ("http://collector/", "http://collector:80", "collector:80", "/v1/traces"),
            ("http://[::1]:4318/in/", "http://[::1]:4318/in", "[::1]:4318", "/in/v1/traces"),
            ("http://otel.svc:4318/a/b", "http://otel.svc:4318/a/b", "otel.svc:4318", "/a/b/v1/traces"),
        ] {
            let collector = Collector::parse(text).expect(text);
            assert_eq!((collector.to_string(), collector.authority()), (shown.into(), authority.into()));
            assert_eq!(collector.path(), path);
            assert_eq!(Collector::parse(shown), Ok(collector));
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_what_to_write() {
        for (text, why) in [
            ("127.0.0.1:4318", "no http:// URL"),
            ("grpc://h:4317", "no http:// URL"),
            ("https://h:4318", "TLS"),
            ("http://", "no valid host"),
            ("http://:4318", "no valid host"),
            ("http://h:0", "no valid host"),
            ("http://h:port", "no valid host"),
            ("http://h:4318/a?b=c", "cannot be used"),
            ("http://h:4318/v1/traces", "ends in /v1/traces"),
            ("http://app:secret@h:4318", "a user or a password"),
        ] {
            let error = Collector::parse(text).expect_err(text);
            assert!(error.contains(why) && error.contains("http://HOST:4318"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
