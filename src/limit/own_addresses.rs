//! Senders that no true client is: port 0, from which nobody can hear a response, and our own listeners, to which a response
//! would be the next query.

use std::net::{IpAddr, SocketAddr};

/// The addresses that we listen on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    /// As they are bound.
    addresses: Box<[SocketAddr]>,
}

impl OwnAddresses {
    /// These.
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { addresses: addresses.into_iter().collect() }
    }

    /// Whether a datagram with this source is dropped unread. `destination` is where it came to, where that is known beyond
    /// the address that its socket is bound to.
    ///
    /// What listens on all addresses of its host has each of them: those of loopback, and the one at which it was asked. That
    /// a datagram comes from another of them does not happen: it would not come in by any other interface (RFC 1122 section
    /// 3.2.1.3).
    pub fn are_source(&self, ip: IpAddr, port: u16, destination: Option<IpAddr>) -> bool {
        port == 0 || self.addresses.iter().any(|own| own.port() == port && is_own(own.ip(), ip, destination))
    }
}

impl OwnAddresses {
    /// True if a proxy at this address may name this client in a header. A header that names this host would have the rights of this
    /// host, such as no limit of rates; only a proxy on loopback passes on what this host asks. An address that receives nothing
    /// (RFC 1122 section 3.2.1.3) is no client of anybody.
    pub fn may_be_named(&self, client: IpAddr, proxy: IpAddr) -> bool {
        let client = client.to_canonical();
        let is_here = client.is_loopback() || self.addresses.iter().any(|own| own.ip().to_canonical() == client);
        !client.is_unspecified() && !client.is_multicast() && (!is_here || proxy.to_canonical().is_loopback())
    }
}

/// Whether an address is that of a listener.
fn is_own(own: IpAddr, ip: IpAddr, destination: Option<IpAddr>) -> bool {
    let ip = ip.to_canonical();
    if own.is_unspecified() {
        ip.is_loopback() || destination.is_some_and(|destination| destination.to_canonical() == ip)
    } else {
        own.to_canonical() == ip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_sends_from_port_0_or_from_our_own_addresses() {
        let own = OwnAddresses::new(["127.0.0.1:5300", "[::]:53"].map(|text| text.parse().expect("an address")));
        for (source, destination, expected) in [
            ("192.0.2.1:0", None, true),
            ("192.0.2.1:5300", None, false),
            ("127.0.0.1:5300", None, true),
            ("[::ffff:127.0.0.1]:5300", None, true),
            ("127.0.0.2:5300", None, false),
            ("127.0.0.1:5301", None, false),
            ("127.0.0.1:53", None, true),
            ("[::1]:53", None, true),
            ("192.0.2.1:53", None, false),
            ("192.0.2.1:53", Some("192.0.2.1"), true),
            ("192.0.2.1:53", Some("192.0.2.2"), false),
            ("[2001:db8::1]:53", Some("2001:db8::1"), true),
        ] {
            let source: SocketAddr = source.parse().expect("an address");
            let destination = destination.map(|text| text.parse().expect("an address"));
            assert_eq!(own.are_source(source.ip(), source.port(), destination), expected, "{source} {destination:?}");
        }
    }

    #[test]
    fn only_a_proxy_on_loopback_names_this_host() {
        let own = OwnAddresses::new(["192.0.2.1:53", "[2001:db8::1]:53"].map(|text| text.parse().expect("an address")));
        for (client, elsewhere, on_loopback) in [
            ("198.51.100.7", true, true),
            ("2001:db8::7", true, true),
            ("127.0.0.1", false, true),
            ("127.8.8.8", false, true),
            ("::1", false, true),
            ("::ffff:127.0.0.1", false, true),
            ("192.0.2.1", false, true),
            ("::ffff:192.0.2.1", false, true),
            ("2001:db8::1", false, true),
            ("0.0.0.0", false, false),
            ("::", false, false),
            ("::ffff:0.0.0.0", false, false),
            ("224.0.0.1", false, false),
            ("ff02::1", false, false),
        ] {
            let client: IpAddr = client.parse().expect("an address");
            for (proxy, expected) in [("192.0.2.9", elsewhere), ("127.0.0.2", on_loopback), ("::1", on_loopback)] {
                let proxy = proxy.parse().expect("an address");
                assert_eq!(own.may_be_named(client, proxy), expected, "{client} by {proxy}");
            }
        }
    }
}
