//! Where a section takes queries, as its connections and listeners hear of it: an address that leaves takes its listener along
//! and its connections, unless another address of the section stands for it.

use std::net::SocketAddr;
use std::sync::Arc;

/// The addresses of a section that are in force.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// Where queries are taken. None: the section ends.
    addresses: Arc<[SocketAddr]>,
    /// Where others go on to take queries by the same sockets, now that this section does not.
    passed_on: Arc<[SocketAddr]>,
}

impl Served {
    /// Queries are taken at `addresses`; of those where they were taken before, others go on with `passed_on`.
    pub fn new(
        addresses: impl IntoIterator<Item = SocketAddr>,
        passed_on: impl IntoIterator<Item = SocketAddr>,
    ) -> Self {
        Self { addresses: addresses.into_iter().collect(), passed_on: passed_on.into_iter().collect() }
    }

    /// The section ends; others go on with `passed_on`.
    pub fn nowhere(passed_on: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self::new([], passed_on)
    }

    /// Whether an address is listened on.
    pub fn has(&self, address: SocketAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// Whether somebody else reads on at an address.
    pub fn is_passed_on(&self, address: SocketAddr) -> bool {
        self.passed_on.contains(&address)
    }

    /// Whether who has connected to an address would reach the section there still.
    pub(super) fn covers(&self, local: SocketAddr) -> bool {
        let stands_for = |address: &SocketAddr| {
            let is_all = address.ip().is_unspecified() && address.is_ipv4() == local.is_ipv4();
            address.port() == local.port() && (is_all || address.ip() == local.ip())
        };
        self.addresses.iter().any(stands_for)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_stays_where_its_address_is_served_still() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        for (served, local, is_covered) in [
            (&["127.0.0.1:53"][..], "127.0.0.1:53", true),
            (&["0.0.0.0:53"], "127.0.0.1:53", true),
            (&["127.0.0.1:53"], "127.0.0.2:53", false),
            (&["0.0.0.0:54", "[::]:53"], "127.0.0.1:53", false),
            (&["0.0.0.0:53"], "[::1]:53", false),
            (&["127.0.0.1:54", "[::]:53"], "[::1]:53", true),
            (&[], "127.0.0.1:53", false),
        ] {
            let served = Served::new(served.iter().map(|text| address(text)), []);
            assert_eq!(served.covers(address(local)), is_covered, "{served:?} {local}");
        }
    }
}
