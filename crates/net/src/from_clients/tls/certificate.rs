//! A server certificate: chain and key, read from PEM and checked to match.

use std::net::IpAddr;
use std::sync::Arc;

use tokio_rustls::rustls::Error;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::contents::{CertificateContents, Validity};

/// A server certificate with chain and key. Its `Debug` never shows the key.
#[derive(Debug)]
pub struct Certificate {
    certified: Arc<CertifiedKey>,
    key: PrivateKeyDer<'static>,
    contents: CertificateContents,
    names: Vec<String>,
}

impl Certificate {
    /// Reads chain (leaf first) and key from PEM. Without `names`, those in the certificate select it.
    ///
    /// # Errors
    /// If chain or key is invalid, or they do not match.
    pub fn read(chain: &[u8], key: &[u8], names: &[String]) -> Result<Self, CertificateError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|error| CertificateError::BrokenChain(error.to_string()))?;
        let leaf = chain.first().ok_or(CertificateError::NoCertificate)?;
        let contents = CertificateContents::read(leaf);
        let contents = contents.ok_or_else(|| CertificateError::BrokenChain("the first one is none".to_owned()))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::NoKey)?;
        let certified = CertifiedKey::from_der(chain, key.clone_key(), &ring::default_provider());
        let certified = Arc::new(certified.map_err(|error| match error {
            Error::InconsistentKeys(_) => CertificateError::OtherKey,
            Error::InvalidCertificate(_) => CertificateError::BrokenChain(error.to_string()),
            _ => CertificateError::UnusableKey,
        })?);
        let names = if names.is_empty() {
            contents.names.clone()
        } else {
            names.iter().map(|name| name.to_ascii_lowercase()).collect()
        };
        Ok(Self { certified, key, contents, names })
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The private key.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }

    /// The server names that select it, in lower case; `*.x` is possible.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The period of validity.
    pub fn validity(&self) -> Validity {
        self.contents.validity
    }

    /// Returns true if the certificate is valid for this name.
    pub fn bears_name(&self, name: &str) -> bool {
        self.contents.names.iter().any(|known| matches_name(known, &name.to_ascii_lowercase()))
    }

    /// Returns true if the certificate is valid for this address.
    pub fn bears_address(&self, address: IpAddr) -> bool {
        self.contents.addresses.contains(&address)
    }

    /// Returns true if chain, key and names are equal.
    pub fn is_same(&self, other: &Self) -> bool {
        self.chain() == other.chain() && self.key == other.key && self.names == other.names
    }

    pub(super) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

/// Returns true if a name covers a server name, both in lower case. `*` is the first label (RFC 6125 section
/// 6.4.3).
pub(super) fn matches_name(known: &str, name: &str) -> bool {
    match known.strip_prefix('*') {
        Some(rest) => name.find('.').is_some_and(|dot| dot > 0 && name.get(dot..) == Some(rest)),
        None => known == name,
    }
}

/// A problem with a chain or key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The chain file contains no certificate.
    #[error("there is no certificate in it, expected the chain in PEM, the leaf first")]
    NoCertificate,
    /// The chain is invalid.
    #[error("it is broken ({0}), expected certificates in PEM, the leaf first")]
    BrokenChain(String),
    /// The key file contains no key.
    #[error("there is no private key in it, expected one in PEM, without a passphrase")]
    NoKey,
    /// The key type is not supported.
    #[error("its key cannot be used, expected ECDSA (P-256, P-384), Ed25519 or RSA of 2048 bits or more")]
    UnusableKey,
    /// The key does not match the chain.
    #[error("its key is not that of the first certificate of the chain, expected the two to belong together")]
    OtherKey,
}

impl CertificateError {
    /// Returns true if the problem is in the key file.
    pub fn is_of_key(&self) -> bool {
        matches!(self, Self::NoKey | Self::UnusableKey | Self::OtherKey)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;
    use testkit::Leaf;

    use super::*;

    fn made(names: &[&str]) -> (String, String) {
        let made = Leaf::self_signed(names);
        (made.pem(), made.key_pem())
    }

    #[test]
    fn chain_and_key_are_read_for_the_names_that_are_to_be_shown() {
        let (chain, key) = made(&["DNS.example", "*.dns.example"]);
        let read = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            Certificate::read(chain.as_bytes(), key.as_bytes(), &names).expect("a good one")
        };
        assert_eq!(read(&[]).names(), ["dns.example", "*.dns.example"]);
        assert_eq!(read(&["Other.example"]).names(), ["other.example"]);
        assert!(read(&[]).is_same(&read(&[])) && !read(&[]).is_same(&read(&["other.example"])));
        let read = read(&[]);
        assert!(
            read.bears_name("a.DNS.example") && read.bears_name("dns.example") && !read.bears_name("a.b.dns.example")
        );
        assert!(!read.bears_address([127, 0, 0, 1].into()));
        let key_der = key.lines().nth(1).expect("a line");
        assert!(!format!("{read:?}").contains(key_der), "no form of printing shows the key");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_remedy() {
        let ((chain, key), (_, other)) = (made(&["a.example"]), made(&["a.example"]));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let half = &chain[..chain.len() / 2];
        let unknown = KeyPair::generate().expect("a key").public_key_pem();
        for (chain, key, is_of_key, reported) in [
            (&*chain, &*other, true, "its key is not that of the first certificate"),
            ("", &*key, false, "there is no certificate in it"),
            (&*key, &*key, false, "there is no certificate in it"),
            (half, &*key, false, "it is broken ("),
            (broken, &*key, false, "it is broken (the first one is none)"),
            (&*chain, "", true, "there is no private key in it"),
            (&*chain, &*chain, true, "there is no private key in it"),
            (&*chain, &*unknown, true, "there is no private key in it"),
        ] {
            let error = Certificate::read(chain.as_bytes(), key.as_bytes(), &[]).expect_err(reported);
            assert!(error.to_string().starts_with(reported), "{error}");
            assert_eq!(error.is_of_key(), is_of_key, "{reported}");
        }
    }

    #[test]
    fn a_star_stands_for_one_label() {
        for (known, name, expected) in [
            ("a.example", "a.example", true),
            ("a.example", "b.example", false),
            ("*.example", "a.example", true),
            ("*.example", "example", false),
            ("*.example", ".example", false),
            ("*.example", "a.b.example", false),
        ] {
            assert_eq!(matches_name(known, name), expected, "{known} {name}");
        }
    }
}
