//! The next hops of backends for datagrams by AF_XDP.
//!
//! The control thread gives workers a new table when the kernel's routes or neighbors change. Backends
//! without an entry are reached by ordinary sockets, which also make the kernel resolve the neighbor.

use std::net::IpAddr;

use super::frame::EthernetLink;

/// The path of a datagram to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The index of the interface.
    pub interface: u32,
    /// Our source address.
    pub source: IpAddr,
    /// The Ethernet addresses, from us to the host or a router.
    pub link: EthernetLink,
}

impl NextHop {
    /// A next hop from our addresses to the Ethernet address `theirs`.
    pub fn new(interface: u32, source: IpAddr, ours: [u8; 6], theirs: [u8; 6]) -> Self {
        Self { interface, source, link: EthernetLink { ours, theirs } }
    }
}

/// An immutable table of next hops of hosts that are reached by AF_XDP interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NextHops(
    /// A config has few backends, so a linear search is fastest.
    Vec<(IpAddr, NextHop)>,
);

impl NextHops {
    /// The next hop to this host, if known.
    #[inline]
    pub fn to(&self, host: IpAddr) -> Option<NextHop> {
        let index = self.0.binary_search_by_key(&host, |(host, _)| *host).ok()?;
        self.0.get(index).map(|(_, hop)| *hop)
    }

    /// Returns true if the table is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(IpAddr, NextHop)> for NextHops {
    /// The first entry for a host wins. Link-local addresses do not name their link (RFC 4007 section 6).
    fn from_iter<I: IntoIterator<Item = (IpAddr, NextHop)>>(hops: I) -> Self {
        let has_scope = |host: &IpAddr| matches!(host, IpAddr::V6(host) if host.is_unicast_link_local());
        let mut hops: Vec<_> = hops.into_iter().filter(|(host, _)| !has_scope(host)).collect();
        hops.sort_by_key(|(host, _)| *host);
        hops.dedup_by_key(|(host, _)| *host);
        Self(hops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(number: u8) -> NextHop {
        NextHop::new(number.into(), IpAddr::from([192, 0, 2, 1]), [2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, number])
    }

    #[test]
    fn each_host_has_its_own() {
        let hosts = ["192.0.2.9", "2001:db8::1", "192.0.2.10", "10.0.0.1", "::ffff:10.0.0.1"];
        let hosts = hosts.map(|host| host.parse::<IpAddr>().unwrap());
        let all: NextHops = hosts.into_iter().zip((1..).map(hop)).collect();
        for (host, number) in hosts.into_iter().zip(1..) {
            assert_eq!(all.to(host), Some(hop(number)), "{host}");
        }
        for unknown in ["192.0.2.1", "192.0.2.11", "10.0.0.2", "2001:db8::", "::", "0.0.0.0"] {
            assert_eq!(all.to(unknown.parse().unwrap()), None, "{unknown}");
        }
        let reversed: NextHops = hosts.into_iter().zip((1..6).map(hop)).rev().collect();
        assert_eq!(all, reversed, "their order means nothing");
        assert!(!all.is_empty() && NextHops::default().is_empty());
    }

    #[test]
    fn first_of_several_is_taken_and_link_local_ones_are_not() {
        let [host, local] = ["192.0.2.9", "fe80::1"].map(|host| host.parse::<IpAddr>().unwrap());
        let all: NextHops = [(host, hop(7)), (local, hop(8)), (host, hop(9))].into_iter().collect();
        assert_eq!((all.to(host), all.to(local)), (Some(hop(7)), None));
    }
}
