//! Sources that no real client has: port 0, which cannot receive a response, and our own listeners, for which
//! a response would be the next query.

use std::net::{IpAddr, SocketAddr};

/// The addresses of the listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    addresses: Box<[SocketAddr]>,
}

impl OwnAddresses {
    /// Creates the set of these addresses.
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { addresses: addresses.into_iter().collect() }
    }

    /// Returns true if a datagram with this source must be dropped unread. `destination` is its local
    /// address, if that is more specific than the socket's.
    pub fn are_source(&self, ip: IpAddr, port: u16, destination: Option<IpAddr>) -> bool {
        port == 0 || self.addresses.iter().any(|own| own.port() == port && is_own(own.ip(), ip, destination))
    }
}

impl OwnAddresses {
    /// Returns true if a proxy at this address may name this client in a header. A named local address would
    /// have local rights, such as no rate limit, so only a proxy on loopback may name one. An address that
    /// receives nothing (RFC 1122 section 3.2.1.3) is no client.
    pub fn may_be_named(&self, client: IpAddr, proxy: IpAddr) -> bool {
        let client = client.to_canonical();
        let is_here = client.is_loopback() || self.addresses.iter().any(|own| own.ip().to_canonical() == client);
        !client.is_unspecified() && !client.is_multicast() && (!is_here || proxy.to_canonical().is_loopback())
    }
}

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
