//! The path under which a server answers DNS over HTTPS.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::sync::Arc;

use super::BadAddress;

/// An HTTP path without a query: it begins with a slash, and needs no quoting.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpPath(Arc<str>);

impl HttpPath {
    /// Returns the path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for HttpPath {
    /// The path of nearly all servers (from the examples of RFC 8484 section 4.1).
    fn default() -> Self {
        Self(Arc::from("/dns-query"))
    }
}

impl FromStr for HttpPath {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        // RFC 3986 section 3.3: segments of unreserved characters, of sub-delimiters, and of
        // percent-encoding.
        let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&octet);
        match text.starts_with('/') && text.len() <= MAX_PATH && text.bytes().all(is_plain) {
            true => Ok(Self(Arc::from(text))),
            false => Err(BadAddress::new("a path such as /dns-query, without spaces, ? or {")),
        }
    }
}

impl Display for HttpPath {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The longest path in bytes: the request line stays well below the limits of servers.
const MAX_PATH: usize = 1024;
