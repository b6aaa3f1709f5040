//! Keys: a name, an algorithm and a secret that two servers share.

use std::fmt;
use std::sync::Arc;

use super::library_algorithm;
use crate::wire::Name;

/// How MACs are made (RFC 8945 section 6). Others are weak, or in nobody's use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// `hmac-sha256`.
    HmacSha256,
    /// `hmac-sha512`.
    HmacSha512,
}

impl Algorithm {
    /// Its name as a domain name.
    pub fn name(self) -> Name {
        let name = match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha512 => "hmac-sha512",
        };
        name.parse().expect("the names of algorithms are names")
    }
}

/// A key. Copies share the secret, and no form of printing shows it.
#[derive(Clone)]
pub struct Key {
    /// Its name, folded.
    name: Name,
    /// How it is used.
    algorithm: Algorithm,
    /// What nobody else knows.
    secret: Arc<[u8]>,
}

impl Key {
    /// A key of this secret.
    pub fn new(name: &Name, algorithm: Algorithm, secret: &[u8]) -> Self {
        Self { name: name.folded(), algorithm, secret: secret.into() }
    }

    /// Its name, in lower case.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// How it is used.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// A digest of octets in which no two differ by chance or intent: an HMAC-SHA-256 with a key that everybody knows.
    pub fn digest(octets: &[u8]) -> Vec<u8> {
        Self::new(&Name::root(), Algorithm::HmacSha256, b"hedgerow").mac(octets)
    }

    pub(super) fn mac(&self, octets: &[u8]) -> Vec<u8> {
        let mac = library_algorithm(self.algorithm).mac_data(&self.secret, octets);
        mac.expect("the library knows all algorithms that we have a name for")
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.algorithm, &self.secret) == (&other.name, other.algorithm, &other.secret)
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, {:?}, secret withheld)", self.name, self.algorithm)
    }
}

/// All keys of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// These keys. Of two with one name the first counts.
    pub fn new(keys: Vec<Key>) -> Self {
        Self(keys)
    }

    /// The key of this name, whatever the case.
    pub fn by_name(&self, name: &Name) -> Option<&Key> {
        let folded = name.folded();
        self.0.iter().find(|key| key.name == folded)
    }

    /// The key of this name, if it is for this algorithm.
    pub(super) fn find(&self, name: &Name, algorithm: &Name) -> Option<&Key> {
        self.by_name(name).filter(|key| key.algorithm.name() == algorithm.folded())
    }
}
