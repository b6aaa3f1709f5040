//! Verifies a server's certificate by chain and name, by pins, by both, or not at all.

use std::fmt;
use std::sync::Arc;

use dns::address::Pin;
use ring::digest::{SHA256, digest};
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

/// Checks the chain, if configured, then the pins, if any.
#[derive(Debug)]
pub(super) struct PinVerifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    pins: Vec<Pin>,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
pub(super) struct NoPin;

impl PinVerifier {
    pub(super) fn new(chain: Option<Arc<WebPkiServerVerifier>>, pins: Vec<Pin>, provider: &CryptoProvider) -> Self {
        Self { chain, pins, algorithms: provider.signature_verification_algorithms }
    }

    /// RFC 7858 section 4.2: compares the hash of the leaf's key; other certificates need not be in its
    /// chain.
    fn has_pin(&self, certificate: &CertificateDer<'_>) -> Result<bool, Error> {
        let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
        let hash = digest(&SHA256, &key);
        Ok(self.pins.iter().any(|pin| pin.0 == hash.as_ref()))
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(chain) = &self.chain {
            chain.verify_server_cert(certificate, others, name, ocsp, now)?;
        }
        if !self.pins.is_empty() && !self.has_pin(certificate)? {
            return Err(CertificateError::Other(OtherError(Arc::new(NoPin))).into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl fmt::Display for NoPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its key has none of the pins")
    }
}

impl std::error::Error for NoPin {}
