//! What a failed handshake is told as.

use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::files::PemFile;

/// Why a client's handshake came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It spoke without TLS.
    Plain,
    /// It was not done in time, or gave way to later ones.
    Slow,
    /// It has no certificate, or not the right one.
    Certificate,
    /// It does not believe ours.
    Untrusted,
    Other,
}

impl Failure {
    pub const ALL: [Self; 5] = [Self::Plain, Self::Slow, Self::Certificate, Self::Untrusted, Self::Other];

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "no_tls",
            Self::Slow => "slow",
            Self::Certificate => "client_certificate",
            Self::Untrusted => "not_trusted",
            Self::Other => "other",
        }
    }
}

/// Whether these bytes, the first of a connection, are those of TLS: a handshake, or an alert.
pub fn begins_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [0x15 | 0x16, 3, 0..=4, ..])
}

fn of_tls(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|error| error.downcast_ref())
}

/// Of a handshake with the upstream, or of what comes after it, where it was taken for `name`.
pub(super) fn of_upstream(error: io::Error, name: &str) -> io::Error {
    let why = match of_tls(&error) {
        Some(Error::InvalidCertificate(wrong)) => of_certificate(wrong, name),
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "the upstream does not speak TLS on this port: write redis:// for one without".to_owned()
        }
        Some(Error::AlertReceived(alert)) => of_alert(*alert),
        Some(other) => format!("TLS with the upstream failed: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the upstream closed the connection during the TLS handshake: is its port one for TLS?".to_owned()
        }
        None => return error,
    };
    io::Error::new(error.kind(), why)
}

fn of_certificate(wrong: &CertificateError, name: &str) -> String {
    use CertificateError as Wrong;
    match wrong {
        // The latter, if a CA of that name has another key.
        Wrong::UnknownIssuer | Wrong::BadSignature => "the upstream's certificate is signed by no CA that is trusted: upstream-tls-ca names the \
             file of its CA"
            .to_owned(),
        Wrong::Expired | Wrong::ExpiredContext { .. } => {
            "the upstream's certificate has expired: it needs a new one".to_owned()
        }
        Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => {
            "the upstream's certificate is not valid yet: is this host's clock right?".to_owned()
        }
        Wrong::NotValidForName => not_for(name, &[]),
        Wrong::NotValidForNameContext { presented, .. } => not_for(name, presented),
        // As webpki has it; a certificate made by `openssl req -x509` is one.
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "the upstream's certificate is a CA's own (CA:TRUE), which cannot be a server's too: have the CA issue one for \
             the server"
                .to_owned()
        }
        other => format!("the upstream's certificate is not accepted: {other}"),
    }
}

fn not_for(name: &str, presented: &[String]) -> String {
    const SHOWN: usize = 5;
    let but = match presented {
        [] => String::new(),
        some => format!(", but for {}", some[..some.len().min(SHOWN)].join(", ")),
    };
    format!("the upstream's certificate is not for {name}{but}: upstream-tls-sni sets the name to expect")
}

fn of_alert(alert: AlertDescription) -> String {
    use AlertDescription as Alert;
    match alert {
        Alert::CertificateRequired => no_certificate("demands a client certificate"),
        Alert::HandshakeFailure => {
            no_certificate("has refused the TLS handshake; it may demand a client certificate")
        }
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        // OpenSSL, of one whose CA has the name of one that it knows.
        | Alert::DecryptError
        | Alert::AccessDenied => {
            format!("the upstream does not accept the client certificate of upstream-tls-cert: {alert:?}")
        }
        other => format!("the upstream has ended TLS: {other:?}"),
    }
}

fn no_certificate(does: &str) -> String {
    format!("the upstream {does}: set upstream-tls-cert and upstream-tls-key")
}

/// The upstream asked for a certificate in the handshake, got none, and closed before it said anything.
pub(super) fn asked_for_certificate() -> String {
    no_certificate("has closed the connection; it has asked for a client certificate and got none")
}

/// Whether TLS begins with this byte, that of a handshake.
pub(super) fn may_be_tls(first: u8) -> bool {
    first == 0x16
}

/// Of a client that does not begin a handshake.
pub(super) fn plain() -> (Failure, String) {
    let words =
        "it speaks without TLS on a tls:// address: let it connect by rediss://, or to one without TLS";
    (Failure::Plain, words.to_owned())
}

/// Of a handshake with a client that has begun one.
pub(super) fn of_client(error: &io::Error) -> (Failure, String) {
    let Some(error) = of_tls(error) else {
        let words = format!(
            "it left in the middle of the handshake ({error}); it may not accept the certificate of tls-cert"
        );
        return (Failure::Untrusted, words);
    };
    match error {
        Error::NoCertificatesPresented => {
            (Failure::Certificate, "it has no certificate, and tls-client-ca demands one".to_owned())
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            (Failure::Certificate, "its certificate is signed by none of the CAs of tls-client-ca".to_owned())
        }
        Error::InvalidCertificate(wrong) => {
            (Failure::Certificate, format!("its certificate is not accepted: {wrong}"))
        }
        Error::AlertReceived(alert) => (
            Failure::Untrusted,
            format!("it does not accept the certificate of tls-cert, or what was offered: {alert:?}"),
        ),
        Error::PeerIncompatible(why) => {
            (Failure::Other, format!("nothing in common for TLS 1.2 or 1.3: {why:?}"))
        }
        other => (Failure::Other, other.to_string()),
    }
}

/// A certificate and a key that do not make an identity.
pub(super) fn of_identity(cert: &PemFile, key: &PemFile, error: &Error) -> String {
    match error {
        Error::InconsistentKeys(_) => {
            format!("{key}: is not the key of the certificate in {}", cert.path.display())
        }
        other => format!("{cert}: cannot be used with the key in {}: {other}", key.path.display()),
    }
}
