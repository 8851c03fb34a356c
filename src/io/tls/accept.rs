//! TLS with clients.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::WebPkiClientVerifier;

use super::files::{End, Loaded, PemFile, Renew, read_all, with_texts};
use super::provider::provider;
use super::stream::Secure;
use super::words::{self, Failure};

/// What is set for TLS with clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inward {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Who signs the certificates that clients must have; `None` asks for none.
    pub client_ca: Option<PathBuf>,
}

impl Inward {
    fn files(&self) -> Vec<PemFile> {
        let file = |setting, path: &PathBuf| PemFile { setting, path: path.clone() };
        let mut files = vec![file("tls-cert", &self.cert), file("tls-key", &self.key)];
        files.extend(self.client_ca.iter().map(|path| file("tls-client-ca", path)));
        files
    }
}

/// How clients' connections are secured. One for the whole process.
pub struct Acceptor {
    settings: Inward,
    config: ArcSwap<ServerConfig>,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}

impl Acceptor {
    /// Reads the files. Errors: what is wrong with which.
    pub fn new(settings: Inward) -> Result<(Self, Loaded), String> {
        let texts = read_all(&settings.files())?;
        let (config, ends) = build(&settings, &texts)?;
        Ok((Self { settings, config: ArcSwap::from_pointee(config) }, Loaded { texts, ends }))
    }

    /// What a client that has come now is greeted with.
    pub fn handshake(&self) -> Handshake {
        Handshake(self.config.load_full())
    }
}

/// The handshake with one client, not yet begun.
pub struct Handshake(Arc<ServerConfig>);

impl Handshake {
    /// Makes the stream secure. Errors: why not; `None` if the client has gone without a word.
    pub async fn run(self, stream: TcpStream) -> Result<Secure, Option<(Failure, String)>> {
        let mut first = [0];
        // Nothing is spent on one that says nothing.
        match stream.peek(&mut first).await {
            Ok(0) | Err(_) => return Err(None),
            Ok(_) if !words::may_be_tls(first[0]) => return Err(Some(words::plain())),
            Ok(_) => {}
        }
        match TlsAcceptor::from(self.0).accept(stream).await {
            Ok(stream) => Ok(Secure::of_client(stream)),
            Err(error) => Err(Some(words::of_client(&error))),
        }
    }
}

impl Renew for Acceptor {
    fn files(&self) -> Vec<PemFile> {
        self.settings.files()
    }

    fn renew(&self, texts: &[Vec<u8>]) -> Result<Vec<End>, String> {
        let (config, ends) = build(&self.settings, texts)?;
        self.config.store(Arc::new(config));
        Ok(ends)
    }
}

fn build(settings: &Inward, texts: &[Vec<u8>]) -> Result<(ServerConfig, Vec<End>), String> {
    let files = settings.files();
    let mut files = with_texts(&files, texts);
    let (Some((cert, chain)), Some((key, text))) = (files.next(), files.next()) else {
        return Err("tls-cert: not read".to_owned());
    };
    let chain = cert.certificates(chain)?;
    let mut ends = vec![cert.end(&chain)?];
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = match files.next() {
        Some((ca, text)) => {
            let (roots, end) = ca.roots(text)?;
            ends.push(end);
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            config.with_client_cert_verifier(verifier.build().map_err(|error| format!("{ca}: {error}"))?)
        }
        None => config.with_no_client_auth(),
    };
    let config = config
        .with_single_cert(chain, key.key(text)?)
        .map_err(|error| words::of_identity(cert, key, &error))?;
    Ok((config, ends))
}
