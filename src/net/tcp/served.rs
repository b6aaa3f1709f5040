//! Where a section takes queries, as its connections and listeners hear of it: an address that leaves takes its listener along
//! and its connections, unless another address of the section stands for it.

use std::sync::Arc;

use crate::address::{ListenAddress, Scheme};

/// The addresses of a section that are in force.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// Where queries are taken. None: the section ends.
    addresses: Arc<[ListenAddress]>,
    /// Where others go on to take queries by the same sockets, now that this section does not.
    passed_on: Arc<[ListenAddress]>,
}

impl Served {
    /// Queries are taken at `addresses`; of those where they were taken before, others go on with `passed_on`.
    pub fn new(
        addresses: impl IntoIterator<Item = ListenAddress>,
        passed_on: impl IntoIterator<Item = ListenAddress>,
    ) -> Self {
        Self { addresses: addresses.into_iter().collect(), passed_on: passed_on.into_iter().collect() }
    }

    /// The section ends; others go on with `passed_on`.
    pub fn nowhere(passed_on: impl IntoIterator<Item = ListenAddress>) -> Self {
        Self::new([], passed_on)
    }

    /// Whether an address is listened on.
    pub fn has(&self, address: ListenAddress) -> bool {
        self.addresses.contains(&address)
    }

    /// Whether somebody else reads on at an address.
    pub fn is_passed_on(&self, address: ListenAddress) -> bool {
        self.passed_on.contains(&address)
    }

    /// Whether who has connected to an address would reach the section there still, in the same way.
    pub(in crate::net) fn covers(&self, local: ListenAddress) -> bool {
        // By TCP it makes no difference what is spoken: no two listeners have one port that do not share it.
        let by_tcp = |address: &ListenAddress| address.scheme != Scheme::Quic;
        let stands_for = |address: &ListenAddress| {
            let (socket, local) = (address.socket, local.socket);
            let is_all = socket.ip().is_unspecified() && socket.is_ipv4() == local.is_ipv4();
            socket.port() == local.port() && (is_all || socket.ip() == local.ip())
        };
        self.addresses.iter().any(|address| by_tcp(address) == by_tcp(&local) && stands_for(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::ListenUrl;

    #[test]
    fn a_connection_stays_where_its_address_is_served_still() {
        let address = |text: &str| text.parse::<ListenUrl>().expect("an address").address;
        for (served, local, is_covered) in [
            (&["127.0.0.1:53"][..], "127.0.0.1:53", true),
            (&["0.0.0.0:53"], "127.0.0.1:53", true),
            (&["127.0.0.1:53"], "127.0.0.2:53", false),
            (&["0.0.0.0:54", "[::]:53"], "127.0.0.1:53", false),
            (&["0.0.0.0:53"], "[::1]:53", false),
            (&["127.0.0.1:54", "[::]:53"], "[::1]:53", true),
            (&[], "127.0.0.1:53", false),
            (&["quic://127.0.0.1:853"], "tls://127.0.0.1:853", false),
            (&["tls://127.0.0.1:853"], "quic://127.0.0.1:853", false),
            (&["quic://0.0.0.0:853"], "quic://127.0.0.1:853", true),
        ] {
            let served = Served::new(served.iter().map(|text| address(text)), []);
            assert_eq!(served.covers(address(local)), is_covered, "{served:?} {local}");
        }
    }
}
