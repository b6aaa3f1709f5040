//! What is spoken at one address by TCP: DNS, HTTP, or both, told apart by what a client offers in its handshake (ALPN, RFC 7301).

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::address::HttpPath;
use crate::wire::Transport;

/// The protocols of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocols {
    /// DNS in frames (RFC 7766, RFC 7858).
    pub is_dns: bool,
    /// DNS by HTTP (RFC 8484), under this path.
    pub http: Option<HttpPath>,
}

impl Protocols {
    /// DNS alone.
    pub const DNS: Self = Self { is_dns: true, http: None };

    /// What a client is taken to come by until it says more, and whether that is certain.
    pub(super) fn transport(&self, is_encrypted: bool) -> (Transport, bool) {
        match (is_encrypted, &self.http) {
            (false, None) => (Transport::Tcp, true),
            (false, Some(_)) => (Transport::Http, true),
            (true, Some(_)) if !self.is_dns => (Transport::Https, true),
            (true, http) => (Transport::Tls, http.is_none()),
        }
    }

    /// What a client of TLS may choose from, what it should choose first.
    pub fn alpn(&self) -> Vec<Vec<u8>> {
        let http: &[&[u8]] = if self.http.is_some() { &[H2, HTTP_1] } else { &[] };
        let dns: &[&[u8]] = if self.is_dns { &[DOT] } else { &[] };
        http.iter().chain(dns).map(|name| name.to_vec()).collect()
    }
}

/// The protocols in force at an address: those that share it change them by a reload, for new connections.
#[derive(Debug)]
pub struct Spoken(ArcSwap<Protocols>);

impl Default for Spoken {
    fn default() -> Self {
        Self(ArcSwap::from_pointee(Protocols::DNS))
    }
}

impl Spoken {
    /// Puts others in force.
    pub fn set(&self, protocols: Protocols) {
        self.0.store(Arc::new(protocols));
    }

    /// Those in force.
    pub fn get(&self) -> Arc<Protocols> {
        self.0.load_full()
    }
}

/// DNS over TLS, as registered for ALPN (RFC 7858).
const DOT: &[u8] = b"dot";

/// HTTP/2.
pub(super) const H2: &[u8] = b"h2";

/// HTTP/1.1.
pub(super) const HTTP_1: &[u8] = b"http/1.1";

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
