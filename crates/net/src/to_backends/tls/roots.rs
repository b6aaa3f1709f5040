//! Trust anchors, and TLS connections that rely on them.

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

/// A set of trust anchors.
#[derive(Clone, Debug)]
pub struct TlsRoots {
    config: Arc<ClientConfig>,
    store: Arc<RootCertStore>,
    /// The PEM source; empty for the system's anchors.
    pem: Arc<[u8]>,
}

impl PartialEq for TlsRoots {
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem
    }
}

impl Eq for TlsRoots {}

impl TlsRoots {
    /// Reads anchors from PEM.
    ///
    /// # Errors
    /// If there is none, or one is broken.
    pub fn of_pem(pem: &[u8]) -> Result<Self, String> {
        Self::of(store_of_pem(pem)?, pem)
    }

    /// Loads the system's anchors.
    ///
    /// # Errors
    /// If it has none.
    pub fn of_system() -> Result<Self, String> {
        Self::of(store_of_system()?, b"")
    }

    fn of(roots: RootCertStore, pem: &[u8]) -> Result<Self, String> {
        // Explicit, so that the provider does not depend on linked features.
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let store = Arc::new(roots);
        let config = Arc::new(builder.with_root_certificates(Arc::clone(&store)).with_no_client_auth());
        Ok(Self { config, store, pem: pem.into() })
    }

    pub(super) fn store(&self) -> &Arc<RootCertStore> {
        &self.store
    }

    /// Starts TLS with a server whose certificate must have this address.
    ///
    /// # Errors
    /// If the server does not prove its identity.
    pub async fn connect_to_address(&self, stream: TcpStream, ip: IpAddr) -> io::Result<TlsStream<TcpStream>> {
        TlsConnector::from(Arc::clone(&self.config)).connect(ServerName::IpAddress(ip.into()), stream).await
    }

    /// Starts TLS with a server whose certificate must have this name.
    ///
    /// # Errors
    /// If the server does not prove its identity.
    pub async fn connect_to_name(&self, stream: TcpStream, name: &str) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await
    }
}

fn store_of_pem(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(roots) }
}

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
