//! PEM files: what is read from them, and what is wrong with them.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::{Error, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// No file is longer, in bytes: the CAs of a whole system are a fifth of it.
const LONGEST: u64 = 1 << 20;

/// What takes files, and takes them again when they have changed.
pub trait Renew: Send + Sync {
    fn files(&self) -> Vec<PemFile>;

    /// Takes what the files hold, in the order of [`files`](Self::files), for new connections; gives the ends of the
    /// certificates' validity. Errors: what is wrong with which file; then nothing is changed.
    fn renew(&self, texts: &[Vec<u8>]) -> Result<Vec<End>, String>;
}

/// The end of validity of a file's certificates, in seconds since 1970: of a chain, of the one that ends first; of CAs, of
/// the one that ends last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub setting: &'static str,
    pub at: u64,
}

/// What was read at the start.
pub struct Loaded {
    pub texts: Vec<Vec<u8>>,
    pub ends: Vec<End>,
}

/// A file and the setting that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemFile {
    pub setting: &'static str,
    pub path: PathBuf,
}

impl fmt::Display for PemFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.path.display())
    }
}

impl PemFile {
    /// Reads it whole. Errors: which file, and why.
    pub fn read(&self) -> Result<Vec<u8>, String> {
        let mut text = Vec::new();
        let read = File::open(&self.path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut text));
        match read {
            Err(error) => Err(format!("{self}: {error}")),
            Ok(_) if text.len() as u64 > LONGEST => Err(format!("{self}: longer than {LONGEST} bytes")),
            Ok(_) => Ok(text),
        }
    }

    pub(super) fn certificates(&self, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        match certificates {
            Ok(certificates) if certificates.is_empty() => {
                Err(format!("{self}: holds no certificate (-----BEGIN CERTIFICATE-----)"))
            }
            Ok(certificates) => Ok(certificates),
            Err(error) => Err(format!("{self}: no valid PEM: {error}")),
        }
    }

    pub(super) fn key(&self, text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
        PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
            Error::NoItemsFound => {
                format!("{self}: holds no private key, or one under a password: nearside needs it without")
            }
            error => format!("{self}: no valid PEM: {error}"),
        })
    }

    /// CAs to verify others by, and the end of the last of them.
    pub(super) fn roots(&self, text: &[u8]) -> Result<(RootCertStore, End), String> {
        let certificates = self.certificates(text)?;
        let end = self.ends(&certificates)?.into_iter().max().unwrap_or_default();
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate).map_err(|error| format!("{self}: no certificate of a CA: {error}"))?;
        }
        Ok((roots, End { setting: self.setting, at: end }))
    }

    /// The end of the first of a chain to end.
    pub(super) fn end(&self, chain: &[CertificateDer<'_>]) -> Result<End, String> {
        let at = self.ends(chain)?.into_iter().min().unwrap_or_default();
        Ok(End { setting: self.setting, at })
    }

    fn ends(&self, certificates: &[CertificateDer<'_>]) -> Result<Vec<u64>, String> {
        let end = |certificate: &CertificateDer<'_>| {
            let (_, certificate) = x509_parser::parse_x509_certificate(certificate)
                .map_err(|error| format!("{self}: no valid certificate: {error}"))?;
            Ok(certificate.validity().not_after.timestamp().try_into().unwrap_or_default())
        };
        certificates.iter().map(end).collect()
    }
}

/// The PEM files, with what each holds.
pub(super) fn with_texts<'a>(
    files: &'a [PemFile],
    texts: &'a [Vec<u8>],
) -> impl Iterator<Item = (&'a PemFile, &'a [u8])> {
    files.iter().zip(texts.iter().map(Vec::as_slice))
}

/// What all files hold. Errors: of the first that cannot be read.
pub(super) fn read_all(files: &[PemFile]) -> Result<Vec<Vec<u8>>, String> {
    files.iter().map(PemFile::read).collect()
}
