//! The next hops of backends: over which wire, and to which Ethernet address, a datagram to each leaves by AF_XDP.
//!
//! They are the kernel's: the control thread asks for its routes and neighbors, and gives all workers the same table whenever one has changed. A
//! backend that is not in it is asked by an ordinary socket: it is reached by another interface, or its neighbor is not known yet, which
//! a datagram by a socket has the kernel find out.

use std::net::IpAddr;

use super::frame::Link;

/// How a datagram to a host leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The index of the interface.
    pub interface: u32,
    /// The address of ours that it leaves from.
    pub source: IpAddr,
    /// From us to the host itself, or to a router.
    pub link: Link,
}

impl NextHop {
    /// Out of an interface, from our address there, to the Ethernet address `theirs`.
    pub fn new(interface: u32, source: IpAddr, ours: [u8; 6], theirs: [u8; 6]) -> Self {
        Self { interface, source, link: Link { ours, theirs } }
    }
}

/// The next hops that are known, of hosts that are reached by an interface with AF_XDP. It never changes: there is another in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NextHops(
    /// By address. A config has a handful of backends, for which nothing is found faster.
    Vec<(IpAddr, NextHop)>,
);

impl NextHops {
    /// How a datagram to this host leaves, if that is known.
    #[inline]
    pub fn to(&self, host: IpAddr) -> Option<NextHop> {
        let index = self.0.binary_search_by_key(&host, |(host, _)| *host).ok()?;
        self.0.get(index).map(|(_, hop)| *hop)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(IpAddr, NextHop)> for NextHops {
    /// Of several for one host, the first is taken. Those that need to know their interface by name are left out: an address does not tell
    /// which link it is local to (RFC 4007 section 6).
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
