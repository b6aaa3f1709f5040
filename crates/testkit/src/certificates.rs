//! Certificate authorities that are made when a test runs, the certificates that they issue, and the configs
//! of both sides of TLS.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SignatureAlgorithm, date_time_ymd,
};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::{WantsServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, SupportedProtocolVersion, WantsVerifier,
};

/// A certificate authority that nothing else trusts.
pub struct CertificateAuthority(CertifiedIssuer<'static, KeyPair>);

impl CertificateAuthority {
    /// Creates an authority with a new key.
    pub fn new() -> Self {
        let mut params = params(&[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = new_key(&PKCS_ECDSA_P256_SHA256);
        // Each authority has a unique name, because it is looked up by name.
        let name = HEXLOWER.encode(&key.public_key_raw()[..16]);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// Returns the certificate of the authority in PEM, for `ca`.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate for these names and addresses.
    pub fn leaf(&self, names: &[&str]) -> Leaf {
        self.leaf_with(names, |_| ())
    }

    /// Issues a certificate after `change` has changed its contents.
    pub fn leaf_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        self.sign(names, &PKCS_ECDSA_P256_SHA256, change)
    }

    /// Returns a chain for this name and for 127.0.0.1, and its key, both in PEM.
    pub fn issue(&self, name: &str) -> (String, String) {
        self.issue_by(name, &PKCS_ECDSA_P256_SHA256, 4000)
    }

    /// Does the same with a key of this kind, for a certificate that expires at the beginning of a year.
    pub fn issue_by(&self, name: &str, kind: &'static SignatureAlgorithm, until: i32) -> (String, String) {
        let leaf = self.sign(&[name, "127.0.0.1"], kind, |params| params.not_after = date_time_ymd(until, 1, 1));
        (leaf.pem() + &self.pem(), leaf.key_pem())
    }

    /// Returns a chain for this name with a key in PEM, which may be of a kind that cannot be made here.
    pub fn issue_for(&self, name: &str, key: &str) -> (String, String) {
        let key = KeyPair::from_pem(key).expect("a key");
        let leaf = self.sign_for(&[name], key, |_| ());
        (leaf.pem() + &self.pem(), leaf.key_pem())
    }

    fn sign(
        &self,
        names: &[&str],
        kind: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        self.sign_for(names, new_key(kind), change)
    }

    fn sign_for(&self, names: &[&str], key: KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = params(names);
        change(&mut params);
        Leaf { certificate: params.signed_by(&key, &self.0).expect("a certificate"), key }
    }

    /// Returns the config of a client that trusts this authority and speaks these protocols above TLS.
    pub fn trusted(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        self.trusted_by(alpn, &[&TLS13, &TLS12])
    }

    /// Returns a client config with these versions of TLS.
    pub fn trusted_by(&self, alpn: &[&str], versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(versions).expect("versions that there are");
        let mut config = builder.with_root_certificates(self.roots()).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// The store of a client or server that trusts this authority alone.
    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a certificate");
        roots
    }
}

/// A certificate and its key.
pub struct Leaf {
    certificate: Certificate,
    key: KeyPair,
}

impl Leaf {
    /// Makes a certificate for these names and addresses that is its own authority.
    pub fn self_signed(names: &[&str]) -> Self {
        Self::self_signed_with(names, &PKCS_ECDSA_P256_SHA256, |_| ())
    }

    /// Makes a certificate with a key of this kind after `change` has changed its contents.
    pub fn self_signed_with(
        names: &[&str],
        kind: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let (mut params, key) = (params(names), new_key(kind));
        change(&mut params);
        Self { certificate: params.self_signed(&key).expect("a certificate"), key }
    }

    /// Returns the certificate in PEM.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Returns the key in PEM.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Returns the certificate.
    pub fn der(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }

    /// Returns the key.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }

    /// Returns the public key, of which a pin is a digest.
    pub fn public_key(&self) -> Vec<u8> {
        self.key.subject_public_key_info()
    }

    /// Returns the config of a server that shows the certificate.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.serve(server_builder().with_no_client_auth())
    }

    /// Returns the config of a server whose clients must show a certificate of this authority.
    pub fn server_for(&self, clients: &CertificateAuthority) -> Arc<ServerConfig> {
        let provider = Arc::new(ring::default_provider());
        let asks = WebPkiClientVerifier::builder_with_provider(Arc::new(clients.roots()), provider).build();
        self.serve(server_builder().with_client_cert_verifier(asks.expect("it has a trusted authority")))
    }

    fn serve(&self, builder: ConfigBuilder<ServerConfig, WantsServerCert>) -> Arc<ServerConfig> {
        let config = builder.with_single_cert(vec![self.der().clone()], self.private_key());
        Arc::new(config.expect("they belong together"))
    }
}

fn params(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).expect("names")
}

fn new_key(kind: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(kind).expect("a key")
}

/// A server that speaks all versions of TLS that ring has.
pub(crate) fn server_builder() -> ConfigBuilder<ServerConfig, WantsVerifier> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    builder.with_safe_default_protocol_versions().expect("ring has both")
}
