//! TLS for listeners and clusters, from PEM files. TLS 1.2 and 1.3; both sides settle on HTTP/2 or HTTP/1.1 by ALPN.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, Error as RustlsError, RootCertStore, ServerConfig};

pub(super) use tokio_rustls::rustls::pki_types::ServerName;

use super::config::Protocol;

/// The names of the protocols in ALPN ([RFC 7301](https://www.rfc-editor.org/rfc/rfc7301)).
pub(super) const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// Certificates or a key that can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// Occurs when a file can't be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        field: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Occurs when a file has a PEM section that is damaged.
    #[error("{} is no valid PEM: {source}", path.display())]
    NotPem {
        field: &'static str,
        path: PathBuf,
        source: PemError,
    },
    /// Occurs when a file has no section of the kind that is looked for.
    #[error("{} has no section BEGIN {section}", path.display())]
    Missing {
        field: &'static str,
        path: PathBuf,
        section: &'static str,
    },
    /// Occurs when a certificate or a key is of a kind that is not supported, or the two do not belong together.
    #[error("{}: {source}", path.display())]
    Unfit {
        field: &'static str,
        path: PathBuf,
        source: RustlsError,
    },
    /// Occurs when the system has no root certificates.
    #[error("the system has no root certificates to trust: install ca-certificates or name a file")]
    NoRoots,
}

impl TlsError {
    /// The field that the mistake belongs to.
    pub(super) fn field(&self) -> &'static str {
        match self {
            Self::Unreadable { field, .. }
            | Self::NotPem { field, .. }
            | Self::Missing { field, .. }
            | Self::Unfit { field, .. } => field,
            Self::NoRoots => "ca",
        }
    }
}

/// How files are read: so that whoever reads a configuration knows which belong to it.
pub(super) type ReadFile<'a> = dyn Fn(&Path) -> io::Result<Vec<u8>> + 'a;

/// What a listener shows of itself.
///
/// # Errors
/// When a file can't be read, or what is in it can't be used.
pub(super) fn server(
    certificate: &Path,
    key: &Path,
    read_file: &ReadFile<'_>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates("certificate", certificate, read_file)?;
    let field = "private_key";
    let text = read(field, key, read_file)?;
    let secret = PrivateKeyDer::from_pem_slice(&text).map_err(|source| match source {
        PemError::NoItemsFound => TlsError::Missing {
            field,
            path: key.to_path_buf(),
            section: "PRIVATE KEY",
        },
        source => TlsError::NotPem {
            field,
            path: key.to_path_buf(),
            source,
        },
    })?;
    let unfit = |source| TlsError::Unfit {
        field,
        path: key.to_path_buf(),
        source,
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(unfit)?;
    config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
    Ok(Arc::new(config))
}

/// Whom a cluster trusts, and what it offers to speak.
///
/// # Errors
/// When the file can't be read or holds no certificates, or the system has none.
pub(super) fn client(
    ca: Option<&Path>,
    protocol: Protocol,
    read_file: &ReadFile<'_>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let field = "ca";
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates(field, path, read_file)? {
                roots.add(certificate).map_err(|source| TlsError::Unfit {
                    field,
                    path: path.to_path_buf(),
                    source,
                })?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsError::NoRoots);
            }
        }
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Unfit {
            field,
            path: ca.unwrap_or(Path::new("")).to_path_buf(),
            source,
        })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = match protocol {
        Protocol::Http1 => vec![HTTP_1.to_vec()],
        Protocol::Http2 => vec![HTTP_2.to_vec()],
        Protocol::Auto => vec![HTTP_2.to_vec(), HTTP_1.to_vec()],
    };
    Ok(Arc::new(config))
}

/// The same, for a connection that must be HTTP/1.1 because its protocol is to be changed.
pub(super) fn without_http2(config: &Arc<ClientConfig>) -> Arc<ClientConfig> {
    offering(config, HTTP_1)
}

/// The same, for connections that must be HTTP/2.
pub(super) fn with_http2_alone(config: &Arc<ClientConfig>) -> Arc<ClientConfig> {
    offering(config, HTTP_2)
}

fn offering(config: &Arc<ClientConfig>, protocol: &[u8]) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(config);
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(
    field: &'static str,
    path: &Path,
    read_file: &ReadFile<'_>,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(field, path, read_file)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::NotPem {
            field,
            path: path.to_path_buf(),
            source,
        })?;
    if certificates.is_empty() {
        return Err(TlsError::Missing {
            field,
            path: path.to_path_buf(),
            section: "CERTIFICATE",
        });
    }
    Ok(certificates)
}

fn read(field: &'static str, path: &Path, read_file: &ReadFile<'_>) -> Result<Vec<u8>, TlsError> {
    read_file(path).map_err(|source| TlsError::Unreadable {
        field,
        path: path.to_path_buf(),
        source,
    })
}
