//! The protocols of one TCP address: DNS, HTTP, or both, chosen by ALPN in the handshake (RFC 7301).

use dns::Transport;
use dns::address::HttpPath;

use crate::from_clients::http::HttpVersion;

/// The protocols of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocols {
    /// True if the address serves DNS frames (RFC 7766, RFC 7858).
    pub is_dns: bool,
    /// The path under which the address serves DNS over HTTP (RFC 8484).
    pub http: Option<HttpPath>,
}

impl Default for Protocols {
    fn default() -> Self {
        Self { is_dns: true, http: None }
    }
}

impl Protocols {
    /// Returns the HTTP version and path of an encrypted connection, or `None` for DNS frames, which come
    /// first without ALPN.
    pub(crate) fn http_by_alpn(&self, name: Option<&[u8]>) -> Option<(HttpVersion, HttpPath)> {
        let path = self.http.clone()?;
        match name {
            Some(H2) => Some((HttpVersion::Http2, path)),
            Some(HTTP_1) => Some((HttpVersion::Http1, path)),
            Some(_) => None,
            None => (!self.is_dns).then_some((HttpVersion::Http1, path)),
        }
    }

    /// Returns the assumed transport of a new connection, and true if no other is possible.
    pub(crate) fn transport(&self, is_encrypted: bool) -> (Transport, bool) {
        match (is_encrypted, &self.http) {
            (false, None) => (Transport::Tcp, true),
            (false, Some(_)) => (Transport::Http, true),
            (true, Some(_)) if !self.is_dns => (Transport::Https, true),
            (true, http) => (Transport::Tls, http.is_none()),
        }
    }

    /// Returns the ALPN protocols offered to TLS clients, the preferred one first.
    pub fn alpn(&self) -> Vec<Vec<u8>> {
        let http: &[&[u8]] = if self.http.is_some() { &[H2, HTTP_1] } else { &[] };
        let dns: &[&[u8]] = if self.is_dns { &[DOT] } else { &[] };
        http.iter().chain(dns).map(|name| name.to_vec()).collect()
    }
}

const DOT: &[u8] = b"dot";

const H2: &[u8] = b"h2";

const HTTP_1: &[u8] = b"http/1.1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shares_a_port_is_told_apart_by_what_clients_offer() {
        let http = || Some(HttpPath::default());
        for (is_dns, http, is_encrypted, transport, alpn) in [
            (true, None, false, (Transport::Tcp, true), "dot"),
            (false, http(), false, (Transport::Http, true), "h2 http/1.1"),
            (true, None, true, (Transport::Tls, true), "dot"),
            (false, http(), true, (Transport::Https, true), "h2 http/1.1"),
            (true, http(), true, (Transport::Tls, false), "h2 http/1.1 dot"),
        ] {
            let protocols = Protocols { is_dns, http };
            assert_eq!(protocols.transport(is_encrypted), transport, "{protocols:?}");
            let offered: Vec<_> =
                protocols.alpn().into_iter().map(|name| String::from_utf8(name).expect("a word")).collect();
            assert_eq!(offered.join(" "), alpn, "{protocols:?}");
        }
    }
}
