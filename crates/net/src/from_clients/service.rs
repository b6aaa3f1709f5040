//! A worker's part of a section: what the listeners of its connections need, by TCP and by QUIC.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use dns::address::{ListenAddress, Scheme};
use metrics::Counters;
use tokio::sync::watch;

use super::tcp::{ConnectionTable, Gate, QueryHandler};

/// The surroundings of one listener of connections.
pub struct ConnectionService {
    /// The address of the listener, as bound.
    pub address: ListenAddress,
    /// The connections of the section.
    pub table: Arc<ConnectionTable>,
    /// The addresses of the section.
    pub served: watch::Receiver<ServedAddresses>,
    /// The counters of the worker.
    pub counters: Arc<Counters>,
    /// The gate that keeps handshakes from delaying queries.
    pub gate: Rc<Gate>,
    /// Returns true if a client may connect. The connections of others close without a response.
    pub admits: Box<dyn Fn(IpAddr) -> bool>,
    /// Handles a message, and calls its responder once.
    pub handle: QueryHandler,
}

/// The current addresses of a section. When an address is removed, its listener and its connections end,
/// unless another address of the section covers it.
#[derive(Clone, Debug, Default)]
pub struct ServedAddresses {
    /// Empty if the section ends.
    addresses: Arc<[ListenAddress]>,
    passed_on: Arc<[ListenAddress]>,
}

impl ServedAddresses {
    /// Creates the set of served `addresses`. Other sections continue to read the sockets of `passed_on`.
    pub fn new(
        addresses: impl IntoIterator<Item = ListenAddress>,
        passed_on: impl IntoIterator<Item = ListenAddress>,
    ) -> Self {
        Self { addresses: addresses.into_iter().collect(), passed_on: passed_on.into_iter().collect() }
    }

    /// Creates the set of a section that ends. Other sections continue to read the sockets of `passed_on`.
    pub fn nowhere(passed_on: impl IntoIterator<Item = ListenAddress>) -> Self {
        Self::new([], passed_on)
    }

    /// Returns true if the section listens on `address`.
    pub fn has(&self, address: ListenAddress) -> bool {
        self.addresses.contains(&address)
    }

    /// Returns true if another section continues to read at `address`.
    pub fn is_passed_on(&self, address: ListenAddress) -> bool {
        self.passed_on.contains(&address)
    }

    /// Returns true if a client that is connected to `local` would still reach the section in the same way.
    pub(crate) fn covers(&self, local: ListenAddress) -> bool {
        // The protocol does not matter for TCP: two listeners with the same port share it.
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
    use dns::address::ListenUrl;

    use super::*;

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
            let served = ServedAddresses::new(served.iter().map(|text| address(text)), []);
            assert_eq!(served.covers(address(local)), is_covered, "{served:?} {local}");
        }
    }
}
