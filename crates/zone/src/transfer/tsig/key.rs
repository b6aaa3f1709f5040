//! Keys: a name, an algorithm and a secret that two servers share.

use std::fmt;
use std::sync::Arc;

use dns::Name;

use super::library_algorithm;

/// The algorithm of a MAC (RFC 8945 section 6). Other algorithms are weak or unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// `hmac-sha256`.
    HmacSha256,
    /// `hmac-sha512`.
    HmacSha512,
}

impl Algorithm {
    /// Returns the name of the algorithm as a domain name.
    pub(crate) fn name(self) -> Name {
        let name = match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha512 => "hmac-sha512",
        };
        name.parse().expect("the names of algorithms are names")
    }
}

/// A key. Copies share the secret, and `Debug` does not show it.
#[derive(Clone)]
pub struct TsigKey {
    name: Name,
    algorithm: Algorithm,
    secret: Arc<[u8]>,
}

impl TsigKey {
    /// Makes a key of this secret.
    pub fn new(name: &Name, algorithm: Algorithm, secret: &[u8]) -> Self {
        Self { name: name.folded(), algorithm, secret: secret.into() }
    }

    /// Returns the name in lower case.
    pub fn name(&self) -> &Name {
        &self.name
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns a collision-resistant digest: an HMAC-SHA-256 with a public key.
    pub fn digest(octets: &[u8]) -> Vec<u8> {
        Self::new(&Name::root(), Algorithm::HmacSha256, b"hedgerow").mac(octets)
    }

    pub(super) fn mac(&self, octets: &[u8]) -> Vec<u8> {
        let mac = library_algorithm(self.algorithm).mac_data(&self.secret, octets);
        mac.expect("the library knows all algorithms that we have a name for")
    }
}

impl PartialEq for TsigKey {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.algorithm, &self.secret) == (&other.name, other.algorithm, &other.secret)
    }
}

impl Eq for TsigKey {}

impl fmt::Debug for TsigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, {:?}, secret withheld)", self.name, self.algorithm)
    }
}

/// All keys of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TsigKeys(Vec<TsigKey>);

impl TsigKeys {
    /// Makes a list of keys. Of two with one name the first counts.
    pub fn new(keys: Vec<TsigKey>) -> Self {
        Self(keys)
    }

    /// Finds a key by name, ignoring case.
    pub fn by_name(&self, name: &Name) -> Option<&TsigKey> {
        let folded = name.folded();
        self.0.iter().find(|key| key.name == folded)
    }

    pub(super) fn find(&self, name: &Name, algorithm: &Name) -> Option<&TsigKey> {
        self.by_name(name).filter(|key| key.algorithm.name() == algorithm.folded())
    }
}
