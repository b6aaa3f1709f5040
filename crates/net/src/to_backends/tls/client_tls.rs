//! The TLS configuration of connections to one server. A TLS 1.3 ticket is used once (RFC 8446 appendix C.4).

use std::net::IpAddr;
use std::sync::Arc;

use dns::address::{ServerIdentity, Verify};
use quinn_proto::TokenMemoryCache;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::client::{Resumption, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, ClientConnection};

use super::problem::tls_problem;
use super::quic_session::QuicTls;
use super::roots::TlsRoots;
use super::verifier::PinVerifier;

/// The TLS configuration of connections to one server.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
    /// QUIC address validation tokens (RFC 9000 section 8.1.3).
    address_tokens: Arc<TokenMemoryCache>,
    rules: TrustRules,
}

/// The rules for trusting and connecting to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustRules {
    /// The identity that the server must prove. Its name, if any, is sent (SNI).
    pub identity: ServerIdentity,
    /// The trusted authorities; required to verify a chain.
    pub roots: Option<TlsRoots>,
    /// The address of the server.
    pub address: IpAddr,
    /// The ALPN protocols, preferred first.
    pub alpn: Vec<Vec<u8>>,
    /// The certificate for servers that request one.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// True if a resumed session may send early data (0-RTT).
    pub early_data: bool,
    /// True if TLS 1.2 is not accepted.
    pub needs_tls_1_3: bool,
}

/// A client certificate with its key.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the leaf.
    pub key: PrivateKeyDer<'static>,
}

impl ClientTls {
    /// Creates the configuration for the rules.
    ///
    /// # Errors
    /// The problem, as a sentence without the place.
    pub fn new(rules: &TrustRules) -> Result<Self, String> {
        // Explicit, so that the provider does not depend on linked features.
        let provider = Arc::new(ring::default_provider());
        let verifier = verifier(rules, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = match rules.needs_tls_1_3 {
            true => builder.with_protocol_versions(&[&TLS13]),
            false => builder.with_safe_default_protocol_versions(),
        };
        let builder = builder.map_err(|error| tls_problem(&error))?;
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
                .map_err(|_| format!("\"{name}\" is not a name that a certificate can contain"))?,
            None => ServerName::IpAddress(rules.address.into()),
        };
        let address_tokens = Arc::new(TokenMemoryCache::new(SESSIONS as u32, ADDRESS_TOKENS));
        Ok(Self { config: Arc::new(config), server_name, address_tokens, rules: rules.clone() })
    }

    /// Creates a connection before its handshake.
    ///
    /// # Errors
    /// If the rules are inconsistent; this is no fault of the server.
    pub(crate) fn begin(&self) -> Result<ClientConnection, String> {
        let connection = ClientConnection::new(Arc::clone(&self.config), self.server_name.clone());
        connection.map_err(|error| tls_problem(&error))
    }

    /// The configuration for QUIC connections.
    pub(crate) fn quic(&self) -> quinn_proto::ClientConfig {
        let tls = QuicTls { config: Arc::clone(&self.config), server_name: self.server_name.clone() };
        let mut config = quinn_proto::ClientConfig::new(Arc::new(tls));
        config.token_store(Arc::clone(&self.address_tokens) as _);
        config
    }

    /// The rules of this configuration.
    pub fn rules(&self) -> &TrustRules {
        &self.rules
    }
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules
    }
}

impl Eq for ClientTls {}

fn verifier(rules: &TrustRules, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let pins = || rules.identity.pins.clone();
    let verifier = match rules.identity.verify {
        Verify::Full => {
            let roots = rules.roots.as_ref().ok_or(
                "no trusted certificate authorities are known: set ca for this server, or install ca-certificates",
            )?;
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

/// One server name per backend. The library keeps at most eight tickets of each.
const SESSIONS: usize = 1;

const ADDRESS_TOKENS: usize = 4;
