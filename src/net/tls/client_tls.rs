//! What a connection to one server by TLS needs: whom it may be, and what we show of ourselves.
//!
//! Made when the configuration is read, shared by all workers, and with it the sessions that can be resumed: a TLS 1.3 ticket is
//! taken out when it is used (RFC 8446 appendix C.4), a bounded number of them is kept.

use std::net::IpAddr;
use std::sync::Arc;

use quinn_proto::TokenMemoryCache;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::client::{Resumption, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection};

use super::problem::tls_problem;
use super::quic_session::QuicTls;
use super::roots::TlsRoots;
use super::verifier::PinVerifier;
use crate::address::{ServerIdentity, Verify};

/// What a connection to one server needs.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
    /// What the server has given by which it knows our address later (RFC 9000 section 8.1.3).
    address_tokens: Arc<TokenMemoryCache>,
    rules: TrustRules,
}

/// Whom a server may be, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustRules {
    /// What it has to prove. It is told the name, if there is one (SNI).
    pub identity: ServerIdentity,
    /// Who may vouch for it; needed where a chain is looked at.
    pub roots: Option<TlsRoots>,
    /// Its address.
    pub address: IpAddr,
    /// The protocols that we speak (ALPN), the preferred first.
    pub alpn: Vec<Vec<u8>>,
    /// What we show to a server that wants to know who asks.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Whether octets may go with the first flight of a resumed session (0-RTT).
    pub early_data: bool,
}

/// A certificate of our own, with its key.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Ours first, then those that vouch for it.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first.
    pub key: PrivateKeyDer<'static>,
}

impl ClientTls {
    /// What follows from the rules.
    ///
    /// # Errors
    /// What is wrong with them, as a sentence without the place.
    pub fn new(rules: &TrustRules) -> Result<Self, String> {
        // One of the two providers that there are, said here so that nothing depends on what else is linked.
        let provider = Arc::new(ring::default_provider());
        let verifier = verifier(rules, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| tls_problem(&error))?;
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match rules.certificate.as_deref() {
            Some(ClientCertificate { chain, key }) => builder
                .with_client_auth_cert(chain.clone(), key.clone_key())
                .map_err(|error| format!("its certificate cannot be used: {}", tls_problem(&error)))?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&rules.alpn);
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        config.enable_early_data = rules.early_data;
        let server_name = match &rules.identity.name {
            Some(name) => ServerName::try_from(name.clone())
                .map_err(|_| format!("\"{name}\" is no name that a certificate can bear"))?,
            None => ServerName::IpAddress(rules.address.into()),
        };
        let address_tokens = Arc::new(TokenMemoryCache::new(SESSIONS as u32, ADDRESS_TOKENS));
        Ok(Self { config: Arc::new(config), server_name, address_tokens, rules: rules.clone() })
    }

    /// A connection that has not said anything yet.
    ///
    /// # Errors
    /// If the rules do not go together: there is no server to blame.
    pub fn begin(&self) -> Result<ClientConnection, String> {
        let connection = ClientConnection::new(Arc::clone(&self.config), self.server_name.clone());
        connection.map_err(|error| tls_problem(&error))
    }

    /// What a connection by QUIC needs, which is TLS inside of it.
    pub fn quic(&self) -> quinn_proto::ClientConfig {
        let tls = QuicTls { config: Arc::clone(&self.config), server_name: self.server_name.clone() };
        let mut config = quinn_proto::ClientConfig::new(Arc::new(tls));
        config.token_store(Arc::clone(&self.address_tokens) as _);
        config
    }

    /// The configuration of all connections to this server.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// Who its certificate must be for.
    pub fn server_name(&self) -> &ServerName<'static> {
        &self.server_name
    }

    /// What it was made from.
    pub fn rules(&self) -> &TrustRules {
        &self.rules
    }
}

impl PartialEq for ClientTls {
    /// Whether both follow from the same rules.
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules
    }
}

impl Eq for ClientTls {}

/// Who judges the certificate of a server.
fn verifier(rules: &TrustRules, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let pins = || rules.identity.pins.clone();
    let verifier = match rules.identity.verify {
        Verify::Full => {
            let roots = rules.roots.as_ref().ok_or("nobody is known who could vouch for it")?;
            let chain = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots.store()), Arc::clone(provider));
            let chain = chain.build().map_err(|error| error.to_string())?;
            PinVerifier::new(Some(chain), pins(), provider)
        }
        Verify::Pin if rules.identity.pins.is_empty() => return Err("verify = \"pin\" needs pins".to_owned()),
        Verify::Pin => PinVerifier::new(None, pins(), provider),
        Verify::None => PinVerifier::new(None, Vec::new(), provider),
    };
    Ok(Arc::new(verifier))
}

/// Servers whose sessions are kept, of one backend: itself. The library keeps at most eight tickets of each.
const SESSIONS: usize = 1;

/// Address tokens that are kept: each is used once, and a server gives a few with each connection.
const ADDRESS_TOKENS: usize = 4;
