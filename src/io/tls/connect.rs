//! TLS to the upstream.
//!
//! Invariant: the name that is sent is the name that is verified: the one that is set, or the host that is dialled.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::files::{End, Loaded, PemFile, Renew, read_all};
use super::provider::provider;
use super::stream::Secure;
use super::words;

const CA: &str = "upstream-tls-ca";
const CERT: &str = "upstream-tls-cert";
const KEY: &str = "upstream-tls-key";

/// What is set for TLS to the upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outward {
    /// The CAs that are trusted in the place of the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that is sent and verified in the place of the host's.
    pub name: Option<String>,
    /// Whoever answers is believed.
    pub insecure: bool,
}

impl Outward {
    fn files(&self) -> Vec<PemFile> {
        let file = |setting, path: &PathBuf| PemFile { setting, path: path.clone() };
        let ca = self.ca.iter().map(|path| file(CA, path));
        let identity = self.identity.iter().flat_map(|(cert, key)| [file(CERT, cert), file(KEY, key)]);
        ca.chain(identity).collect()
    }
}

/// How connections to the upstream are secured. One for the whole process.
pub struct Connector {
    settings: Outward,
    name: Option<ServerName<'static>>,
    config: ArcSwap<ClientConfig>,
    asked: Arc<Asked>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}

impl Connector {
    /// Reads the files. Errors: what is wrong with which setting.
    pub fn new(settings: Outward) -> Result<(Self, Loaded), String> {
        let name = settings.name.as_ref().map(|name| {
            server_name(name).ok_or_else(|| {
                format!("upstream-tls-sni: {name:?} is neither a host's name nor an IP address")
            })
        });
        let name = name.transpose()?;
        let asked = Arc::new(Asked::default());
        let texts = read_all(&settings.files())?;
        let (config, ends) = build(&settings, &texts, &asked)?;
        let config = ArcSwap::from_pointee(config);
        Ok((Self { settings, name, config, asked }, Loaded { texts, ends }))
    }

    /// Makes the stream secure. Errors: why not, and what to do.
    pub async fn connect(&self, stream: TcpStream, host: &str) -> io::Result<Secure> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => server_name(host).ok_or_else(|| {
                io::Error::other(format!("{host:?} is no name to verify: set upstream-tls-sni"))
            })?,
        };
        let shown = name.to_str().into_owned();
        let connector = TlsConnector::from(self.config.load_full());
        self.asked.0.store(false, Ordering::Relaxed);
        match connector.connect(name, stream).await {
            Ok(stream) => {
                let asked = self.asked.0.load(Ordering::Relaxed);
                Ok(Secure::of_upstream(stream, shown, asked))
            }
            Err(error) => Err(words::of_upstream(error, &shown)),
        }
    }
}

impl Renew for Connector {
    fn files(&self) -> Vec<PemFile> {
        self.settings.files()
    }

    fn renew(&self, texts: &[Vec<u8>]) -> Result<Vec<End>, String> {
        let (config, ends) = build(&self.settings, texts, &self.asked)?;
        self.config.store(Arc::new(config));
        Ok(ends)
    }
}

fn server_name(text: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(text.to_owned()).ok()
}

fn build(
    settings: &Outward,
    texts: &[Vec<u8>],
    asked: &Arc<Asked>,
) -> Result<(ClientConfig, Vec<End>), String> {
    let files = settings.files();
    let mut with_texts = super::files::with_texts(&files, texts);
    let mut ends = Vec::new();
    let verifier: Arc<dyn ServerCertVerifier> = {
        let roots = match &settings.ca {
            Some(_) => {
                let (file, text) = with_texts.next().ok_or("upstream-tls-ca: not read")?;
                let (roots, end) = file.roots(text)?;
                ends.push(end);
                roots
            }
            None if settings.insecure => RootCertStore::empty(),
            None => of_system()?,
        };
        match settings.insecure {
            true => Arc::new(Believes),
            false => WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
                .build()
                .map_err(|error| format!("upstream-tls-ca: {error}"))?,
        }
    };
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match (with_texts.next(), with_texts.next()) {
        (Some((cert, chain)), Some((key, text))) => {
            let chain = cert.certificates(chain)?;
            ends.push(cert.end(&chain)?);
            config
                .with_client_auth_cert(chain, key.key(text)?)
                .map_err(|error| words::of_identity(cert, key, &error))?
        }
        _ => config.with_client_cert_resolver(asked.clone()),
    };
    Ok((config, ends))
}

/// The CAs that the system trusts.
fn of_system() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (taken, _) = roots.add_parsable_certificates(found.certs);
    if taken > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
    Err(format!(
        "upstream: rediss:// needs CAs to verify the server by, and the system has none{why}: install ca-certificates, or \
         set upstream-tls-ca"
    ))
}

/// We have no certificate; notes whether the upstream has asked for one.
#[derive(Debug, Default)]
struct Asked(AtomicBool);

impl ResolvesClientCert for Asked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Verifies nothing but that the other side has the key of the certificate that it shows.
#[derive(Debug)]
struct Believes;

impl ServerCertVerifier for Believes {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
