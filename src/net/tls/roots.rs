//! Whose certificates are good, and a connection of a task to a server that bears one of them.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls_native_certs::load_native_certs;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Whose certificates are good.
#[derive(Clone, Debug)]
pub struct TlsRoots {
    config: Arc<ClientConfig>,
    store: Arc<RootCertStore>,
    /// The text that they were read from; empty: they are those of this system.
    pem: Arc<[u8]>,
}

impl PartialEq for TlsRoots {
    /// Whether both are from the same text.
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem
    }
}

impl Eq for TlsRoots {}

impl TlsRoots {
    /// Those that stand in a text of certificates (PEM).
    ///
    /// # Errors
    /// If there is none in it, or one is broken.
    pub fn of_pem(pem: &[u8]) -> Result<Self, String> {
        Self::of(store_of_pem(pem)?, pem)
    }

    /// Those that this system has.
    ///
    /// # Errors
    /// If it has none.
    pub fn of_system() -> Result<Self, String> {
        Self::of(store_of_system()?, b"")
    }

    fn of(roots: RootCertStore, pem: &[u8]) -> Result<Self, String> {
        // One of the two providers that there are, said here so that nothing depends on what else is linked.
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let store = Arc::new(roots);
        let config = Arc::new(builder.with_root_certificates(Arc::clone(&store)).with_no_client_auth());
        Ok(Self { config, store, pem: pem.into() })
    }

    /// The certificates.
    pub(super) fn store(&self) -> &Arc<RootCertStore> {
        &self.store
    }

    /// TLS over a connection to a server whose certificate must bear this address.
    ///
    /// # Errors
    /// If the server does not prove who it is.
    pub async fn connect_to_address(&self, stream: TcpStream, ip: IpAddr) -> io::Result<TlsStream<TcpStream>> {
        TlsConnector::from(Arc::clone(&self.config)).connect(ServerName::IpAddress(ip.into()), stream).await
    }

    /// TLS over a connection to a server whose certificate must bear this name.
    ///
    /// # Errors
    /// If the server does not prove who it is.
    pub async fn connect_to_name(&self, stream: TcpStream, name: &str) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await
    }
}

/// The authorities that stand in a text of certificates (PEM).
fn store_of_pem(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(roots) }
}

/// The authorities that this system trusts.
fn store_of_system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(load_native_certs().certs);
    if roots.is_empty() { Err("this system has no certificates".to_owned()) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_read_from_text() {
        assert_eq!(TlsRoots::of_pem(b"nothing").err().as_deref(), Some("it holds no certificate"));
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(TlsRoots::of_pem(broken).is_err());
    }
}
