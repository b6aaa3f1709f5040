//! The protocols of one TCP address: DNS, HTTP, or both, chosen by ALPN in the handshake (RFC 7301).

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::address::HttpPath;
use crate::wire::Transport;

/// The protocols of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocols {
    /// True if the address serves DNS frames (RFC 7766, RFC 7858).
    pub is_dns: bool,
    /// The path under which the address serves DNS over HTTP (RFC 8484).
    pub http: Option<HttpPath>,
}

impl Protocols {
    /// Only DNS frames.
    pub const DNS: Self = Self { is_dns: true, http: None };

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

/// The current protocols of an address. All listeners of the address share it, and a reload changes it for
/// new connections.
#[derive(Debug)]
pub struct Spoken(ArcSwap<Protocols>);

impl Default for Spoken {
    fn default() -> Self {
        Self(ArcSwap::from_pointee(Protocols::DNS))
    }
}

impl Spoken {
    /// Replaces the protocols.
    pub fn set(&self, protocols: Protocols) {
        self.0.store(Arc::new(protocols));
    }

    /// Returns the current protocols.
    pub fn get(&self) -> Arc<Protocols> {
        self.0.load_full()
    }
}

const DOT: &[u8] = b"dot";

pub(crate) const H2: &[u8] = b"h2";

pub(crate) const HTTP_1: &[u8] = b"http/1.1";

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
