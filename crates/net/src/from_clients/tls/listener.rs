//! TLS 1.2 and 1.3 of listeners: certificates from the store, ALPN, session tickets. QUIC has TLS 1.3 only.

use std::io;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{DEFAULT_VERSIONS, ServerConfig, version};

use super::store::CertificateStore;

/// State that all encrypted listeners share for the life of the process: certificates and ticket key.
#[derive(Debug)]
pub struct TlsServer {
    store: Arc<CertificateStore>,
    base: ServerConfig,
    /// QUIC has TLS 1.3 only (RFC 9001 section 4.2), and each listener decides about tickets.
    quic_base: ServerConfig,
    ticketer: Arc<dyn ProducesTickets>,
}

impl TlsServer {
    /// Creates a server without certificates.
    ///
    /// # Errors
    /// If the operating system provides no randomness.
    pub fn new() -> io::Result<Self> {
        let store: Arc<CertificateStore> = Arc::default();
        let provider = Arc::new(ring::default_provider());
        // Shared and kept across reloads, so that a ticket works everywhere. The key changes every six hours,
        // and the previous one stays valid.
        let ticketer = ring::Ticketer::new().map_err(io::Error::other)?;
        let config = |versions| -> io::Result<ServerConfig> {
            let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
            let builder = builder.with_protocol_versions(versions).map_err(io::Error::other)?;
            let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(Choice::of(&store)));
            config.session_storage = Arc::new(NoServerSessionStorage {});
            Ok(config)
        };
        let mut base = config(DEFAULT_VERSIONS)?;
        base.ticketer = Arc::clone(&ticketer);
        let mut quic_base = config(&[&version::TLS13])?;
        // A QUIC client must offer it, or gets `no_application_protocol` (RFC 9001 section 8.1).
        quic_base.alpn_protocols = vec![QUIC_ALPN.to_vec()];
        Ok(Self { store, base, quic_base, ticketer })
    }

    /// The certificate store.
    pub fn store(&self) -> &Arc<CertificateStore> {
        &self.store
    }

    /// Creates the TLS of one listener, which selects certificates by SNI until [`TlsListener::show_only`].
    pub fn listener(&self) -> TlsListener {
        self.listener_of(&self.base)
    }

    /// Creates the TLS of one QUIC listener.
    pub fn quic_listener(&self) -> TlsListener {
        self.listener_of(&self.quic_base)
    }

    fn listener_of(&self, base: &ServerConfig) -> TlsListener {
        let choice = Arc::new(Choice::of(&self.store));
        let mut config = base.clone();
        config.cert_resolver = Arc::clone(&choice) as Arc<dyn ResolvesServerCert>;
        TlsListener { config: ArcSwap::from_pointee(config), choice, ticketer: Arc::clone(&self.ticketer) }
    }
}

/// The TLS of one listener.
#[derive(Debug)]
pub struct TlsListener {
    config: ArcSwap<ServerConfig>,
    choice: Arc<Choice>,
    /// The tickets of all listeners.
    pub(crate) ticketer: Arc<dyn ProducesTickets>,
}

impl TlsListener {
    /// Uses only the certificate of this section, or selects by SNI if `None`.
    pub fn show_only(&self, only: Option<&str>) {
        self.choice.only.store(only.map(|only| Arc::new(only.to_owned())));
    }

    /// Sets the ALPN protocols, preferred first. A client that offers only others gets
    /// `no_application_protocol`; one that offers none is served (RFC 7858 has no ALPN).
    pub fn speak(&self, protocols: Vec<Vec<u8>>) {
        let mut config = ServerConfig::clone(&self.config.load());
        if config.alpn_protocols != protocols {
            config.alpn_protocols = protocols;
            self.config.store(Arc::new(config));
        }
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}

#[derive(Debug)]
struct Choice {
    store: Arc<CertificateStore>,
    only: ArcSwapOption<String>,
}

impl Choice {
    fn of(store: &Arc<CertificateStore>) -> Self {
        Self { store: Arc::clone(store), only: ArcSwapOption::empty() }
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let only = self.only.load();
        let only = only.as_deref().map(String::as_str);
        let chosen = self.store.choose(only, hello.server_name(), hello.signature_schemes());
        chosen.map(|certificate| Arc::clone(certificate.certified()))
    }
}

/// DNS over QUIC (RFC 9250 section 4.1.1).
const QUIC_ALPN: &[u8] = b"doq";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_last_six_hours() {
        // RFC 9250 section 5.5.3.
        let server = TlsServer::new().unwrap();
        assert!(server.ticketer.enabled() && server.ticketer.lifetime() >= 6 * 3600);
    }
}
