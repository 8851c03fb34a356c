//! The settings for TLS: which go together, and what the rooms that use them are told.

use crate::io::{Acceptor, Connector, Inward, Outward};

use super::address::Listen;
use super::settings::Config;

impl Config {
    /// TLS to the upstream, if its URL asks for it.
    pub fn outward(&self) -> Option<Outward> {
        self.upstream.tls.then(|| Outward {
            ca: self.upstream_tls_ca.clone(),
            identity: self.upstream_tls_cert.clone().zip(self.upstream_tls_key.clone()),
            name: self.upstream_tls_sni.clone(),
            insecure: self.upstream_tls_insecure,
        })
    }

    /// TLS with clients, if any address asks for it.
    pub fn inward(&self) -> Option<Inward> {
        let (cert, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        let client_ca = self.tls_client_ca.clone();
        self.listens_with_tls().then_some(Inward { cert, key, client_ca })
    }

    fn listens_with_tls(&self) -> bool {
        self.listen.iter().any(|listen| matches!(listen, Listen::Tls(_)))
    }
}

/// Adds what does not go together, and what is wrong with the files.
pub(super) fn check(config: &Config, problems: &mut Vec<String>) {
    let before = problems.len();
    check_upstream(config, problems);
    check_listen(config, problems);
    if problems.len() > before {
        return;
    }
    problems.extend(config.outward().and_then(|outward| Connector::new(outward).err()));
    problems.extend(config.inward().and_then(|inward| Acceptor::new(inward).err()));
}

fn check_upstream(config: &Config, problems: &mut Vec<String>) {
    let (cert, key) = (config.upstream_tls_cert.is_some(), config.upstream_tls_key.is_some());
    let given = [
        ("upstream-tls-ca", config.upstream_tls_ca.is_some()),
        ("upstream-tls-cert", cert),
        ("upstream-tls-key", key),
        ("upstream-tls-sni", config.upstream_tls_sni.is_some()),
        ("upstream-tls-insecure", config.upstream_tls_insecure),
    ];
    if !config.upstream.tls {
        // Whoever sets one of them believes that what is said is secret.
        let unused = given.into_iter().filter(|(_, given)| *given).map(|(name, _)| {
            format!("{name}: is given, but {} is without TLS; write rediss://", config.upstream)
        });
        problems.extend(unused);
        return;
    }
    problems.extend(half("upstream-tls-cert", cert, "upstream-tls-key", key));
    if config.upstream_tls_insecure && config.upstream_tls_ca.is_some() {
        problems.push(
            "upstream-tls-insecure: nothing is verified, but upstream-tls-ca is given; leave out one of them"
                .to_owned(),
        );
    }
}

fn check_listen(config: &Config, problems: &mut Vec<String>) {
    let (cert, key) = (config.tls_cert.is_some(), config.tls_key.is_some());
    let given = [("tls-cert", cert), ("tls-key", key), ("tls-client-ca", config.tls_client_ca.is_some())];
    if let Some(listen) = config.listen.iter().find(|listen| matches!(listen, Listen::Tls(_))) {
        let missing = given[..2].iter().filter(|(_, given)| !given);
        problems.extend(
            missing.map(|(name, _)| format!("listen: {listen} needs {name}: the path of a PEM file")),
        );
    } else {
        let unused = given.into_iter().filter(|(_, given)| *given).map(|(name, _)| {
            format!(
                "{name}: is given, but nothing is listened on with TLS; write listen = \"tls://HOST:PORT\""
            )
        });
        problems.extend(unused);
    }
}

fn half(cert: &str, has_cert: bool, key: &str, has_key: bool) -> Option<String> {
    match (has_cert, has_key) {
        (true, false) => Some(format!("{cert}: is given without {key}; both are needed")),
        (false, true) => Some(format!("{key}: is given without {cert}; both are needed")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::address::Upstream;
    use super::*;

    #[track_caller]
    fn wrong(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        let mut problems = Vec::new();
        check(&config, &mut problems);
        problems
    }

    fn rediss() -> Upstream {
        Upstream::parse("rediss://db").expect("valid")
    }

    #[test]
    fn what_does_not_go_together_is_told() {
        assert!(wrong(|_| ()).is_empty());
        let path = || Some("/nowhere".into());
        for (told, says) in [
            (wrong(|c| c.upstream_tls_ca = path()), "redis://127.0.0.1:6379 is without TLS; write rediss://"),
            (wrong(|c| c.upstream_tls_insecure = true), "upstream-tls-insecure: is given, but"),
            (
                wrong(|c| (c.upstream, c.upstream_tls_cert) = (rediss(), path())),
                "upstream-tls-cert: is given without upstream-tls-key",
            ),
            (
                wrong(|c| (c.upstream, c.upstream_tls_key) = (rediss(), path())),
                "upstream-tls-key: is given without upstream-tls-cert",
            ),
            (
                wrong(|c| {
                    (c.upstream, c.upstream_tls_ca, c.upstream_tls_insecure) = (rediss(), path(), true)
                }),
                "leave out one of them",
            ),
            (
                wrong(|c| (c.upstream, c.upstream_tls_ca) = (rediss(), path())),
                "upstream-tls-ca: /nowhere: No such file",
            ),
            (wrong(|c| c.tls_cert = path()), "tls-cert: is given, but nothing is listened on with TLS"),
            (
                wrong(|c| c.listen = vec![Listen::parse("tls://1").expect("valid")]),
                "tls://127.0.0.1:1 needs tls-cert",
            ),
        ] {
            assert!(told.iter().any(|told| told.contains(says)), "{says} in {told:?}");
        }
    }

    #[test]
    fn only_tls_without_verification_is_warned_of() {
        let mut config = Config { upstream: rediss(), ..Config::default() };
        assert!(config.warnings().is_empty());
        config.upstream_tls_insecure = true;
        assert!(config.warnings()[0].contains("rediss://db:6379 is believed"));
    }
}
