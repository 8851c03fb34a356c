//! CAs and certificates made for one test, servers with TLS, and clients that speak it.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nearside::config::{Config, HostPort, Listen, Upstream};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion, crypto::ring,
};

use super::{Conn, Redis, SOON, free_port};

/// A CA, in a folder of its own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// How old a certificate is.
#[derive(Clone, Copy, PartialEq)]
pub enum Age {
    Valid,
    Expired,
}

impl Authority {
    pub fn new() -> Self {
        Self::called("nearside's test CA")
    }

    pub fn called(ca: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = called(ca);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), folder }
    }

    /// The file with its certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A certificate for these names, in files that have `of` in their names.
    pub fn issue(&self, of: &str, names: &[&str]) -> Identity {
        self.issue_aged(of, names, Age::Valid)
    }

    pub fn issue_aged(&self, of: &str, names: &[&str], age: Age) -> Identity {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let day = Duration::from_secs(24 * 3600);
        let now = SystemTime::now();
        let until = if age == Age::Expired { now - day } else { now + day };
        // With its issuer's name it would look as if it had signed itself.
        params.distinguished_name = called(of);
        params.not_before = (now - 10 * day).into();
        params.not_after = until.into();
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let path = |what: &str| self.folder.path().join(format!("{of}.{what}"));
        let identity = Identity { cert: path("crt"), key: path("key") };
        std::fs::write(&identity.cert, cert.pem()).unwrap();
        std::fs::write(&identity.key, key.serialize_pem()).unwrap();
        identity
    }
}

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    called
}

/// A redis-server with a TLS port beside its plain one.
pub struct TlsRedis {
    pub redis: Redis,
    pub port: u16,
}

impl TlsRedis {
    /// With this certificate; whoever comes needs one of the same CA if `demands`.
    pub fn start(authority: &Authority, identity: &Identity, demands: bool, more: &[&str]) -> Self {
        let port = free_port();
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let given = [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", path(&identity.cert)),
            ("--tls-key-file", path(&identity.key)),
            ("--tls-ca-cert-file", path(&authority.ca())),
            ("--tls-auth-clients", if demands { "yes" } else { "no" }.to_owned()),
        ];
        let mut args: Vec<&str> = given.iter().flat_map(|(name, value)| [*name, value.as_str()]).collect();
        args.extend(more);
        Self { redis: Redis::with(&args), port }
    }

    /// As nearside's upstream, believed by this CA.
    pub fn behind(&self, authority: &Authority) -> impl FnOnce(&mut Config) + use<> {
        let (url, ca) = (self.url(), authority.ca());
        move |config| {
            config.upstream = Upstream::parse(&url).unwrap();
            config.upstream_tls_ca = Some(ca);
        }
    }

    pub fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.port)
    }
}

/// Lets clients come by TLS alone.
pub fn listen(config: &mut Config, identity: &Identity) {
    config.listen = vec![Listen::Tls(HostPort { host: "127.0.0.1".into(), port: 0 })];
    config.tls_cert = Some(identity.cert.clone());
    config.tls_key = Some(identity.key.clone());
}

pub type TlsConn = Conn<StreamOwned<ClientConnection, TcpStream>>;

/// How a client speaks TLS.
pub struct Client<'a> {
    pub ca: &'a Path,
    pub identity: Option<&'a Identity>,
    pub versions: &'static [&'static SupportedProtocolVersion],
}

impl<'a> Client<'a> {
    pub fn of(authority: &'a Path) -> Self {
        Self { ca: authority, identity: None, versions: tokio_rustls::rustls::ALL_VERSIONS }
    }

    /// Connects, and makes the handshake.
    pub fn connect(&self, address: SocketAddr) -> std::io::Result<TlsConn> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.ca).unwrap()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_webpki_verifier(verifier);
        let config = match self.identity {
            Some(identity) => {
                let chain = vec![CertificateDer::from_pem_file(&identity.cert).unwrap()];
                let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        let name = ServerName::from(address.ip());
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.set_nodelay(true)?;
        let mut stream = StreamOwned::new(session, stream);
        // Which begins the handshake, and ends it.
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        stream.flush()?;
        Ok(Conn::over(stream))
    }
}
