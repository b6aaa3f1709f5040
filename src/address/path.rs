//! The path under which a server answers DNS over HTTPS.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::BadAddress;

/// A path of HTTP, without a query: it begins with a slash, and needs no quoting.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpPath(Arc<str>);

impl HttpPath {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for HttpPath {
    /// What nearly all servers answer under (RFC 8484 section 4.1 has it in its examples).
    fn default() -> Self {
        Self(Arc::from("/dns-query"))
    }
}

impl FromStr for HttpPath {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        // RFC 3986 section 3.3: segments of unreserved characters, of sub-delimiters, and of what is quoted.
        let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&octet);
        match text.starts_with('/') && text.len() <= MAX_PATH && text.bytes().all(is_plain) {
            true => Ok(Self(Arc::from(text))),
            false => Err(BadAddress::new("a path such as /dns-query, without spaces, ? or {")),
        }
    }
}

impl TryFrom<String> for HttpPath {
    type Error = BadAddress;

    fn try_from(text: String) -> Result<Self, BadAddress> {
        text.parse()
    }
}

impl From<HttpPath> for String {
    fn from(path: HttpPath) -> Self {
        path.as_str().to_owned()
    }
}

impl Display for HttpPath {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Octets of a path: with them a request line stays well below what any server takes.
const MAX_PATH: usize = 1024;
