//! TLS as listeners speak it: TLS 1.2 and 1.3, certificates of the store, ALPN or none, and tickets by which sessions are resumed; by QUIC
//! TLS 1.3 alone, and ALPN `doq`.

use std::io;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, version};

use super::store::CertificateStore;

/// What all encrypted listeners of the process have in common, for as long as it lives: certificates and the key of tickets.
#[derive(Debug)]
pub struct TlsServer {
    store: Arc<CertificateStore>,
    /// What is not the listeners' own.
    base: ServerConfig,
    /// The same for QUIC, which has TLS 1.3 alone (RFC 9001 section 4.2).
    quic_base: ServerConfig,
}

impl TlsServer {
    /// Without any certificate.
    ///
    /// # Errors
    /// If the operating system has no randomness to give.
    pub fn new() -> io::Result<Self> {
        let store: Arc<CertificateStore> = Arc::default();
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
        let mut base = builder.with_no_client_auth().with_cert_resolver(Arc::new(Choice::of(&store)));
        // One for all workers, kept across reloads, so that a ticket is good wherever its client comes back to. It changes its key
        // every six hours, and knows the one before.
        base.ticketer = ring::Ticketer::new().map_err(io::Error::other)?;
        // A session is its ticket: nothing of it is kept here.
        base.session_storage = Arc::new(NoServerSessionStorage {});
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[&version::TLS13]).map_err(io::Error::other)?;
        let mut quic_base = builder.with_no_client_auth().with_cert_resolver(Arc::new(Choice::of(&store)));
        // By QUIC a client must offer it, or hears `no_application_protocol` (RFC 9001 section 8.1).
        quic_base.alpn_protocols = vec![QUIC_ALPN.to_vec()];
        quic_base.ticketer = Arc::clone(&base.ticketer);
        quic_base.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { store, base, quic_base })
    }

    /// The certificates.
    pub fn store(&self) -> &Arc<CertificateStore> {
        &self.store
    }

    /// What one listener speaks. It chooses the certificate by what the client says, until it is told otherwise.
    pub fn listener(&self) -> TlsListener {
        self.listener_of(&self.base)
    }

    /// The same for a listener by QUIC.
    pub fn quic_listener(&self) -> TlsListener {
        self.listener_of(&self.quic_base)
    }

    fn listener_of(&self, base: &ServerConfig) -> TlsListener {
        let choice = Arc::new(Choice::of(&self.store));
        let mut config = base.clone();
        config.cert_resolver = Arc::clone(&choice) as Arc<dyn ResolvesServerCert>;
        TlsListener { config: ArcSwap::from_pointee(config), choice }
    }
}

/// What one listener speaks.
#[derive(Debug)]
pub struct TlsListener {
    config: ArcSwap<ServerConfig>,
    choice: Arc<Choice>,
}

impl TlsListener {
    /// Shows the certificate of this section from now on, or, without one, chooses by what the client says.
    pub fn show_only(&self, only: Option<&str>) {
        self.choice.only.store(only.map(|only| Arc::new(only.to_owned())));
    }

    /// Has clients choose from these protocols from now on, the first of which it should take. Who offers others and none of these hears
    /// `no_application_protocol`; who offers none is served (RFC 7858 knows none).
    pub fn speak(&self, protocols: Vec<Vec<u8>>) {
        let mut config = ServerConfig::clone(&self.config.load());
        if config.alpn_protocols != protocols {
            config.alpn_protocols = protocols;
            self.config.store(Arc::new(config));
        }
    }

    /// Its rules of a handshake.
    pub(in crate::net) fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// A connection whose handshake is to come.
    ///
    /// # Errors
    /// If there is no such TLS in this build.
    pub(in crate::net) fn session(&self) -> io::Result<ServerConnection> {
        ServerConnection::new(self.config.load_full()).map_err(io::Error::other)
    }
}

/// Which certificate a client is shown.
#[derive(Debug)]
struct Choice {
    store: Arc<CertificateStore>,
    /// The section of the listener's own, if it has one.
    only: ArcSwapOption<String>,
}

impl Choice {
    /// One that goes by what the client says.
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
